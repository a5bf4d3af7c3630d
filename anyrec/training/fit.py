"""Fit a model to learning data. The facade evaluates it and fits its pipeline afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from anyrec.core.config import TWO_TOWER, Config
from anyrec.core.contracts import Context
from anyrec.core.errors import DataError, Fault
from anyrec.core.registry import Registry
from anyrec.core.runtime import seeded, training_memory
from anyrec.core.timing import timed
from anyrec.data.fingerprint import data_fingerprint
from anyrec.data.histories import Events, history_column, history_features, with_history
from anyrec.data.ids import Side
from anyrec.data.labels import Labels, training_weights
from anyrec.data.learning import LearningData
from anyrec.data.split import Split
from anyrec.evaluation.held_out import held_out, rank_state
from anyrec.evaluation.ranking import ranking_metrics
from anyrec.model.build import assemble
from anyrec.model.fitted import FittedModel
from anyrec.model.towers import Columns
from anyrec.model.two_tower import TwoTowerModel
from anyrec.model.two_tower_network import TwoTower
from anyrec.model.user_interactions import events_in, histories_of
from anyrec.training.fit_classical import fit_classical
from anyrec.training.loop import FitOptions, TrainingResult, train
from anyrec.training.samples import TrainingData, make_samples, pack_events


@dataclass(frozen=True)
class Fitted:
    """The result of a fit.

    Attributes:
        model: The fitted model.
        result: The history of the training; None for a classical model.
        notes: Notes on the features and the training for the user.
    """

    model: FittedModel
    result: TrainingResult | None
    notes: list[str]


@timed("model fitted")
def fit(
    config: Config,
    learning: LearningData,
    registry: Registry,
    context: Context,
    *,
    split: Split | None = None,
    epochs: int | None = None,
    options: FitOptions | None = None,
) -> Fitted:
    """Fit the model that the config names.

    Args:
        config: Complete and checked against the data.
        learning: The data, its labels and its split.
        registry: The components.
        context: Folder of files, permissions, seed and device.
        split: The split to train on, for a refit; by default that of `learning`.
        epochs: Number of epochs, without early stopping, for a refit; by default those of the config.
        options: Options of the training that do not change its result.

    Raises:
        ConfigError: For options that do not fit the data.
        DataError: If no positive interaction is left to train on.
    """
    split = learning.split if split is None else split
    if not len(learning.positives(split.train)):
        raise DataError(Fault("/interactions", "no positive interaction is left to train on.", kind="no positives"))
    if config.model.type != TWO_TOWER:
        return Fitted(fit_classical(config, learning, split, registry, context), None, [])
    with seeded(config.seed, context.device), training_memory():
        return _fit_towers(config, learning, split, registry, context, epochs, options or FitOptions())


def fit_like(model: FittedModel, config: Config) -> Fitted:
    """Fit a model with another config on the same data and split as a fitted model.

    Args:
        model: The fitted model.
        config: Complete config of the new model.

    Raises:
        ModelError: If `model` was loaded without its data.
    """
    learning = model.required_learning()
    context = replace(model.context, warnings=[])
    fitted = fit(config, learning, model.registry, context, split=learning.final_split(model.config))
    return replace(fitted, model=replace(fitted.model, before_refit=model.before_refit))


def _fit_towers(
    config: Config,
    learning: LearningData,
    split: Split,
    registry: Registry,
    context: Context,
    epochs: int | None,
    options: FitOptions,
) -> Fitted:
    """Fit a two-tower model; arguments as for `fit`."""
    notes: list[str] = []
    dataset = learning.dataset
    tables = data_fingerprint(dataset, split) if options.run_dir is not None else None
    labels = Labels(*map(dataset.keep, training_weights(learning.labels, dataset, split.train, config.data, notes)))
    events, features = None, history_features(config)
    if features:
        events = events_in(learning, split.train, config)
        dataset = with_history(dataset, history_column(dataset, events), features)
    scorer, columns = assemble(config, registry, dataset, split.train, learning.positives(split.train), context, notes)
    order = None if events is None else events.interactions
    samples = make_samples(dataset, split.train, labels, scorer.heads, order).to(scorer.device)
    model = _untrained(config, learning, registry, context, scorer, columns, events)
    packer = None
    if events is not None:
        encoders = scorer.user.histories.values()
        if dataset.column("timestamp") is None and not all(one.unordered for one in encoders):
            notes.append("No interaction has a timestamp: histories follow the order of the file.")
        ordered = dataset.column("timestamp") is None or all(one.ordered for one in encoders)
        packer = pack_events(scorer, columns["user"], events, labels, config, ordered, dataset.scratch)
    if options.started is not None:
        options.started(model)
    sizes = len(dataset.users), len(dataset.items)
    result = train(
        scorer,
        TrainingData(columns["user"], columns["item"], samples, *sizes, packer, dataset.scratch),
        config if epochs is None else _for_epochs(config, epochs),
        registry,
        options,
        validate=_validation(model, split),
        tables=tables,
    )
    if model.history is not None:
        columns = {**columns, "user": {**columns["user"], **model.prepare_history(model.history)}}
    model = replace(model.recomputed(), columns=columns)
    return Fitted(model, result, list(dict.fromkeys([*notes, *context.warnings])))


def _untrained(
    config: Config,
    learning: LearningData,
    registry: Registry,
    context: Context,
    scorer: TwoTower,
    columns: dict[Side, Columns],
    events: Events | None,
) -> TwoTowerModel:
    """Return the model with its untrained network, which validation during the training evaluates."""
    seen, seen_parts = learning.seen
    history, history_parts = (None, None) if events is None else histories_of(learning, config)
    return TwoTowerModel(
        config=config,
        registry=registry,
        dataset=learning.dataset,
        context=context,
        scorer=scorer,
        columns=columns,
        seen=seen,
        seen_parts=seen_parts,
        history=history,
        history_parts=history_parts,
        learning=learning,
    )


def _validation(model: TwoTowerModel, split: Split) -> Callable[[], dict[str, float]] | None:
    """Return a function that measures the validation part with the present weights; None if it has no target."""
    if not len(split.validation):
        return None
    held = held_out(model, "validation")
    if not held.listable.any():
        return None
    state = model.before("validation")

    def validate() -> dict[str, float]:
        model.scorer.eval()
        return ranking_metrics(rank_state(state.recomputed(), held), model.config.evaluation.k)

    return validate


def _for_epochs(config: Config, epochs: int) -> Config:
    """Return the config with a number of epochs and without early stopping."""
    training = config.training.model_copy(update={"epochs": epochs, "patience": None})
    return config.model_copy(update={"training": training})
