"""Fit a classical model to learning data."""

from __future__ import annotations

import numpy as np

from anyrec.core.config import Config
from anyrec.core.contracts import Classical, Context, TrainingMatrix
from anyrec.core.registry import Registry
from anyrec.core.runtime import seeded
from anyrec.data.learning import LearningData
from anyrec.data.split import HELD_OUT, PARTS, Part, Split
from anyrec.model.classical import ClassicalModel, make_classical, matrix_of, training_matrix
from anyrec.model.classical_scorer import ClassicalScorer


def with_refit(config: Config) -> Config:
    """Return the config of a fit on the training and validation parts, for `LearningData.final_split`."""
    return config.model_copy(update={"training": config.training.model_copy(update={"refit": True})})


def fit_classical(
    config: Config,
    learning: LearningData,
    split: Split,
    registry: Registry,
    context: Context,
    matrices: dict[str, TrainingMatrix] | None = None,
) -> ClassicalModel:
    """Fit the classical model that `model` of the config names.

    Args:
        config: Complete config.
        learning: The data, its labels and its split.
        split: The split to train on. A model that counts needs none: it counts the positives before each held-out part
            of the split of `learning`, and all of them for serving.
        registry: The components.
        context: Folder of files, permissions and seed.
        matrices: The training matrices that were computed already for `learning`, by part; gets those that are computed
            now. Pass the same dict for all models that are fitted on `learning.split`.

    Raises:
        ConfigError: If the model's options are invalid.
        MissingDependency: If a library that the model needs is not installed.
    """
    classical = make_classical(config, registry)
    past: dict[Part, Classical] | None = None
    matrices = {} if matrices is None or split is not learning.split else matrices
    if classical.counts:
        past = {
            part: _fitted(config, registry, past_matrix(learning, part, config.seed, matrices)) for part in HELD_OUT
        }
        training = past_matrix(learning, None, config.seed, matrices)
    elif split is learning.split:
        training = past_matrix(learning, "validation", config.seed, matrices)
    else:
        training = training_matrix(learning.dataset, learning.positives(split.train), config.seed)
    classical = _fitted(config, registry, training)
    scorer, matrix_parts = ClassicalScorer(classical, training.matrix), None
    if classical.by_history or classical.folds_in or classical.counts:
        pairs, matrix_parts = learning.positive_pairs  # it serves from all, those of validation and test as well
        fitted = None if classical.counts else scorer.fitted
        learned = np.diff(training.matrix.indptr) > 0 if classical.folds_in else None
        scorer = ClassicalScorer(classical, matrix_of(pairs, training.matrix.shape), fitted=fitted, learned=learned)
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
        past=past,
        has_vectors=classical.factorised,
    )


def past_matrix(
    learning: LearningData, part: Part | None, seed: int, matrices: dict[str, TrainingMatrix]
) -> TrainingMatrix:
    """Return the training matrix of the positives before a part of the split, or of all positives.

    Args:
        learning: The data, its labels and its split.
        part: The part; None for all positives.
        seed: Seed for any randomness.
        matrices: Those that were computed already, by part; gets the new one.
    """
    key = part or "now"
    if key not in matrices:
        rows = np.flatnonzero(learning.labels.positive)
        if part is not None:
            rows = rows[learning.parts[rows] < PARTS.index(part)]
        matrices[key] = training_matrix(learning.dataset, rows, seed)
    return matrices[key]


def _fitted(config: Config, registry: Registry, training: TrainingMatrix) -> Classical:
    """Return the component of the config, fitted."""
    classical = make_classical(config, registry)
    with seeded(config.seed):
        classical.fit(training)
    return classical
