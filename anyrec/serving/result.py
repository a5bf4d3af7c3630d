"""A saved model and a file of records in, embeddings, scores and top-K lists out (`schemas/result.schema.json`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from anyrec.core.errors import DataError
from anyrec.data.dataset import Dataset
from anyrec.data.ids import rows_of
from anyrec.data.partial import read_request_file
from anyrec.model.arguments import checked_k
from anyrec.model.records import Records, before_interactions
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
    strict: bool | None = None,
) -> dict[str, Any]:
    """Answer a request: the result document for the users, items and interactions of `data`.

    Items of `data` that the model does not know join the ranking. Its interactions extend what the model knows of each user, or
    are a new user's history. `scores` holds the pairs that they name, or else each of its users with each of its items; a pair is
    scored as it was before the request's interactions, which would give its outcome away. With a pipeline, or a `trace`, the time
    of each stage and warnings stand in it too.

    Args:
        data: As `read_request` gives it.
        top_k: Items for each user.
        context, now, trace: As for `Recommender.answer`.
        strict: Raise for what the model cannot read; by default `data.strict` of the config. If false it is named in `notes`.

    Raises:
        DataError: If strict, with all that the model cannot read.
    """
    top_k, faults = checked_k(top_k), []
    items = recommender.read_records("item", data, strict=strict, faults=faults) if len(data.items) else None
    ranker = recommender if items is None else recommender.add_items(items)
    users = ranker.read_records("user", data, strict=strict, faults=faults)
    if faults and users.context.strict:
        raise DataError(faults)
    lists, more, events = None, {}, None
    options = {"exclude_seen": exclude_seen, "candidates": candidates}
    if len(users.ids) and (ranker.pipeline is not None or trace):
        answer = ranker.answer(users, top_k, context=context, now=now, trace=trace, **options)
        lists, events = answer.table, answer.trace
        latency = {stage: round(value, 3) for stage, value in answer.latency.items()}
        warnings = [warning for warning in answer.warnings if warning not in users.context.warnings]
        more = {"latency_ms": latency, "warnings": warnings}
    elif len(users.ids):
        lists = ranker.recommend(users, top_k, **options)
    found = {
        "model": recommender.model.about(),
        "top_k": top_k,
        "users": _users(_embedded(ranker, users), lists, events),
        **more,
        "items": [] if items is None else _embedded(recommender, items),
        "scores": _scores(ranker, data, users),
    }
    notes = [
        *data.notes,
        *map(str, faults),
        *users.context.warnings,
        *([] if items is None else items.context.warnings),
    ]
    return {**found, "notes": list(dict.fromkeys(notes))}


def read_request(recommender: Recommender, path: Path) -> Dataset:
    """The records of a file or folder, with columns typed as the model knows them."""
    return read_request_file(path, recommender.dataset, recommender.config.data)


def lists_of(recommender: Recommender, data: Dataset, result: dict[str, Any]) -> pa.Table:
    """The lists of a result document as a table: user_id, item_id, score, rank."""
    rows = [{"user_id": user["user_id"], **one} for user in result["users"] for one in user["recommendations"]]
    kinds = {
        "user_id": data.ids("user").type,
        "item_id": recommender.dataset.ids("item").type,
        "score": pa.float32(),
        "rank": pa.int64(),
    }
    return pa.table({name: pa.array([row[name] for row in rows], kind) for name, kind in kinds.items()})


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


def _embedded(recommender: Recommender, records: Records) -> list[dict[str, Any]]:
    """The ids of one side of the request, each with its vector if the model has vectors."""
    side = records.side
    if not recommender.model.has_vectors or not len(records.ids):
        return pa.table({f"{side}_id": records.ids}).to_pylist()
    return (recommender.embed_users(records) if side == "user" else recommender.embed_items(records)).to_pylist()


def _scores(ranker: Recommender, data: Dataset, users: Records) -> list[dict[str, Any]]:
    """The pairs of the request's interactions, or each of its users with each of its items."""
    if not len(users.ids):
        return []
    if len(data.interactions):
        owners = rows_of(data.interactions.column("user_id"), users.ids)
        items = rows_of(data.interactions.column("item_id"), ranker.dataset.ids("item"))
        known = (owners >= 0) & (items >= 0)
        owners, items = owners[known], items[known]
        users = before_interactions(users)
    elif len(data.items):
        rows = ranker.model.rows_of("item", data.ids("item"))
        owners, items = np.repeat(np.arange(len(users.ids)), len(rows)), np.tile(rows, len(users.ids))
    else:
        return []
    if not len(owners):
        return []
    scored = ranker.score_rows(users, owners, items)
    ids = users.ids.take(pa.array(owners)), ranker.dataset.ids("item").take(pa.array(items))
    return pa.table({"user_id": ids[0], "item_id": ids[1], **scored}).to_pylist()
