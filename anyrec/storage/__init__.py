"""Layer 5: the model directory and its card.

model_directory: writes a model directory as one unit; finds it; its identifier.
load_model: reads a model directory, which can come from anyone.
tower_files: the files of a two-tower model.
record_files: the files of users, items and what users did.
states: the states of encoders and heads, with arrays of any rank.
blend_files: the files of a blend.
classical_files: the files of a classical model.
model_card: README.md of the directory.
hub: models on the Hugging Face Hub.
parts: what a model directory has: model, pipeline, metrics, notes.
"""
