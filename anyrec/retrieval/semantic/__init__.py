"""Search of items by a text or an image: vectors of queries and items in one space.

queries        a query and its errors
fields         what describes an item: an encoder and the column it reads
spaces         vectors of the items' fields, and of queries
projection     from a space into the space of the item tower
saved_vectors  the vectors of a space, kept next to the model
search         the spaces of a model, and the items nearest to a query
"""
