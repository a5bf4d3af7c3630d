"""Requests: whom lists are made for, a block of users at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from anyrec.data.split import Part
from anyrec.evaluation.held_out import HeldOut
from anyrec.model.fitted import FittedModel
from anyrec.model.records import completed
from anyrec.pipeline.contracts import Request
from anyrec.retrieval.model_index import item_index, share_index

CELLS = 1 << 24
"""Numbers of (users, items) held at once: what a block of users is made by."""
MOST_USERS = 1024


def block_size(model: FittedModel) -> int:
    """Users of one block."""
    return int(np.clip(CELLS // max(1, len(model.dataset.items)), 1, MOST_USERS))


def make_requests(
    model: FittedModel,
    users: Any,
    *,
    exclude_seen: bool = True,
    context: dict[str, Any] | None = None,
    now: int | None = None,
    tokens: bool = False,
) -> Iterator[Request]:
    """users: as `FittedModel.recommend` takes them. now: microseconds since 1970, by default this moment.

    tokens: whether a ranker reads the users' feature vectors. The same seed and moment draw the same.
    """
    now = time.time_ns() // 1000 if now is None else now
    records = model.read_records("user", users)
    represented = model.represent(records)
    vectors = model.tokens(records) if tokens else None
    size = block_size(model)
    for start in range(0, len(records.ids), size):
        part = records.slice(start, size)
        seen = model.seen_of(part)
        yield Request(
            model,
            part.ids,
            completed(model.dataset.users, part.table, part.rows),
            part.rows,
            represented[start : start + size],
            seen,
            dict(context or {}),
            now,
            np.random.default_rng([model.config.seed, now % 2**64, start]),
            None if model.history is None else model.history_of(part),
            warnings=[] if start else list(records.context.warnings),
            exclude=seen if exclude_seen else None,
            tokens=None if vectors is None else vectors[start : start + size],
        )


def requests_before(
    model: FittedModel, part: Part, held: HeldOut, *, tokens: bool = False
) -> Iterator[tuple[np.ndarray, Request]]:
    """The users with something held out, as they were before it: (users,) their rows, and the request that would have served them.

    Args:
        held: that part of the split.
        tokens: whether a ranker reads the users' feature vectors.
    """
    rows = np.flatnonzero(held.targets.counts())
    index = item_index(model)
    state = model.before(part)
    share_index(state, index)
    now, size = _moment_before(model, part), block_size(model)
    for start in range(0, len(rows), size):
        here = rows[start : start + size]
        represented = state.user_representations(here)
        made = state.user_tokens(here) if tokens else None
        seen = state.seen_by(here)
        yield (
            here,
            Request(
                state,
                state.dataset.ids("user").take(pa.array(here)),
                state.dataset.users.take(pa.array(here)),
                here,
                represented,
                seen,
                {},
                now,
                np.random.default_rng([model.config.seed, now, start]),
                None if state.history is None else state.history.take(pa.array(here)),
                exclude=seen if held.exclude_seen else None,
                tokens=made,
            ),
        )


def _moment_before(model: FittedModel, part: Part) -> int:
    """When the last interaction before a part happened, in microseconds since 1970; 0 where there are no times."""
    split = model.required_learning().split
    rows = split.train if part == "validation" else np.concatenate([split.train, split.validation])
    return max(0, int(model.dataset.times[rows].max(initial=0)))


def liked_pairs(request: Request) -> tuple[np.ndarray, np.ndarray]:
    """The distinct pairs of request row and item that the users had and did not dislike; all that they had if the model
    keeps no histories."""
    if request.history is None:
        return request.seen
    rows, items, _ = request.events
    width = len(request.items)
    keys = np.unique(rows * width + items)
    return keys // width, keys % width
