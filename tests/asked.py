"""Requests for tests of conditions and rules, without a trained model."""

import datetime as dt
from functools import cache
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import torch

from anyrec.core.discovery import discover
from anyrec.data.dataset import Dataset
from anyrec.pipeline.contracts import Lists, Request

NOW = int(dt.datetime(2024, 6, 1, tzinfo=dt.timezone.utc).timestamp() * 1_000_000)


def ask(items, users=None, *, seen=(), history=None, context=None, vectors=None, seed=0, now=NOW):
    """Return a request of all users.

    Args:
        items: Columns by name; ids are generated if absent.
        users: As `items`.
        seen: (user row, item row) pairs.
    """
    items = table_of(items, "item")
    users = table_of(users if users is not None else {"user_id": ["u0"]}, "user")
    none = pa.table({"user_id": pa.array([], pa.string()), "item_id": pa.array([], pa.string())})
    model = SimpleNamespace(
        dataset=Dataset(users, items, none),
        has_vectors=vectors is not None,
        history=None,
        config=SimpleNamespace(model=SimpleNamespace(type="two_tower")),
        representations=lambda side: torch.from_numpy(np.asarray(vectors, np.float32)),
        vectors=lambda side, rows: rows,
    )
    model.with_histories = lambda: model
    pairs = np.array(sorted(seen), np.int64).reshape(-1, 2)
    return Request(
        model,
        users.column("user_id").combine_chunks(),
        users,
        np.arange(len(users)),
        torch.zeros(len(users), 2),
        (pairs[:, 0], pairs[:, 1]),
        context or {},
        now,
        np.random.default_rng(seed),
        history,
        seed=seed,
    )


def table_of(columns, side):
    if isinstance(columns, pa.Table):
        return columns
    count = len(next(iter(columns.values())))
    return pa.table({f"{side}_id": [f"{side[0]}{n}" for n in range(count)], **columns})


def lists_of(*rows):
    """Return lists of (item, score) pairs."""
    width = max(map(len, rows))
    items, scores = np.full((len(rows), width), -1), np.full((len(rows), width), -np.inf, np.float32)
    for n, row in enumerate(rows):
        for place, (item, score) in enumerate(row):
            items[n, place], scores[n, place] = item, score
    return Lists(items, scores)


def ranked(scores, lengths=None):
    """Return all items sorted by `scores: (users, items)`, each list cut to its length."""
    scores = np.asarray(scores, np.float32)
    order = np.argsort(-scores, axis=1, kind="stable")
    ordered = np.take_along_axis(scores, order, 1)
    if lengths is not None:
        past = np.arange(scores.shape[1]) >= np.asarray(lengths)[:, None]
        order, ordered = np.where(past, -1, order), np.where(past, -np.inf, ordered)
    return Lists(order, ordered.astype(np.float32))


def same_items(before, after):
    """Return whether each list has the same items as before, and is filled from the front."""
    return (np.sort(before.items, 1) == np.sort(after.items, 1)).all() and (
        (after.items >= 0) == (before.items >= 0)
    ).all()


@cache
def registry():
    return discover()


def make(rule_type, **options):
    return registry().get("rule", rule_type)(registry().params("rule", rule_type, options))
