"""What each user did before, as a column of the users' table: the feature that sequence encoders read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.core.config import Config
from anyrec.core.scratch import Scratch, kept
from anyrec.data.ids import NO_TIME, rows_of
from anyrec.data.list_columns import as_lists, blocks_of_lists, flat, lengths_of
from anyrec.data.order import time_order
from anyrec.data.tables import Tables

T = TypeVar("T", bound=Tables)
BLOCK = 1 << 20
"""About this many events are read at once where histories are cut."""

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

    Without the group there are none; with it there are `events` and those that `fields` names, except those set to
    null.
    """
    choice = config.tower("user")[0].get(GROUP)
    if choice is None:
        return []
    names = dict.fromkeys([DEFAULT, *choice.fields])
    return [f"{GROUP}.{name}" for name in names if choice.fields.get(name, choice) is not None]


def events_of(dataset: Tables, rows: np.ndarray, negative: np.ndarray, listed_in: str | None) -> Events:
    """Return interactions as events, in order of time; ties keep file order. Dislikes are left out.

    Args:
        dataset: The data.
        rows: (rows,) The interactions.
        negative: (interactions,) bool, as `label_interactions` returns it.
        listed_in: The users' temporal feature (`data.history`) that lists what they had before all interactions.
    """
    wanted = np.zeros(len(dataset.interactions), bool)
    wanted[rows] = True
    order = time_order(dataset)
    order = order[(wanted & ~negative)[order]]
    order = dataset.keep(order)
    events = Events(dataset.keep(dataset.user_rows[order]), dataset.keep(dataset.item_rows[order]), order)
    name = f"temporal.{listed_in}"
    if listed_in is None or name not in dataset.users.column_names:
        return events
    users, items = listed_items(dataset.users.column(name).combine_chunks(), dataset.ids("item"))
    known = items >= 0
    listed = Events(users[known], items[known], np.full(known.sum(), -1))
    joined = Events(*(np.concatenate(pair) for pair in zip(listed, events, strict=True)))
    return joined.take(np.argsort(joined.users, kind="stable"))


def history_column(dataset: Tables, events: Events) -> pa.Array:
    """Return (users,) list<EVENT>, oldest first; null for a user without events."""
    rows = events.interactions
    times = np.full(len(rows), NO_TIME)
    if len(dataset.interactions):
        times = dataset.times[rows]
        times[rows < 0] = NO_TIME
    times, unknown = dataset.keep(times), times == NO_TIME
    kinds = dataset.column("interaction_type")
    cells = [
        pa.array(events.items),
        pa.array(times, mask=unknown if unknown.any() else None),
        pa.nulls(len(rows), pa.string())
        if kinds is None
        else kinds.take(pa.array(rows, mask=rows < 0)).cast(pa.string()),
    ]
    return dataset.keep(events_column(cells, np.bincount(events.users, minlength=len(dataset.users))))


def with_history(dataset: T, column: pa.Array, names: Iterable[str]) -> T:
    """Return the dataset with the histories among its users' features, once for each of `names`."""
    return dataset.with_features(users=add_history(dataset.users, column, names))


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


def history_before(
    column: pa.Array,
    parts: np.ndarray,
    levels: np.ndarray,
    ordered: bool,
    sets: bool = False,
    scratch: Scratch | None = None,
) -> pa.Array:
    """Return the histories as they were before each user's first event of a part.

    Only events of earlier parts are kept, and of those only events before the first event of the part in question.

    Args:
        column: (users,) list<EVENT>, complete.
        parts: (events,) The part of each event, as `parts_of_events` returns them.
        levels: (users,) The position in PARTS of the part before which each user is seen, or NOW for the whole history.
        ordered: Whether an event at the same time counts as before if it stands before in the file.
        sets: Whether the order in the file means nothing. Without any time, all events of earlier parts are then kept.
        scratch: Where arrays of all events are kept; None if they fit into memory.

    Returns:
        (users,) list<EVENT>.
    """
    events = column.flatten()
    times = pc.struct_field(events, "time")
    by_time = "nothing" if sets else "position"
    if times.null_count < len(times):
        by_time = "position" if ordered else "time"
    before, counts, end = np.empty(len(events), bool), np.zeros(len(column), np.int64), 0
    for block in blocks_of_lists(column, BLOCK):
        part = column[block.start : block.stop]
        start, end = end, end + int(lengths_of(part).sum())
        before[start:end], counts[block] = _before(part, parts[start:end], levels[block], by_time)
    chosen = pa.array(before)
    cells = [kept(pc.struct_field(events, field.name).filter(chosen), scratch) for field in EVENT]
    return kept(events_column(cells, counts), scratch)


def _before(
    column: pa.Array, parts: np.ndarray, levels: np.ndarray, by: Literal["nothing", "position", "time"]
) -> tuple[np.ndarray, np.ndarray]:
    """Return which events of some users came before their parts; arguments as for `history_before`.

    by: How events are compared with the first event of the part: not, by their positions, or by their times.

    Returns:
        (events,) bool, and (users,) the number of these events.
    """
    events, owners = flat(column)
    level = levels[owners]
    before = parts < level
    if by != "nothing":
        when = np.arange(len(owners))
        if by == "time":
            when = pc.fill_null(pc.struct_field(events, "time"), NO_TIME).to_numpy(zero_copy_only=False)
        first = np.full(len(column), np.iinfo(np.int64).max)
        np.minimum.at(first, owners[parts == level], when[parts == level])
        before &= (parts < 0) | (when < first[owners])
    return before, np.bincount(owners[before], minlength=len(column))


def listed_items(lists: pa.Array, item_ids: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Return the items that lists of ids name.

    Args:
        lists: (rows,) list<id>.
        item_ids: (items,) The known items.

    Returns:
        (values,) the row of each value's list, and (values,) its item's row; -1 for an unknown id.
    """
    return pc.list_parent_indices(lists).to_numpy(zero_copy_only=False), rows_of(lists.flatten(), item_ids)


def events_column(cells: list[pa.Array], counts: np.ndarray) -> pa.Array:
    """Return events as lists.

    Args:
        cells: (events,) each: the fields of EVENT, user by user.
        counts: (users,) The number of events of each user.

    Returns:
        (users,) list<EVENT>; null for a user without events.
    """
    return _lists(pa.StructArray.from_arrays(cells, fields=list(EVENT)), counts)


def _lists(events: pa.Array, counts: np.ndarray) -> pa.Array:
    """Return consecutive runs of `counts: (users,)` events as lists; null for a user without events."""
    return as_lists(events, counts, pa.array(counts == 0))
