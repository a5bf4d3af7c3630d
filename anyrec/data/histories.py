"""What each user did before, as a column of the users' table: the feature that sequence encoders read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.core.config import Config, DataConfig
from anyrec.data.ids import NO_TIME, rows_of
from anyrec.data.labels import label_interactions
from anyrec.data.list_columns import as_lists, flat
from anyrec.data.order import time_order
from anyrec.data.tables import Tables

T = TypeVar("T", bound=Tables)

GROUP = "history"
DEFAULT = "events"
"""The feature that the group always has; a config may name more under `fields`."""
EVENT = pa.struct([("item", pa.int64()), ("time", pa.int64()), ("kind", pa.string())])
"""One event. item: row in the items' table; time: microseconds since 1970 or null; kind: the interaction's type."""
COLUMN = pa.list_(EVENT)


HISTORY_NAMES = (
    "prev_interactions",
    "previous_interactions",
    "past_interactions",
    "interactions",
    "history",
    "bought",
    "purchased",
    "purchases",
    "viewed",
    "views",
    "watched",
    "clicked",
    "played",
    "listened",
)
"""Features with these names are histories if they hold item ids and `data.history` names no other feature."""


class Brought(NamedTuple):
    """What a request says that its users did, by user and then in order.

    Attributes:
        owners: (events,) Rows of the request, ascending.
        items: (events,) Rows of the items' table.
        times: (events,) Microseconds since 1970; NO_TIME if unknown.
        kinds: (events,) string, the types of the interactions.
        positive: (events,) bool, as training labels them.
        negative: (events,) bool, as training labels them.
        listed: (events,) bool, whether the event is from a list in the user's record.
        instead: (rows,) bool, users whose own list replaces what the model knows of them.
    """

    owners: np.ndarray
    items: np.ndarray
    times: np.ndarray
    kinds: pa.Array
    positive: np.ndarray
    negative: np.ndarray
    listed: np.ndarray
    instead: np.ndarray

    def take(self, chosen: np.ndarray) -> Brought:
        """Return the events at the positions `chosen: (chosen,)`."""
        parts = (self.owners[chosen], self.items[chosen], self.times[chosen], self.kinds.take(pa.array(chosen)))
        return Brought(*parts, self.positive[chosen], self.negative[chosen], self.listed[chosen], self.instead)


class Events(NamedTuple):
    """What users did, by user and then by time.

    Attributes:
        users: (events,) Rows of the users' table.
        items: (events,) Rows of the items' table.
        interactions: (events,) Rows of the interactions; -1 for an event from a list in a user's record.
    """

    users: np.ndarray
    items: np.ndarray
    interactions: np.ndarray

    def take(self, chosen: np.ndarray) -> Events:
        """Return the events at the positions `chosen: (chosen,)`."""
        return Events(self.users[chosen], self.items[chosen], self.interactions[chosen])


def history_features(config: Config) -> list[str]:
    """Return the history features that a config asks for (`history.events`).

    Without the group there are none; with it there are `events` and those that `fields` names, except those set to null.
    """
    choice = config.tower("user")[0].get(GROUP)
    if choice is None:
        return []
    names = dict.fromkeys([DEFAULT, *choice.fields])
    return [f"{GROUP}.{name}" for name in names if choice.fields.get(name, choice) is not None]


def events_of(dataset: Tables, rows: np.ndarray, negative: np.ndarray, brought: str | None) -> Events:
    """Return interactions as events, in order of time; ties keep file order. Dislikes are left out.

    Args:
        dataset: The data.
        rows: (rows,) The interactions.
        negative: (interactions,) bool, as `label_interactions` returns it.
        brought: The users' temporal feature (`data.history`) that lists what they had before all interactions.
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
    listed = Events(users[known], items[known], np.full(known.sum(), -1))
    joined = Events(*(np.concatenate(pair) for pair in zip(listed, events, strict=True)))
    return joined.take(np.argsort(joined.users, kind="stable"))


