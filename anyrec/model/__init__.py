"""Layer 2: prepared columns to vectors to scores, and a fitted model with the users and items it knows.

towers: `EntityTower`, `UserTower` and `ItemTower` encode one side.
multi_modal_fusion: `MultiModalFusion` joins vectors of several modalities.
dim_shares: the share of the feature dimension that each group has (`dim_ratio`).
two_tower_network: `TwoTower` has both towers, the interaction and the heads.
make_towers: encoders, towers and heads from a config.
build: the untrained network from a config and training rows; checks of a config against the data.
check_index: checks of the index in a config.
graph: propagation of id vectors over the interaction graph (LightGCN).
prepare_histories: histories as tensors, in blocks if they do not fit into memory.
represent: representations of many rows, in blocks of bounded memory.
scoring: scores and top-K lists, in blocks of bounded memory.
model_data: the parts of a model that exist before it is trained.
known_records: the users and items that a model knows, and what the users did.
fitted: `FittedModel`, which evaluation, retrieval, the pipeline, storage and serving work with.
two_tower: the fitted two-tower model.
join: the users, items and interactions of a request join a model.
choice: what was chosen on the validation part, for reports and model files.
file_features: the features whose values name files.
blended: the fitted blend of towers and classical models.
classical: the fitted classical model, such as item-kNN.
classical_scorer: its scores and vectors, for users with any history.
reconfigure: the keys of a fitted model's config that can change.
user_interactions: histories of the users, from the learning data.
online_features: features of the users of a request from Feast.
request_reader: reads the users or items of a request.
records: the users or items of a request as the model reads them.
added_users: users that are added after training.
result_tables: lists, scores and embeddings as Arrow tables.
pair_tables: pairs of users and items, and the predictions for them, as Arrow tables.
arguments: checks of the arguments of the Python interface.
attach_data: attaches the training data to a loaded model.
custom_modules: plain torch modules as encoders, saved without pickle.
"""
