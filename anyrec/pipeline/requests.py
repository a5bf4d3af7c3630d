"""Requests in blocks of users: live ones, and those of held-out users as they were before a part of the split."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from anyrec.core.types import JsonObject
from anyrec.data.split import Part
from anyrec.evaluation.held_out import HeldOut
from anyrec.model.fitted import FittedModel
from anyrec.model.records import completed
from anyrec.model.request_reader import Users
from anyrec.pipeline.contracts import Request
from anyrec.pipeline.draws import seed_of
from anyrec.retrieval.model_index import item_index, share_index

MAX_CELLS = 1 << 24
"""Maximum size of a (users, items) array, which bounds the number of users in a block."""
MAX_USERS = 1024


def block_size(model: FittedModel) -> int:
    """Return the number of users in one block."""
    return int(np.clip(MAX_CELLS // max(1, len(model.dataset.items)), 1, MAX_USERS))


def make_requests(
    model: FittedModel,
    users: Users,
    *,
    exclude_seen: bool = True,
    context: JsonObject | None = None,
    now: int | None = None,
    tokens: bool = False,
    before: int = 0,
) -> Iterator[Request]:
    """Yield the requests of some users, block by block.

    The generator of each request is seeded by the model's seed, `now` and the block, and the draws of a user by the
    model's seed, the user and `now`, or the day if that is not given: the pages of a list then agree.

    Args:
        model: The model.
        users: Users as `Recommender.recommend` takes them; None for all known users.
        exclude_seen: Exclude the items that each user has interacted with.
        context: Values of the moment by name.
        now: Time of the request in microseconds since 1970; by default the current time.
        tokens: Compute the users' feature vectors, which a ranker reads.
        before: Number of users whose requests are made elsewhere, before these: a multiple of `block_size`.
    """
    present = time.time_ns() // 1000
    seed = seed_of(model.config.seed, now, present)
    now = present if now is None else now
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
            np.random.default_rng([model.config.seed, now % 2**64, before + start]),
            None if model.history is None else model.history_of(part),
            warnings=[] if before + start else list(records.context.warnings),
            exclude=seen if exclude_seen else None,
            tokens=None if vectors is None else vectors[start : start + size],
            seed=seed,
        )


def requests_before(
    model: FittedModel, part: Part, held: HeldOut, *, tokens: bool = False
) -> Iterator[tuple[np.ndarray, Request]]:
    """Yield the requests of the users with held-out items, as those users were before the part of the split.

    Args:
        model: A model with its data.
        part: The part of the split.
        held: The held-out items of that part.
        tokens: Compute the users' feature vectors, which a ranker reads.

    Yields:
        (users,) user rows, and their request.
    """
    rows = np.flatnonzero(held.targets.counts())
    index = item_index(model)
    state = model.before(part)
    share_index(state, index)
    now, size = _moment_before(model, part), block_size(model)
    for start in range(0, len(rows), size):
        block = rows[start : start + size]
        represented = state.user_representations(block)
        vectors = state.user_tokens(block) if tokens else None
        seen = state.seen_by(block)
        request = Request(
            state,
            state.dataset.ids("user").take(pa.array(block)),
            state.dataset.users.take(pa.array(block)),
            block,
            represented,
            seen,
            {},
            now,
            np.random.default_rng([model.config.seed, now, start]),
            None if state.history is None else state.history.take(pa.array(block)),
            exclude=seen if held.exclude_seen else None,
            tokens=vectors,
            seed=seed_of(model.config.seed, now, now),
        )
        yield block, request


def _moment_before(model: FittedModel, part: Part) -> int:
    """Return the time of the last interaction before a part, in microseconds since 1970; 0 without timestamps."""
    split = model.required_learning().split
    rows = split.train if part == "validation" else np.concatenate([split.train, split.validation])
    return max(0, int(model.dataset.times[rows].max(initial=0)))


def liked_pairs(request: Request) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct pairs of request row and item row in the users' histories, which leave out disliked items.

    Without histories in the model these are all items that the users have interacted with.
    """
    if request.history is None:
        return request.seen
    rows, items, _ = request.events
    width = len(request.items)
    keys = np.unique(rows * width + items)
    return keys // width, keys % width
