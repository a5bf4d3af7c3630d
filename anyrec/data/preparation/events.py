"""The events of users, as the encoders of histories read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.core.columns import FlatLists, PreparedColumn
from anyrec.data.list_columns import flat, offsets_of

MICROSECONDS = 1e6
"""Microseconds in a second."""


def events_of_users(column: pa.Array, kinds: pa.Array) -> PreparedColumn:
    """Convert the events of each user to arrays.

    Args:
        column: (users,) lists of `anyrec.data.histories.EVENT`, oldest first.
        kinds: The known types of interactions.

    Returns:
        The lists `items`, `gaps`, `kinds` and `moments`, as `anyrec.core.windows.Events` describes them. A user without
        an event is absent.
    """
    events, owners = flat(column)
    offsets = offsets_of(owners, len(column))
    times = pc.struct_field(events, "time")
    places = pc.index_in(pc.struct_field(events, "kind"), value_set=kinds)
    values = {
        "items": items_of(events),
        "gaps": _gaps(times, offsets),
        "kinds": pc.fill_null(pc.add(places, 1), 0).to_numpy(zero_copy_only=False).astype(np.int64),
        "moments": moments_of(times, offsets),
    }
    return PreparedColumn({name: FlatLists(part, offsets) for name, part in values.items()}, np.diff(offsets) > 0)


def items_of_users(column: pa.Array) -> PreparedColumn:
    """Return the list `items` of `events_of_users`; a user without an event is absent."""
    events, owners = flat(column)
    items = FlatLists(items_of(events), offsets_of(owners, len(column)))
    return PreparedColumn({"items": items}, items.lengths > 0)


def last_events(events: PreparedColumn, most: int) -> PreparedColumn:
    """Return the last `most` events of each user of what `events_of_users` returned."""
    return PreparedColumn(
        {name: lists.last(most) for name, lists in cast(Mapping[str, FlatLists], events.values).items()}, events.present
    )


def items_of(events: pa.Array) -> np.ndarray:
    """Return (events,) int64, the row of each event's item in the table of items."""
    return pc.struct_field(events, "item").to_numpy(zero_copy_only=False).astype(np.int64)


def moments_of(times: pa.Array, offsets: np.ndarray) -> np.ndarray:
    """Return (events,) int64: the position, within the user's events, of the first event with the same time.

    Args:
        times: (events,) microseconds, user by user, oldest first; unknown times count as one time.
        offsets: (users + 1,) of the events of each user.
    """
    count = int(offsets[-1])
    moments = pc.fill_null(times, -1).to_numpy(zero_copy_only=False)
    begins = np.zeros(count, bool)
    if count:
        begins[1:] = moments[1:] != moments[:-1]
        begins[offsets[:-1][np.diff(offsets) > 0]] = True
    first = np.maximum.accumulate(np.where(begins, np.arange(count), 0)) if count else np.empty(0, np.int64)
    return (first - np.repeat(offsets[:-1], np.diff(offsets))).astype(np.int64)


def _gaps(times: pa.Array, offsets: np.ndarray) -> np.ndarray:
    """Return (events,) float32, log(1 + seconds) since the user's previous event; 0 if either has no time, or no event
    precedes it.
    """
    moments = pc.fill_null(times, 0).to_numpy(zero_copy_only=False)
    known = times.is_valid().to_numpy(zero_copy_only=False)
    gaps = np.zeros(len(moments))
    if len(moments):
        gaps[1:] = np.where(known[1:] & known[:-1], moments[1:] - moments[:-1], 0) / MICROSECONDS
        gaps[offsets[:-1][np.diff(offsets) > 0]] = 0
    return np.log1p(np.maximum(gaps, 0)).astype(np.float32)
