"""The built-in components between the encoders and the loss.

feature_fusion: fusions, which join the feature vectors of a user or item into one vector.
adaptive_mimic: the fusion that gates between a record's id and its content.
interaction_modeling: interactions, which score a user against an item: dot, cosine, mlp, attention.
rankers: interactions over the feature vectors of both sides: DCN-v2, DeepFM, DLRM.
ranker_layers: the layers of the rankers.
samplers: samplers of negatives.
labelled: the sampler for training on explicit negatives only.
classical: classical models, fitted without training loop and also used as baselines: popularity, EASE, content-kNN.
item_knn: the classical model of co-occurring items.
factorisation: the classical models with a vector for each user and item: iALS, BPR, SVD.
ials_vectors: users' vectors of iALS, solved from their histories.
trending: the classical model of present popularity, by weights that are learned at past moments.
pair_log: training pairs in the order of time, and what they say of items and histories at a moment.
user_lifts: how much more often users with a value of a feature choose each item.
conditional_logit: the weights of features by which users choose among items.
"""
