"""A saved model and a file of records in, embeddings, scores and top-K lists out (`schemas/result.schema.json`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from anyrec.data.dataset import Dataset, Side
from anyrec.recommender import Recommender


def infer(
    recommender: Recommender,
    data: Dataset,
    top_k: int,
    *,
    exclude_seen: bool = True,
    candidates: Sequence[Any] | None = None,
    context: dict[str, Any] | None = None,
    now: int | None = None,
    trace: bool = False,
) -> dict[str, Any]:
    """The result document for the users, items and interactions of `data`.

    Items of `data` that the model does not know join the ranking. `scores` holds the pairs named in the interactions of
    `data`, or else each of its users with each of its items. With a pipeline, or a `trace`, the time of each stage and warnings
    stand in it too. context, now, trace: as for `Recommender.answer`.
    """
    ranker = recommender.add_items(data) if len(data.items) else recommender
    lists, more, events = None, {}, None
    options = {"exclude_seen": exclude_seen, "candidates": candidates}
    if len(data.users) and (ranker.pipeline is not None or trace):
        answer = ranker.answer(data, top_k, context=context, now=now, trace=trace, **options)
        lists, events = answer.table, answer.trace
        latency = {stage: round(value, 3) for stage, value in answer.latency.items()}
        more = {"latency_ms": latency, "warnings": answer.warnings}
    elif len(data.users):
        lists = ranker.recommend(data, top_k, **options)
    return {
        "model": recommender.about(),
        "top_k": top_k,
        "users": _users(_embedded(ranker, "user", data), lists, events),
        **more,
        "items": _embedded(recommender, "item", data),
        "scores": _scores(ranker, data),
        "notes": list(dict.fromkeys([*data.notes, *recommender.context.warnings])),
    }


def read_request(recommender: Recommender, path: Path) -> Dataset:
    """The records of a file, with columns typed as the model knows them."""
    from anyrec.data.read import read_partial

    return read_partial(path, recommender.config.data, recommender.dataset.roles)


def _users(found: list[dict[str, Any]], lists: pa.Table | None, events: pa.Table | None) -> list[dict[str, Any]]:
    if lists is None:
        return []
    by_user: dict[Any, list[dict[str, Any]]] = {entry["user_id"]: [] for entry in found}
    for row in lists.to_pylist():
        by_user[row["user_id"]].append({"item_id": row["item_id"], "score": row["score"], "rank": row["rank"]})
    told: dict[Any, list[dict[str, Any]]] = {entry["user_id"]: [] for entry in found}
    for row in [] if events is None else events.to_pylist():
        told[row.pop("user_id")].append({name: value for name, value in row.items() if value is not None})
    traced = {user: {} if events is None else {"trace": entries} for user, entries in told.items()}
    return [{**entry, "recommendations": by_user[entry["user_id"]], **traced[entry["user_id"]]} for entry in found]


def _embedded(recommender: Recommender, side: Side, data: Dataset) -> list[dict[str, Any]]:
    """The ids of one side of the request, each with its vector where the model has vectors."""
    if not recommender.has_vectors or not len(data.table(side)):
        return pa.table({f"{side}_id": data.ids(side)}).to_pylist()
    return (recommender.embed_users(data) if side == "user" else recommender.embed_items(data)).to_pylist()


def _scores(ranker: Recommender, data: Dataset) -> list[dict[str, Any]]:
    if not len(data.users):
        return []
    if len(data.interactions):
        users, items = data.user_rows, ranker._rows_of_ids("item", data.interactions.column("item_id"))
    elif len(data.items):
        rows = ranker._rows_of_ids("item", data.ids("item"))
        users, items = np.repeat(np.arange(len(data.users)), len(rows)), np.tile(rows, len(data.users))
    else:
        return []
    scored = ranker.score_rows(data, users, items)
    ids = data.ids("user").take(pa.array(users)), ranker.dataset.ids("item").take(pa.array(items))
    return pa.table({"user_id": ids[0], "item_id": ids[1], **scored}).to_pylist()
