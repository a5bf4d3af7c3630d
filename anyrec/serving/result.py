"""The result document of a request: embeddings, scores and top-k lists (`schemas/result.schema.json`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from anyrec.core.errors import DataError
from anyrec.core.types import JsonObject
from anyrec.data.dataset import Dataset
from anyrec.data.ids import rows_of
from anyrec.data.partial import read_request_file, request_of_document
from anyrec.model.arguments import checked_k
from anyrec.model.records import Records, before_interactions
from anyrec.model.result_tables import index_of
from anyrec.pipeline.answer import Answer
from anyrec.pipeline.trace import events_as_json
from anyrec.recommender import Recommender


def infer(
    recommender: Recommender,
    data: Dataset,
    top_k: int,
    *,
    exclude_seen: bool = True,
    candidates: Sequence[str | int] | None = None,
    context: JsonObject | None = None,
    now: int | None = None,
    trace: bool = False,
    embeddings: bool = False,
    strict: bool | None = None,
) -> JsonObject:
    """Return the result document of a request.

    New items of the request are ranked with the known ones. Its interactions extend the history of a known user, and
    are the history of a new one. `scores` has the pairs of the interactions, or without interactions all pairs of the
    request's users and items. A pair is scored without the request's interactions, which would reveal its outcome.
    With a pipeline or a trace the document also has the time of each stage and warnings.

    Args:
        recommender: A fitted recommender.
        data: The request, as `read_request` returns it.
        top_k: Items for each user.
        exclude_seen: Exclude the items that each user has interacted with.
        candidates: Ids of the only items that may be listed; by default all.
        context: Values of the moment by name.
        now: Time of the request in microseconds since 1970; by default the current time.
        trace: Record what each stage of the pipeline did.
        embeddings: Add the vectors of the request's users and items, if the model has vectors.
        strict: Raise for values that the model cannot read, instead of naming them in `notes`; by default `data.strict`
            of the config.

    Raises:
        DataError: With all values that the model cannot read, if `strict`.
    """
    top_k, faults = checked_k(top_k), []
    items = recommender.read_records("item", data, strict=strict, faults=faults) if len(data.items) else None
    ranker = recommender if items is None else recommender.add_items(items)
    users = ranker.read_records("user", data, strict=strict, faults=faults)
    if faults and users.context.strict:
        raise DataError(faults)
    lists, events, more = None, None, {}
    if len(users.ids) and (ranker.pipeline is not None or trace):
        answer = ranker.answer(
            users, top_k, exclude_seen=exclude_seen, candidates=candidates, context=context, now=now, trace=trace
        )
        lists, events, more = answer.table, answer.trace, _stages(answer, users)
    elif len(users.ids):
        lists = ranker.recommend(users, top_k, exclude_seen=exclude_seen, candidates=candidates)
    found = {
        "model": recommender.model.about(),
        "top_k": top_k,
        "users": _users(_entries(ranker, users, embeddings), lists, events),
        **(more | _index(lists)),
        "items": [] if items is None else _entries(recommender, items, embeddings),
        "scores": _scores(ranker, data, users),
    }
    of_items = [] if items is None else items.context.warnings
    notes = [*data.notes, *map(str, faults), *users.context.warnings, *of_items]
    return {**found, "notes": list(dict.fromkeys(notes))}


def _index(lists: pa.Table | None) -> JsonObject:
    """Return `index`, the index that the lists were found by, if one was."""
    index = None if lists is None else index_of(lists)
    return {} if index is None else {"index": index}


def _stages(answer: Answer, users: Records) -> JsonObject:
    """Return the time of each stage, and the warnings of the stages without those of reading the request."""
    latency = {stage: round(value, 3) for stage, value in answer.latency.items()}
    warnings = [warning for warning in answer.warnings if warning not in users.context.warnings]
    return {"latency_ms": latency, "warnings": warnings}


def request_of_ids(recommender: Recommender, ids: pa.Array) -> Dataset:
    """Return the request of some known users.

    Args:
        recommender: A fitted recommender.
        ids: (users,) ids, of the model's type.

    Raises:
        DataError: With every id that the model does not know.
    """
    recommender.model.rows_of("user", ids)
    return request_of_document(ids.to_pylist(), recommender.dataset, recommender.config.data)


def read_request(recommender: Recommender, path: Path) -> Dataset:
    """Read the records of a file or folder; columns have the types of the model's own data."""
    return read_request_file(path, recommender.dataset, recommender.config.data)


def lists_of(recommender: Recommender, data: Dataset, result: JsonObject) -> pa.Table:
    """Return the lists of a result document as a table: user_id, item_id, score, rank."""
    rows = [{"user_id": user["user_id"], **item} for user in result["users"] for item in user["recommendations"]]
    kinds = {
        "user_id": data.ids("user").type,
        "item_id": recommender.dataset.ids("item").type,
        "score": pa.float32(),
        "rank": pa.int64(),
    }
    return pa.table({name: pa.array([row[name] for row in rows], kind) for name, kind in kinds.items()})


def _users(entries: list[JsonObject], lists: pa.Table | None, events: pa.Table | None) -> list[JsonObject]:
    """Return the users of a result with their lists and traces.

    Args:
        entries: `user_id` of each user, with the embedding if it was requested.
        lists: The lists; None if the request has no users.
        events: The trace; None without one.
    """
    if lists is None:
        return []
    by_user: dict[str | int, list[JsonObject]] = {entry["user_id"]: [] for entry in entries}
    for row in lists.to_pylist():
        by_user[row["user_id"]].append({"item_id": row["item_id"], "score": row["score"], "rank": row["rank"]})
    by_event: dict[str | int, list[JsonObject]] = {entry["user_id"]: [] for entry in entries}
    if events is not None:
        for user, event in zip(events.column("user_id").to_pylist(), events_as_json(events), strict=True):
            by_event[user].append(event)
    traced = {user: {} if events is None else {"trace": found} for user, found in by_event.items()}
    return [{**entry, "recommendations": by_user[entry["user_id"]], **traced[entry["user_id"]]} for entry in entries]


def _entries(recommender: Recommender, records: Records, embeddings: bool) -> list[JsonObject]:
    """Return the ids of one side of the request, with their vectors if `embeddings` and the model has vectors."""
    side = records.side
    if not embeddings or not recommender.model.has_vectors or not len(records.ids):
        return pa.table({f"{side}_id": records.ids}).to_pylist()
    return (recommender.embed_users(records) if side == "user" else recommender.embed_items(records)).to_pylist()


def _scores(ranker: Recommender, data: Dataset, users: Records) -> list[JsonObject]:
    """Return the scored pairs of the request's interactions, or else of all its users and items."""
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
