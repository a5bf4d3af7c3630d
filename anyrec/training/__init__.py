"""From training interactions to a trained model.

samples: the training interactions as tensors.
objective: the loss of one batch.
labelled_objective: the loss of one batch of explicit labels.
loop: the training loop.
optimizers: dense and sparse optimizers, and the schedule of the learning rate.
weight_average: the moving average of the weights.
checkpoints: saving and resuming a run.
"""
