"""A few gradient steps on the new interactions of an update, kept only if they improve a held-out part of these."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import torch

from anyrec.core.config import Config
from anyrec.core.errors import AnyrecError
from anyrec.core.runtime import seeded, training_memory
from anyrec.data.dataset import Dataset
from anyrec.data.histories import add_history
from anyrec.data.ids import SIDES, Side
from anyrec.data.order import position_from_end
from anyrec.data.pairs import Pairs
from anyrec.data.request_history import extended
from anyrec.evaluation.held_out import HeldOut, apply_repeats, rank_state, rankable_items
from anyrec.evaluation.ranking import ranking_metrics
from anyrec.model.added_users import AddedUsers
from anyrec.model.blended import has_towers, towers_of, with_towers
from anyrec.model.fitted import INDEX, SEARCH, SIMILAR, FittedModel
from anyrec.model.join import Joined
from anyrec.model.records import Records
from anyrec.model.represent import represent_rows
from anyrec.model.towers import IDENTITY
from anyrec.model.two_tower import TwoTowerModel
from anyrec.model.two_tower_network import TwoTower
from anyrec.training.loop import FitOptions, train
from anyrec.training.samples import TrainingData
from anyrec.training.update_samples import learned_events, missing_target, update_data

TOLERANCE = 1e-3
"""Largest difference, as a fraction of the largest value, of a known vector that is computed again: float32 sums in
batches of another size differ by 1e-6."""


@dataclass(frozen=True)
class Steps:
    """The result of the steps of an update.

    Attributes:
        model: The model with the steps if they were kept, else as it joined.
        metric: Name of the metric that decided.
        before: Its value on the held-out interactions before the steps; None if no step was tried.
        after: Its best value after an epoch.
        epochs: Epochs of the kept steps; 0 if none were kept.
        reason: Why no steps were kept; empty if they were.
    """

    model: FittedModel
    metric: str
    before: float | None = None
    after: float | None = None
    epochs: int = 0
    reason: str = ""

    @property
    def kept(self) -> bool:
        """Whether the model has the steps."""
        return self.epochs > 0

    def __str__(self) -> str:
        """Return the metric before and after the steps, and whether they were kept, in words."""
        if self.before is None or self.after is None:
            return f"no steps: {self.reason}"
        change = f"{self.metric} of the held-out new interactions: {self.before:.4f} before, {self.after:.4f} after"
        if not self.kept:
            return f"{change}; steps dropped: {self.reason}"
        return f"{change} {self.epochs} epoch{'s' * (self.epochs > 1)}; steps kept"


@dataclass(frozen=True)
class _State:
    """A model that knows some interactions of a request, and the interactions that it is tuned on.

    Attributes:
        model: The model after joining.
        towers: Its towers with a scorer of their own, which has vectors for the new ids, and prepared features.
        data: The training data.
    """

    model: FittedModel
    towers: TwoTowerModel
    data: TrainingData

    def tuned(self) -> FittedModel:
        """Return the model with the present weights of the towers."""
        return with_towers(self.model, self.towers.recomputed())


def take_steps(joined: Joined, request: Dataset, *, progress: bool = True) -> Steps:
    """Train the towers on the new interactions of a request for a few epochs, if that improves their lists.

    The last `update.holdout_fraction` of each user's new interactions are held out, as evaluations hold them out. (The
    last ones of all users together are those of the users who came last, and did not predict how the others go on.)
    The model that has joined everything else is measured on their positives by `training.metric`, and then trained on
    the other new positives until an epoch does not improve it. If the best epoch is better than no step, the model that
    has joined everything is trained for as many epochs on all new positives; otherwise the steps are dropped.

    Ids with new positives get vectors of their own, which start as the learned vector of unknown ids.

    Args:
        joined: The model that knows the request (`anyrec.model.join`).
        request: The request.
        progress: Whether to show progress bars.
    """
    model, users = joined.model, joined.users
    metric = model.config.training.metric
    reason = _obstacle(model, users, request)
    if reason:
        return Steps(model, metric, reason=reason)
    late, fresh = _split(joined.with_items, users)
    early = joined.with_items.with_users(_without(users, late))
    held = _held_out(early, joined, late)
    wanted = model.config.update.min_held_out
    if held.listable.sum() < wanted:
        found = int(held.listable.sum())
        return Steps(model, metric, reason=f"{found} held-out positives, of {wanted} needed (update.min_held_out)")
    with seeded(model.config.seed, model.device), training_memory():
        return _try(joined, request, early, (late, fresh), held, progress)


def _try(
    joined: Joined,
    request: Dataset,
    early: FittedModel,
    parts: tuple[np.ndarray, np.ndarray],
    held: HeldOut,
    progress: bool,
) -> Steps:
    """Train with the early interactions, and if it helps with all.

    Args:
        joined: As for `take_steps`.
        request: As for `take_steps`.
        early: The model without the held-out interactions.
        parts: (events,) bool each: the held-out events of `joined.users.history`, and the new ones.
        held: The held-out targets.
        progress: Whether to show progress bars.
    """
    model, (late, fresh) = joined.model, parts
    metric, options = model.config.training.metric, FitOptions(progress=progress)
    measure = _measure(held, model.config)
    before = measure(early)[metric]
    try:
        state = _state(early, joined, _without(joined.users, late), fresh[~late], request)
        if isinstance(state, str):
            return Steps(model, metric, reason=state)

        def validate() -> dict[str, float]:
            state.towers.scorer.eval()
            return measure(state.tuned())

        config = _config(model.config, model.config.update.epochs)
        tried = train(state.towers.scorer, state.data, config, model.registry, options, validate=validate)
        after = tried.best_metric
        if after is None or not after > before:
            return Steps(model, metric, before, after, reason="they do not improve it")
        state = _state(model, joined, joined.users, fresh, request)
        if isinstance(state, str):
            return Steps(model, metric, before, after, reason=state)
        config = _config(model.config, tried.best_epoch)
        train(state.towers.scorer, state.data, config, model.registry, options)
    except AnyrecError as error:  # such as a loss that is not finite: the model that joined is not lost by it
        return Steps(model, metric, before, reason=str(error))
    return Steps(_final(state), metric, before, after, tried.best_epoch)


def _obstacle(model: FittedModel, users: Records, request: Dataset) -> str:
    """Return why no steps can be taken; empty if they can."""
    if model.config.update.epochs == 0:
        return "update.epochs is 0"
    if not has_towers(model):
        return f"'{model.config.model.type}' has no towers, whose weights they would change"
    if users.history is None or not learned_events(users.history).any():
        return "there are no new positive interactions"
    scorer = towers_of(model).scorer
    if any(encoder.graph_layers for side in SIDES for _, encoder in scorer.tower(side).named_encoders()):
        return "vectors of ids that are propagated over a graph (graph_layers) cannot be tuned without all interactions"
    return missing_target(scorer, request)


def _split(model: FittedModel, users: Records) -> tuple[np.ndarray, np.ndarray]:
    """Return which events of the users are held out, and which are new, (events,) bool each.

    An event is new if the model does not know it: by item and time, or if the model keeps no histories, by item. The
    number of a user's held-out events is rounded up with the probability of the fraction, so that of users with a
    single new event each some are held out.
    """
    history = users.history
    assert history is not None
    if model.history is not None:
        known = model.history.take(pa.array(users.rows, mask=users.rows < 0))
        places = extended(known, history)[1]
        fresh = history.negative.copy()
        fresh[places[places >= 0]] = True
    else:
        rows = users.rows[history.owners]
        fresh = (rows < 0) | ~model.seen.contains(rows, history.items)
    fresh &= ~history.listed
    order = np.lexsort((history.rows, history.times, history.owners))  # without times: in the order of the file
    order = order[fresh[order]]
    owners = history.owners[order]
    chance = np.random.default_rng(model.config.seed).random(len(users.ids))
    wanted = model.config.update.holdout_fraction * np.bincount(owners, minlength=len(users.ids))
    late = np.zeros(len(fresh), bool)
    late[order[position_from_end(owners) < np.floor(wanted + chance)[owners]]] = True
    return late, fresh


def _without(users: Records, events: np.ndarray) -> Records:
    """Return the users without some events of their history: (events,) bool."""
    assert users.history is not None
    return replace(users, history=users.history.take(np.flatnonzero(~events)))


def _held_out(early: FittedModel, joined: Joined, late: np.ndarray) -> HeldOut:
    """Return the targets: the positives among the events `late: (events,)` bool."""
    history = joined.users.history
    assert history is not None
    chosen = late & history.positive
    rows = AddedUsers.of(joined.with_items.dataset, joined.users).rows[history.owners[chosen]]
    targets = Pairs.of(rows, history.items[chosen], len(early.dataset.users))
    return apply_repeats(HeldOut(targets, early.seen, rankable_items(early)), early.config.evaluation.repeats)


def _measure(held: HeldOut, config: Config) -> Callable[[FittedModel], dict[str, float]]:
    """Return a function that measures a model on held-out targets, also by the cut-off of `training.metric`."""
    _, _, cut = config.training.metric.partition("@")
    lengths: list[int] = sorted({int(k) for k in (*config.evaluation.k, cut) if k})
    return lambda model: ranking_metrics(rank_state(model, held, max(lengths)), lengths)


def _config(config: Config, epochs: int) -> Config:
    """Return the config of the steps: few epochs at a low, constant rate, stopped by the first one that is no better.

    No item that a user has seen is a negative: which of the earlier interactions were positive is not known any more.
    """
    training, options = config.training, config.update
    rate = training.optimizer.learning_rate * options.learning_rate
    changes = {
        "epochs": epochs,
        "patience": 1,
        "evaluate_every": 1,
        "average_epochs": 0.0,
        "scheduler": type(training.scheduler)(),
        "optimizer": training.optimizer.model_copy(update={"learning_rate": rate}),
    }
    negatives = config.negatives.model_copy(update={"exclude": "interacted"})
    return config.model_copy(update={"training": training.model_copy(update=changes), "negatives": negatives})


def _state(model: FittedModel, joined: Joined, users: Records, fresh: np.ndarray, request: Dataset) -> _State | str:
    """Prepare a model for steps.

    Args:
        model: The model after joining `users`.
        joined: As for `take_steps`.
        users: The users with the interactions to join.
        fresh: (events,) bool, the events of `users.history` that are new.
        request: As for `take_steps`.

    Returns:
        The state, or why there is none.
    """
    added = AddedUsers.of(joined.with_items.dataset, users)
    users, former = added.records, towers_of(model)
    history = users.history
    assert history is not None
    learned = learned_events(history) & fresh
    if not learned.any():
        return "all new positive interactions are held out"
    scorer = _copied(former.scorer)
    owners = np.unique(history.owners[learned])
    _extend(scorer, "user", users.ids.take(pa.array(owners)))
    _extend(scorer, "item", model.dataset.ids("item").take(pa.array(np.unique(history.items[learned]))))
    towers = replace(former, scorer=scorer, columns={}, base=None)
    table = model.dataset.users
    if towers.reads_history:
        table = add_history(table, model.required_history(), scorer.user.histories)
    columns = {"user": towers.prepare("user", table, model.context)}
    columns["item"] = towers.prepare("item", model.dataset.items, model.context)
    towers = replace(towers, columns=columns)
    if not _read_again(former, towers.recomputed(), added.rows, joined):
        return (
            "the vectors of known records are others if they are computed again: their files cannot be read from here "
            "(--trust-plugins, --image-root), or records of items were changed after the training"
        )
    before = joined.with_items.history
    known = None if before is None else before.take(pa.array(users.rows, mask=users.rows < 0))
    return _State(model, towers, update_data(towers, known, model.seen_by(added.rows), users, learned, request))


def _copied(scorer: TwoTower) -> TwoTower:
    """Return a copy of a network. The contexts of its encoders, which hold all items, are shared."""
    encoders = [encoder for side in SIDES for _, encoder in scorer.tower(side).named_encoders()]
    return deepcopy(scorer, {id(encoder.context): encoder.context for encoder in encoders})


def _extend(scorer: TwoTower, side: Side, ids: pa.Array) -> None:
    """Give the ids that the encoder of ids does not know vectors of their own, which start as that of unknown ids."""
    tower = scorer.tower(side)
    for name, encoder in tower.named_encoders():
        if name == IDENTITY:
            new = ids.filter(pa.array(~encoder.encode_column(ids).present.cpu().numpy()))
            missing = tower.fusion.missing[tower.token_names.index(tower.token_of[tower.features.index(name)])]
            share = tower.shares.get("identity")
            start = missing if share is None else missing[share.start : share.start + share.width]
            if len(new):
                encoder.extend(new, start)


@torch.inference_mode()
def _read_again(former: TwoTowerModel, towers: TwoTowerModel, changed: np.ndarray, joined: Joined) -> bool:
    """Whether the vectors of the records that an update leaves as they are can be computed again from their features.

    Args:
        former: The towers as they joined, with the saved vectors.
        towers: The towers with prepared features and vectors for new ids.
        changed: (records,) rows of the users of the request.
        joined: As for `take_steps`. Users' vectors of earlier records of items are not compared.
    """
    known = len(joined.with_items.dataset.items) - joined.new_items
    users = np.setdiff1d(np.arange(len(former.dataset.users)), changed)
    pairs = [(former.representations("item")[:known], towers.representations("item")[:known])]
    if not (joined.changed_items and former.reads_history):
        rows = torch.from_numpy(users).to(former.device)
        vectors = represent_rows(towers.scorer, "user", towers.columns["user"], 0, users, towers.history_vectors())
        pairs.append((former.representations("user")[rows], vectors))
    return all(
        not len(old) or bool(((old - new).abs().amax() <= TOLERANCE * old.abs().amax().clamp(min=1e-6)).item())
        for old, new in pairs
    )


def _final(state: _State) -> FittedModel:
    """Return the tuned model. It is measured no more on the split of its training: it has learned from later data."""
    model, own = state.tuned(), state.model
    fingerprint = own.fingerprint or (None if own.learning is None else own.learning.dataset.fingerprint())
    computed = model.computed.without(INDEX, SIMILAR, SEARCH)
    return replace(
        model,
        base=None,
        learning=None,
        extended=True,
        fingerprint=fingerprint,
        computed=computed,
        directory=None,  # its files, such as vectors for searches, are of the former weights
        model_id="",
    )
