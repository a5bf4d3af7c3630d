"""How classical models score the items for histories, in NumPy.

An exported model calls these programs by name through `kinds`, without torch and SciPy. Models of `interaction/` name
their program (`Classical.scoring`) and call the functions that they share with it.

kinds: the programs by name, made of the state of a fitted model.
bpr_vectors: users' vectors of BPR, solved from their histories.
positions: the places of pairs in the histories of their users.
history_batches: users in batches of histories of about the same length.
"""
