"""The built-in encoders, each turning one column of features into vectors. One file for each kind of data:

identity: the record's own id, as a learned vector; optionally propagated over the interaction graph (LightGCN).
categorical: one category or several, as learned vectors.
continuous: numbers, standardised; linear, periodic or piecewise linear.
text: texts as hashed words and word pairs.
text_statistics: numbers of words, characters and sentences of texts, and how they are written.
sentence: texts by a sentence-transformers model.
image: images by a small convolutional network or a torchvision backbone.
clip, clip_text: images and texts by the halves of a CLIP model, in one space.
clip_model: the model behind them.
visual_descriptor: images by colours and edges, without training.
temporal: sequences of numbers, and timestamps.
item_ids: lists of item ids, without order.
history: a user's past interactions, by a sequence model.
item_set: a user's past interactions, as a set without order.
aggregates: a user's past interactions, as running means and frequencies.
sequence_blocks: the layers of `history`.
"""
