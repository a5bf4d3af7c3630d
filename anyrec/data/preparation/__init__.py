"""What the built-in encoders do with a column before their layers, in NumPy.

An encoder of `encoders/` calls these functions and turns the arrays into tensors. An exported model calls them by name
through `kinds`, without torch.

kinds: preparations by name, made of the options and the state of a saved encoder.
ids, categories: places in vocabularies, and hash buckets.
numbers: standardised numbers.
sequences: sequences of numbers, and timestamps.
words: texts as hashed words. text_statistics: how texts are written. tokens: texts as tokens of a pretrained model.
image_arrays: images as pixels. visual: descriptors of images.
events: the events of users. aggregates: running means and frequencies of users' items.
"""
