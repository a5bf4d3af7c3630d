"""What each user did before, as a column of the users' table: the feature that sequence encoders read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.config import Config
from anyrec.data.dataset import NO_TIME, Dataset, rows_of
from anyrec.data.split import Split, time_order

GROUP = "history"
DEFAULT = "events"
"""The feature of the group that is there unasked; a config may name more under `fields`."""
EVENT = pa.struct([("item", pa.int64()), ("time", pa.int64()), ("kind", pa.string())])
"""One event. item: row in the items' table; time: microseconds since 1970, null where not known; kind: the interaction's type."""
COLUMN = pa.list_(EVENT)


class Events(NamedTuple):
    """What users did, by user and then time. users, items: (events,) rows; interactions: (events,) rows, -1 for what a record
    brought along."""

    users: np.ndarray
    items: np.ndarray
    interactions: np.ndarray

    def take(self, chosen: np.ndarray) -> Events:
        return Events(self.users[chosen], self.items[chosen], self.interactions[chosen])


def history_features(config: Config) -> list[str]:
    """The features made of what users did before that the config asks for (`history.events`): none without the group;
    with it `events`, and whatever `fields` names beside, less those that are null there."""
    choice = config.tower("user")[0].get(GROUP)
    if choice is None:
        return []
    names = dict.fromkeys([DEFAULT, *choice.fields])
    return [f"{GROUP}.{name}" for name in names if choice.fields.get(name, choice) is not None]


def events_of(dataset: Dataset, rows: np.ndarray, negative: np.ndarray, brought: str | None) -> Events:
    """The interactions `rows` in order; ties in time keep file order. What a user was seen to dislike is left out.

    negative: (interactions,) bool, as `label_interactions` gives it. brought: name of the users' temporal feature (`data.history`)
    that lists what they had before all these.
    """
    wanted = np.zeros(len(dataset.interactions), bool)
    wanted[rows] = True
    order = time_order(dataset)
    order = order[(wanted & ~negative)[order]]
    events = Events(dataset.user_rows[order], dataset.item_rows[order], order)
    name = f"temporal.{brought}"
    if brought is None or name not in dataset.users.column_names:
        return events
    users, items = _listed(dataset.users.column(name).combine_chunks(), dataset.ids("item"))
    known = items >= 0
    parts = (np.concatenate(pair) for pair in zip((users[known], items[known], np.full(known.sum(), -1)), events))  # noqa: B905
    joined = Events(*parts)
    return joined.take(np.argsort(joined.users, kind="stable"))


def history_column(dataset: Dataset, events: Events) -> pa.Array:
    """(users,) list<EVENT>, oldest first; null for a user with no event."""
    rows = events.interactions
    times = (
        np.where(rows >= 0, dataset.times[rows], NO_TIME) if len(dataset.interactions) else np.full(len(rows), NO_TIME)
    )
    kinds = dataset.column("interaction_type")
    cells = [
        pa.array(events.items),
        pa.array(times, mask=times == NO_TIME),
        pa.nulls(len(rows), pa.string())
        if kinds is None
        else kinds.take(pa.array(rows, mask=rows < 0)).cast(pa.string()),
    ]
    return _column(cells, np.bincount(events.users, minlength=len(dataset.users)))


def own_history(lists: pa.Array, item_ids: pa.Array) -> tuple[pa.Array, int]:
    """The lists of item ids that records bring along, oldest first, as a history column; and how many ids were passed over,
    because no such item is known."""
    owners, items = _listed(lists, item_ids)
    known = items >= 0
    count = int(known.sum())
    cells = [pa.array(items[known]), pa.nulls(count, pa.int64()), pa.nulls(count, pa.string())]
    return _column(cells, np.bincount(owners[known], minlength=len(lists))), int((~known).sum())


def with_history(dataset: Dataset, column: pa.Array, names: list[str]) -> Dataset:
    """The dataset with the histories among its users' features, once for each of `names`."""
    users = add_history(dataset.users, column, names)
    return Dataset(users, dataset.items, dataset.interactions, dataset.root, dataset.roles, dataset.notes)


def add_history(users: pa.Table, column: pa.Array, names: Iterable[str]) -> pa.Table:
    for name in names:
        users = users.append_column(name, column)
    return users


def known_before(dataset: Dataset, split: Split, part: str, events: Events, ordered: bool) -> Events:
    """Of `events`, those that came before their user's first interaction of `part`; all for users with none there.

    ordered: whether what happened at the same time counts as before where it stands before in the file.
    """
    when = dataset.times
    if ordered:
        when = np.empty(len(dataset.interactions), np.int64)
        when[time_order(dataset)] = np.arange(len(when))
    rows = split.rows(part)
    first = np.full(len(dataset.users), np.iinfo(np.int64).max)
    np.minimum.at(first, dataset.user_rows[rows], when[rows])
    return events.take((events.interactions < 0) | (when[events.interactions] < first[events.users]))


def _listed(lists: pa.Array, item_ids: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """(values,) row of the list, and of the item, -1 for an id that is not known."""
    return pc.list_parent_indices(lists).to_numpy(zero_copy_only=False), rows_of(lists.flatten(), item_ids)


def _column(cells: list[pa.Array], counts: np.ndarray) -> pa.Array:
    """counts: (users,) events of each, in order."""
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    return pa.ListArray.from_arrays(
        offsets, pa.StructArray.from_arrays(cells, fields=list(EVENT)), mask=pa.array(counts == 0)
    )
