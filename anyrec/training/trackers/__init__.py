"""Trackers, which record trainings in other programs. `tracking` in the config names them.

- mlflow: MLflow.
- tensorboard: TensorBoard.
- wandb: Weights & Biases.
"""
