"""Requests: whom lists are made for, a block of users at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.data.lists import flat
from anyrec.data.split import position_from_end
from anyrec.evaluation.held_out import HeldOut
from anyrec.pipeline.stages import Request
from anyrec.scoring import represent_rows, token_rows

if TYPE_CHECKING:
    from anyrec.recommender import Recommender

CELLS = 1 << 24
"""Numbers of (users, items) held at once: what a block of users is made by."""
MOST_USERS = 1024


def block_size(recommender: Recommender) -> int:
    """Users of one block."""
    return int(np.clip(CELLS // max(1, len(recommender.dataset.items)), 1, MOST_USERS))


def make_requests(
    recommender: Recommender,
    users: Any,
    *,
    exclude_seen: bool = True,
    context: dict[str, Any] | None = None,
    now: int | None = None,
    tokens: bool = False,
) -> Iterator[Request]:
    """users: as `Recommender.recommend` takes them. now: microseconds since 1970, by default this moment.

    tokens: whether a ranker reads the users' feature vectors. The same seed and moment draw the same.
    """
    now = time.time_ns() // 1000 if now is None else now
    with recommender._inference():
        ids, represented, rows = recommender._represent("user", users)
        vectors = recommender._tokens("user", users) if tokens else None
    _, given, _ = recommender._look_up("user", users)
    size = block_size(recommender)
    for start in range(0, len(ids), size):
        here = rows[start : start + size]
        records = None if given is None else given.slice(start, size).combine_chunks()
        history = _history(recommender, records, here)
        seen = _seen(recommender, records, here, history)
        yield Request(
            recommender,
            ids.slice(start, size),
            _completed(recommender.dataset.users, records, here),
            here,
            represented[start : start + size],
            seen,
            dict(context or {}),
            now,
            np.random.default_rng([recommender.config.seed, now, start]),
            history,
            exclude=seen if exclude_seen else None,
            tokens=None if vectors is None else vectors[start : start + size],
        )


def requests_before(
    recommender: Recommender,
    part: Literal["validation", "test"],
    held: HeldOut,
    *,
    tokens: bool = False,
) -> Iterator[tuple[np.ndarray, Request]]:
    """The users with something held out, as they were before it: (users,) their rows, and the request.

    held: that part; each user's own targets stay rankable whatever they had before.
    """
    rows = np.flatnonzero(held.targets.counts())
    model, columns = recommender.model, recommender.users_before(part)
    everything = recommender.history_before(part)
    size = block_size(recommender)
    for start in range(0, len(rows), size):
        here = rows[start : start + size]
        with recommender._inference():
            vectors = recommender._item_vectors()
            represented = represent_rows(model, "user", columns, 0, here, vectors)
            made = None
            if tokens:
                read = model.interaction.reads == "tokens"
                made = represented if read else token_rows(model, "user", columns, 0, here, vectors)
        seen = (np.empty(0, np.int64), np.empty(0, np.int64)) if held.known is None else held.known.take(here)
        yield (
            here,
            Request(
                recommender,
                recommender.dataset.ids("user").take(pa.array(here)),
                recommender.dataset.users.take(pa.array(here)),
                here,
                represented,
                seen,
                {},
                int(recommender.dataset.times.max(initial=0)),
                np.random.default_rng([recommender.config.seed, start]),
                everything.take(pa.array(here)),
                exclude=_without(seen, held.targets.take(here)),
                tokens=made,
            ),
        )


def events_of_request(request: Request) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the users of a request did: (events,) rows of the request, ascending, item rows, and how many came later, from 0."""
    if request.history is None:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64)
    events, owners = flat(request.history)
    items = pc.struct_field(events, "item").to_numpy(zero_copy_only=False).astype(np.int64)
    return owners.astype(np.int64), items, position_from_end(owners)


def liked_pairs(request: Request) -> tuple[np.ndarray, np.ndarray]:
    """The distinct pairs of request row and item that the users had and did not dislike; all that they had if the model
    keeps no histories."""
    if request.history is None:
        return request.seen
    rows, items, _ = events_of_request(request)
    width = len(request.items)
    keys = np.unique(rows * width + items)
    return keys // width, keys % width


def _history(recommender: Recommender, records: pa.Table | None, rows: np.ndarray) -> pa.Array | None:
    if recommender.history is None:
        return None
    if records is None:
        return recommender.history.take(pa.array(rows))
    return recommender._histories(records, rows)


def _seen(
    recommender: Recommender, records: pa.Table | None, rows: np.ndarray, history: pa.Array | None
) -> tuple[np.ndarray, np.ndarray]:
    """What the data say each user had, and what a record says that came with a history of its own."""
    seen = recommender._seen_by(rows)
    name = f"temporal.{recommender.config.data.history}"
    if records is None or history is None or name not in records.column_names:
        return seen
    events, owners = flat(history)
    items = pc.struct_field(events, "item").to_numpy(zero_copy_only=False)
    width = len(recommender.dataset.items)
    keys = np.unique(np.concatenate([seen[0] * width + seen[1], owners * width + items]))
    return keys // width, keys % width


def _completed(known: pa.Table, records: pa.Table | None, rows: np.ndarray) -> pa.Table:
    """The records, and where they say nothing, what is known of a known user."""
    place = pa.array(rows, mask=rows < 0)
    if records is None:
        return known.take(place)
    columns = {"user_id": records.column("user_id").combine_chunks()}
    for name in dict.fromkeys([*known.column_names, *records.column_names]):
        if name == "user_id":
            continue
        own = records.column(name).combine_chunks() if name in records.column_names else None
        if name not in known.column_names:
            columns[name] = own
            continue
        column = known.column(name).combine_chunks()
        columns[name] = column.take(place) if own is None else _coalesce(own, column, place)
    return pa.table(columns)


def _coalesce(own: pa.Array, known: pa.Array, place: pa.Array) -> pa.Array:
    """own: (rows,), and `known[place]` where it is null."""
    if own.type != known.type:
        try:
            own = own.cast(known.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return own
    after = pa.array(np.arange(len(known), len(known) + len(own)))
    return pa.concat_arrays([known, own]).take(pc.if_else(own.is_valid(), after, place))


def _without(
    pairs: tuple[np.ndarray, np.ndarray], others: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The pairs less `others`."""
    width = max(int(pairs[1].max(initial=0)), int(others[1].max(initial=0))) + 1
    kept = ~np.isin(pairs[0] * width + pairs[1], others[0] * width + others[1])
    return pairs[0][kept], pairs[1][kept]
