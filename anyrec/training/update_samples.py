"""The new interactions of an update as training data: the users of the request, with their full histories."""

from __future__ import annotations

from typing import cast

import numpy as np
import pyarrow as pa
import torch

from anyrec.core.contracts import Head
from anyrec.data.dataset import Dataset
from anyrec.data.histories import Events, add_history
from anyrec.data.labels import Labels, label_interactions, training_weights
from anyrec.data.list_columns import flat
from anyrec.data.pairs import Pairs
from anyrec.data.request_history import RequestHistory, extended
from anyrec.model.records import Records
from anyrec.model.two_tower import TwoTowerModel
from anyrec.model.two_tower_network import TwoTower
from anyrec.training.samples import Samples, TrainingData, pack_events


def learned_events(history: RequestHistory) -> np.ndarray:
    """Return (events,) bool, the events that steps can learn from: positives that are interactions of the request."""
    return history.positive & ~history.listed


def missing_target(scorer: TwoTower, request: Dataset) -> str:
    """Return which target of a head the interactions of a request lack, as a sentence; empty if they have all."""
    for name, head in scorer.heads.items():
        target = cast(Head, head).target
        if request.column(target) is None:
            return f"the new interactions have no '{target}', which the head '{name}' learns from"
    return ""


def update_data(
    towers: TwoTowerModel,
    known: pa.Array | None,
    seen: tuple[np.ndarray, np.ndarray],
    users: Records,
    learned: np.ndarray,
    request: Dataset,
) -> TrainingData:
    """Return the training data of an update.

    Args:
        towers: The towers, with the prepared features of all items.
        known: (users,) list<EVENT>, the histories before the request; None if no feature reads them.
        seen: Rows of `users` and items that each has seen, (pairs,) each.
        users: The users of the request with complete records.
        learned: (events,) bool, the events of the users' history to learn from.
        request: The request that `users` were read from.

    Raises:
        DataError: If nearly all weights are negligible.
    """
    history, table, packer = users.history, users.required_table(), None
    assert history is not None
    places, config = np.flatnonzero(learned), towers.config
    encoders = towers.scorer.user.histories
    labels = Labels(learned, history.negative, np.ones(len(learned)))
    events = None
    if encoders and known is not None:
        column, origins = extended(known, history)
        table = add_history(table, column, encoders)
        cells, owners = flat(column)
        items = cells.field("item").to_numpy(zero_copy_only=False).astype(np.int64)
        events = Events(owners, items, origins)
        places = origins[origins >= 0]
        places = places[learned[places]]
    else:
        places = places[np.lexsort((history.items[places], history.owners[places]))]
    columns = towers.prepare("user", table, users.context)
    if events is not None:
        ordered = request.column("timestamp") is None or all(one.ordered for one in encoders.values())
        packer = pack_events(towers.scorer, columns, events, labels, config, ordered)
    samples = _samples(towers, seen, history, places, request).to(towers.device)
    return TrainingData(columns, towers.columns["item"], samples, len(users.ids), len(towers.dataset.items), packer)


def _samples(
    towers: TwoTowerModel,
    seen: tuple[np.ndarray, np.ndarray],
    history: RequestHistory,
    places: np.ndarray,
    request: Dataset,
) -> Samples:
    """Return the samples of the events `places: (positives,)` of the history; other arguments as for `update_data`."""
    users, items, rows = history.owners[places], history.items[places], history.rows[places]
    count = len(history.replaces)
    disliked = history.negative & ~history.listed
    disliked &= ~Pairs.of(users, items, count).contains(history.owners, history.items)
    negative = history.owners[disliked], history.items[disliked]
    neutral = ~Pairs.of(*negative, count).contains(*seen)
    config = towers.config.data
    weights = training_weights(label_interactions(request, config), request, rows, config, []).weight[rows]
    targets = {}
    for name, head in towers.scorer.heads.items():
        column = request.column(cast(Head, head).target)
        assert column is not None
        targets[name] = cast(Head, head).targets(column.take(pa.array(rows)))
    return Samples(
        torch.from_numpy(users),
        torch.from_numpy(items),
        None if (weights == 1).all() else torch.from_numpy(weights.astype(np.float32)),
        (torch.from_numpy(negative[0]), torch.from_numpy(negative[1])),
        (torch.from_numpy(seen[0][neutral]), torch.from_numpy(seen[1][neutral])),
        targets,
    )
