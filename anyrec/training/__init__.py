"""Layer 4: from training interactions to a trained model.

fit: from a config and LearningData to a FittedModel.
fit_classical: the same for classical models, which need no training loop.
tune: the options of a classical model that are best on validation.
blend: towers and classical models, chosen and weighted on the validation part.
ensemble: the weights of a blend, by ensemble selection.
fitting_models: the classical models that fit a dataset.
final: the model that is delivered, with its blend and its refit.
samples: the training interactions as tensors.
objective: the loss of one batch.
explicit_negatives: the draws of explicit negatives, and the pairs that are never negatives.
top_items: the items that the present model scores highest, for samplers that draw from them.
make_objective: creates the objective that a config names.
labelled_objective: the loss of one batch of explicit labels.
division: how the rows of a step are divided between processes.
step_vectors: the vectors of the users and items of a step.
catalogue_slices: the slices of the catalogue that processes score.
batch_statistics: batch normalisation, which several processes refuse.
exchange: the gradients that processes exchange.
kept_gradients: memory for the gradients of large tables.
loop: the training loop.
optimizers: dense and sparse optimizers, and the schedule of the learning rate.
weight_average: the moving average of the weights.
update: a few steps on the new interactions of an update, kept if they help.
update_samples: these interactions as training data.
checkpoints: saving and resuming a run.
progress: how far a run is.
run_origin: what the result of a run depends on.
tracker: the contract of trackers, which record trainings in other programs.
tracking: a training and its trackers.
trackers: the trackers that are built in.
"""
