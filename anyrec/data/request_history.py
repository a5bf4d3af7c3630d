"""What the users of a request did, and its union with what a model knows of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.core.config import DataConfig
from anyrec.data.histories import events_column, listed_items
from anyrec.data.ids import NO_TIME, rows_of
from anyrec.data.labels import label_interactions
from anyrec.data.list_columns import flat
from anyrec.data.tables import Tables


class RequestHistory(NamedTuple):
    """What a request says that its users did, by user and then in order.

    Attributes:
        owners: (events,) Rows of the request, ascending.
        items: (events,) Rows of the items' table.
        times: (events,) Microseconds since 1970; NO_TIME if unknown.
        kinds: (events,) string, the types of the interactions.
        positive: (events,) bool, as training labels them.
        negative: (events,) bool, as training labels them.
        rows: (events,) int64, rows of the request's interactions; -1 for an event from a list in the user's record.
        replaces: (rows,) bool, users whose own list replaces what the model knows of them.
    """

    owners: np.ndarray
    items: np.ndarray
    times: np.ndarray
    kinds: pa.Array
    positive: np.ndarray
    negative: np.ndarray
    rows: np.ndarray
    replaces: np.ndarray

    @property
    def listed(self) -> np.ndarray:
        """(events,) bool, whether the event is from a list in the user's record."""
        return self.rows < 0

    def take(self, chosen: np.ndarray) -> RequestHistory:
        """Return the events at the positions `chosen: (chosen,)`."""
        parts = (self.owners[chosen], self.items[chosen], self.times[chosen], self.kinds.take(pa.array(chosen)))
        return RequestHistory(*parts, self.positive[chosen], self.negative[chosen], self.rows[chosen], self.replaces)

    def with_kinds(self, kinds: pa.Array) -> RequestHistory:
        """Return the history with other types of the interactions: (events,) string."""
        return self._replace(kinds=kinds)

    def slice(self, start: int, length: int) -> RequestHistory:
        """Return the history of `length` rows of the request from row `start` on, which becomes row 0."""
        low, high = np.searchsorted(self.owners, [start, start + length])
        part = self.take(np.arange(low, high))
        return RequestHistory(part.owners - start, *part[1:-1], self.replaces[start : start + length])


def request_history(
    data: Tables, ids: pa.Array, item_ids: pa.Array, lists: pa.Array | None, config: DataConfig
) -> tuple[RequestHistory, np.ndarray]:
    """Return what the users of a request did, by its interactions and by the list of item ids in each record.

    A list comes before the interactions. Interactions are in order of time; those without a time come first.

    Args:
        data: The request.
        ids: (rows,) The request's users.
        item_ids: The items of the model.
        lists: (rows,) Each user's own list, oldest first; None if no record has one.
        config: The config's `data` section.

    Returns:
        The history, and (unknown,) the rows of `data.interactions` whose item the model does not know, -1 for an entry
        of a list.
    """
    history, unknown = _of_interactions(data, ids, item_ids, config)
    if lists is None:
        return history, unknown
    listed, unknown_entries = _of_lists(lists, item_ids)
    joined = RequestHistory(
        np.concatenate([listed.owners, history.owners]),
        np.concatenate([listed.items, history.items]),
        np.concatenate([listed.times, history.times]),
        pa.concat_arrays([listed.kinds, history.kinds]),
        np.concatenate([listed.positive, history.positive]),
        np.concatenate([listed.negative, history.negative]),
        np.concatenate([listed.rows, history.rows]),
        listed.replaces,
    )
    by_owner = np.argsort(joined.owners, kind="stable")  # stable: entries of a list stay before interactions
    return joined.take(by_owner), np.concatenate([np.full(unknown_entries, -1), unknown])


def _of_interactions(
    data: Tables, ids: pa.Array, item_ids: pa.Array, config: DataConfig
) -> tuple[RequestHistory, np.ndarray]:
    """Return the interactions of known items, and (unknown,) the rows of the others."""
    labels = label_interactions(data, config)
    owners = rows_of(data.interactions.column("user_id"), ids)
    items = rows_of(data.interactions.column("item_id"), item_ids)
    order = np.lexsort((data.times, owners))
    order = order[((owners >= 0) & (items >= 0))[order]]
    kinds = data.column("interaction_type")
    history = RequestHistory(
        owners[order],
        items[order],
        data.times[order],
        pa.nulls(len(order), pa.string()) if kinds is None else kinds.cast(pa.string()).take(pa.array(order)),
        labels.positive[order],
        labels.negative[order],
        order,
        np.zeros(len(ids), bool),
    )
    return history, np.flatnonzero((owners >= 0) & (items < 0))


def _of_lists(lists: pa.Array, item_ids: pa.Array) -> tuple[RequestHistory, int]:
    """Return the entries of known items in the users' own lists, all positive; and how many others there are."""
    rows, items = listed_items(lists, item_ids)
    known = items >= 0
    count = int(known.sum())
    history = RequestHistory(
        rows[known],
        items[known],
        np.full(count, NO_TIME),
        pa.nulls(count, pa.string()),
        np.ones(count, bool),
        np.zeros(count, bool),
        np.full(count, -1),
        lists.is_valid().to_numpy(zero_copy_only=False),
    )
    return history, len(items) - count


def extend_histories(known: pa.Array, request: RequestHistory) -> pa.Array:
    """Add the events of a request to what the model knows of each user, in order of time.

    An event without a time comes after the known events. An event that is known already, of the same item and time,
    counts once; without a time it is known if the user had the item. Dislikes are left out, as in training.

    Args:
        known: (rows,) list<EVENT>.
        request: The events of the request.

    Returns:
        (rows,) list<EVENT>.
    """
    return extended(known, request)[0]


def extended(known: pa.Array, request: RequestHistory) -> tuple[pa.Array, np.ndarray]:
    """Return `extend_histories`, and (events,) int64, the place of each of its events in `request`, or -1."""
    events, owners = flat(known)
    kept = ~request.replaces[owners]
    events, owners = events.filter(pa.array(kept)), owners[kept]
    items = pc.struct_field(events, "item").to_numpy(zero_copy_only=False).astype(np.int64)
    times = pc.fill_null(pc.struct_field(events, "time"), NO_TIME).to_numpy(zero_copy_only=False).astype(np.int64)
    kinds = pc.struct_field(events, "kind").cast(pa.string())
    chosen = np.flatnonzero(~request.negative & ~_is_known(request, owners, items, times))
    new = request.take(chosen)
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
    places = np.concatenate([np.full(len(owners), -1), chosen])[order]
    return events_column(cells, np.bincount(everyone, minlength=len(known))), places


def _is_known(request: RequestHistory, owners: np.ndarray, items: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return which events of a request are known: the same item and time, or the same item without a time.

    Args:
        request: The events of the request.
        owners: (known,) Rows of the request.
        items: (known,) Rows of the items' table.
        times: (known,) Microseconds since 1970.

    Returns:
        (events,) bool.
    """
    if not len(owners):
        return np.zeros(len(request.owners), bool)
    width = max(int(items.max()), int(request.items.max(initial=0))) + 1
    keys, ours = owners * width + items, request.owners * width + request.items
    timeless = np.isin(ours, keys) & (request.times == NO_TIME)
    pairs = np.unique(np.stack([keys, times]), axis=1)
    both = np.concatenate([pairs, np.stack([ours, request.times])], 1)
    _, place = np.unique(both, axis=1, return_inverse=True)
    return timeless | np.isin(place.ravel()[pairs.shape[1] :], place.ravel()[: pairs.shape[1]])