def history_column(dataset: Tables, events: Events) -> pa.Array:
    """Return (users,) list<EVENT>, oldest first; null for a user without events."""
    rows = events.interactions
    times = np.full(len(rows), NO_TIME)
    if len(dataset.interactions):
        times = np.where(rows >= 0, dataset.times[rows], NO_TIME)
    kinds = dataset.column("interaction_type")
    cells = [
        pa.array(events.items),
        pa.array(times, mask=times == NO_TIME),
        pa.nulls(len(rows), pa.string())
        if kinds is None
        else kinds.take(pa.array(rows, mask=rows < 0)).cast(pa.string()),
    ]
    return _column(cells, np.bincount(events.users, minlength=len(dataset.users)))


def events_brought(
    data: Tables, ids: pa.Array, item_ids: pa.Array, lists: pa.Array | None, config: DataConfig
) -> tuple[Brought, np.ndarray]:
    """Return what the users of a request did, by its interactions and by the list of item ids in each record.

    A list comes before the interactions. Interactions are in order of time; those without a time come first.

    Args:
        data: The request.
        ids: (rows,) The request's users.
        item_ids: The items of the model.
        lists: (rows,) Each user's own list, oldest first; None if no record has one.
        config: The config's `data` section.

    Returns:
        The events, and (unknown,) the rows of `data.interactions` whose item the model does not know, -1 for an entry of
        a list.
    """
    labels = label_interactions(data, config)
    owners, items = (
        rows_of(data.interactions.column("user_id"), ids),
        rows_of(data.interactions.column("item_id"), item_ids),
    )
    known = (owners >= 0) & (items >= 0)
    unknown = np.flatnonzero((owners >= 0) & (items < 0))
    order = np.lexsort((data.times, owners))
    order = order[known[order]]
    kinds = data.column("interaction_type")
    kinds = pa.nulls(len(order), pa.string()) if kinds is None else kinds.cast(pa.string()).take(pa.array(order))
    here = (labels.positive[order], labels.negative[order], np.zeros(len(order), bool))
    parts = owners[order], items[order], data.times[order], kinds, *here
    instead = np.zeros(len(ids), bool)
    if lists is None:
        return Brought(*parts, instead), unknown
    instead = lists.is_valid().to_numpy(zero_copy_only=False)
    rows, listed = _listed(lists, item_ids)
    held = listed >= 0
    unknown = np.concatenate([np.full(int((~held).sum()), -1), unknown])
    rows, listed = rows[held], listed[held]
    count = len(rows)
    yes, no = np.ones(count, bool), np.zeros(count, bool)
    own = rows, listed, np.full(count, NO_TIME), pa.nulls(count, pa.string()), yes, no, yes
    joined: list[Any] = [
        pa.concat_arrays([first, second]) if isinstance(first, pa.Array) else np.concatenate([first, second])
        for first, second in zip(own, parts, strict=True)
    ]
    found = Brought(*joined, instead)  # type: ignore[call-arg]
    return found.take(np.argsort(found.owners, kind="stable")), unknown


def extended(known: pa.Array, brought: Brought) -> pa.Array:
    """Add the events of a request to what the model knows of each user, in order of time.

    An event without a time comes after the known events. An event that is known already, of the same item and time, counts
    once; without a time it is known if the user had the item. Dislikes are left out, as in training.

    Args:
        known: (rows,) list<EVENT>.
        brought: The events of the request.

    Returns:
        (rows,) list<EVENT>.
    """
    events, owners = flat(known)
    kept = ~brought.instead[owners]
    events, owners = events.filter(pa.array(kept)), owners[kept]
    items = pc.struct_field(events, "item").to_numpy(zero_copy_only=False).astype(np.int64)
    times = pc.fill_null(pc.struct_field(events, "time"), NO_TIME).to_numpy(zero_copy_only=False).astype(np.int64)
    kinds = pc.struct_field(events, "kind").cast(pa.string())
    new = brought.take(np.flatnonzero(~brought.negative & ~_among(brought, owners, items, times)))
    last = np.full(len(known), NO_TIME)
    np.maximum.at(last, owners, times)
    when = np.concatenate([times, np.where(new.times == NO_TIME, last[new.owners], new.times)])
    everyone = np.concatenate([owners, new.owners])
    order = np.lexsort((when, everyone))
    moments = np.concatenate([times, new.times])[order]
    cells = [
        pa.array(np.concatenate([items, new.items])[order]),
        pa.array(moments, mask=moments == NO_TIME),
        pa.concat_arrays([kinds, new.kinds]).take(pa.array(order)),
    ]
    return _column(cells, np.bincount(everyone, minlength=len(known)))


