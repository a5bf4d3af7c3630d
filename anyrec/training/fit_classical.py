"""Fit a classical model to learning data."""

from __future__ import annotations

from anyrec.core.config import Config
from anyrec.core.contracts import Context, TrainingMatrix
from anyrec.core.registry import Registry
from anyrec.core.runtime import seeded
from anyrec.data.learning import LearningData
from anyrec.data.split import Split
from anyrec.model.classical import ClassicalModel, ClassicalScorer, make_classical, matrix_of, training_matrix


def fit_classical(
    config: Config,
    learning: LearningData,
    split: Split,
    registry: Registry,
    context: Context,
    training: TrainingMatrix | None = None,
) -> ClassicalModel:
    """Fit the classical model that `model` of the config names.

    Args:
        config: Complete config.
        learning: The data, its labels and its split.
        split: The split to train on.
        registry: The components.
        context: Folder of files, permissions and seed.
        training: The training matrix of `split`, if the caller computed it already.

    Raises:
        ConfigError: If the model's options are invalid.
        MissingDependency: If a library that the model needs is not installed.
    """
    classical = make_classical(config, registry)
    if training is None:
        training = training_matrix(learning.dataset, learning.positives(split.train), config.seed)
    with seeded(config.seed):
        classical.fit(training)
    scorer, matrix_parts = ClassicalScorer(classical, training.matrix), None
    if classical.by_history:  # it serves from all positives of each user, including those of validation and test
        pairs, matrix_parts = learning.positive_pairs
        scorer = ClassicalScorer(classical, matrix_of(pairs, training.matrix.shape), scorer.popularity)
    seen, seen_parts = learning.seen
    return ClassicalModel(
        config=config,
        registry=registry,
        dataset=learning.dataset,
        context=context,
        scorer=scorer,
        seen=seen,
        seen_parts=seen_parts,
        learning=learning,
        matrix_parts=matrix_parts,
    )
