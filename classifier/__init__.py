"""The built-in losses and heads.

losses: compare the scores of positives with those of their negatives.
catalogue_softmax: the softmax over the whole catalogue, computed in blocks.
sliced_softmax: the same, for items that are divided over processes.
heads: predict more than the match score: the type of interaction, the rating.
"""