def _among(brought: Brought, owners: np.ndarray, items: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return (events,) bool, which events of a request are known: of the same item and time, or of the same item without a time.

    Args:
        brought: The events of the request.
        owners: (known,) Rows of the request.
        items: (known,) Rows of the items' table.
        times: (known,) Microseconds since 1970.
    """
    if not len(owners):
        return np.zeros(len(brought.owners), bool)
    width = max(int(items.max()), int(brought.items.max(initial=0))) + 1
    keys, ours = owners * width + items, brought.owners * width + brought.items
    timeless = np.isin(ours, keys) & (brought.times == NO_TIME)
    pairs = np.unique(np.stack([keys, times]), axis=1)
    both = np.concatenate([pairs, np.stack([ours, brought.times])], 1)
    _, place = np.unique(both, axis=1, return_inverse=True)
    return timeless | np.isin(place.ravel()[pairs.shape[1] :], place.ravel()[: pairs.shape[1]])


def with_history(dataset: T, column: pa.Array, names: Iterable[str]) -> T:
    """Return the dataset with the histories among its users' features, once for each of `names`."""
    return replace(dataset, users=add_history(dataset.users, column, names))


def add_history(users: pa.Table, column: pa.Array, names: Iterable[str]) -> pa.Table:
    """Return the users with the histories as features, once for each of `names`."""
    for name in names:
        users = users.append_column(name, column)
    return users


def parts_of_events(events: Events, parts: np.ndarray) -> np.ndarray:
    """Return the part of the split that each event happened in.

    Args:
        events: The events.
        parts: (interactions,) As `part_of_each` returns them.

    Returns:
        (events,) int8; -1 for events from lists in records, which came before all parts.
    """
    return np.where(events.interactions >= 0, parts[events.interactions], -1).astype(np.int8)


def history_before(column: pa.Array, parts: np.ndarray, levels: np.ndarray, ordered: bool) -> pa.Array:
    """Return the histories as they were before each user's first event of a part.

    Only events of earlier parts are kept, and of those only what happened before the first event of the part in question.

    Args:
        column: (users,) list<EVENT>, complete.
        parts: (events,) The part of each event, as `parts_of_events` returns them.
        levels: (users,) The position in PARTS of the part before which each user is seen, or NOW for the whole history.
        ordered: Whether an event at the same time counts as before if it stands before in the file.

    Returns:
        (users,) list<EVENT>.
    """
    events, owners = flat(column)
    level = levels[owners]
    times = pc.fill_null(pc.struct_field(events, "time"), NO_TIME).to_numpy(zero_copy_only=False)
    when = np.arange(len(owners)) if ordered or not (times != NO_TIME).any() else times
    first = np.full(len(column), np.iinfo(np.int64).max)
    np.minimum.at(first, owners[parts == level], when[parts == level])
    kept = (parts < level) & ((parts < 0) | (when < first[owners]))
    counts = np.bincount(owners[kept], minlength=len(column))
    return _lists(events.filter(pa.array(kept)), counts)


def _listed(lists: pa.Array, item_ids: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Return (values,) the row of each value's list, and the row of its item, -1 for an unknown id."""
    return pc.list_parent_indices(lists).to_numpy(zero_copy_only=False), rows_of(lists.flatten(), item_ids)


def _column(cells: list[pa.Array], counts: np.ndarray) -> pa.Array:
    """Return events as lists. counts: (users,) the number of events of each user, in order."""
    return _lists(pa.StructArray.from_arrays(cells, fields=list(EVENT)), counts)


def _lists(events: pa.Array, counts: np.ndarray) -> pa.Array:
    """Return consecutive runs of `counts: (users,)` events as lists; null for a user without events."""
    return as_lists(events, counts, pa.array(counts == 0))
