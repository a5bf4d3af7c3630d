"""Routes of lists, scores and vectors."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import pyarrow as pa
from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel

from anyrec.core.errors import AnyrecError
from anyrec.core.types import JsonObject
from anyrec.data.ids import SIDES
from anyrec.serving.http.answers import PopularItems, Scores, SearchResults, SimilarItems, Vectors, documented
from anyrec.serving.http.body import StrictRoute
from anyrec.serving.http.host import Host, fields_of, host_of, unknown_fields
from anyrec.serving.http.messages import (
    Embed,
    Failure,
    List,
    ListBatch,
    Recommend,
    RecommendBatch,
    Score,
    Search,
    Similar,
)
from anyrec.serving.http.places import in_request
from anyrec.serving.http.problems import ERRORS, Refused, message_of
from anyrec.serving.http.upload import decoded, ending
from anyrec.serving.live import lookups
from anyrec.serving.live.histories import Histories
from anyrec.serving.live.query import Query as Person
from anyrec.serving.live.served import Served

routes = APIRouter(prefix="/v1", responses=ERRORS, route_class=StrictRoute)
TheHost = Annotated[Host, Depends(host_of)]
LIST = "/v1/recommend"
"""The route whose requests a batch consists of."""


@routes.post("/recommend", response_model=List)
async def recommend(asked: Recommend, host: TheHost) -> Response:
    """List the best items for a person, who is given by an id, a record, a history, or not at all."""
    return _json(await host.list_of(asked))


@routes.post("/recommend:batch", response_model=ListBatch)
async def recommend_batch(asked: RecommendBatch, host: TheHost) -> Response:
    """List the best items for several persons. The error of one does not concern the others."""
    host.check(asked)
    found = await host.lists_of(asked.requests)
    results = [Failure(error=message_of(LIST, one)) if isinstance(one, AnyrecError) else one for one in found]
    return _json(ListBatch(results=results))


@routes.post("/score", **documented(Scores))
async def score(asked: Score, host: TheHost) -> JsonObject:
    """Score pairs of users and items by all that is known of them now, with each head's prediction."""
    host.check(asked)
    served, pairs = host.served, [(pair.user_id, pair.item_id) for pair in asked.pairs]
    scores = await host.call(lookups.score, served, host.service.histories, pairs)
    return {"scores": scores, "model": _model(served)}


@routes.post("/similar", **documented(SimilarItems))
async def similar(asked: Similar, host: TheHost) -> JsonObject:
    """List the items most similar to each of some items."""
    host.check(asked)
    served = host.served
    lookups.check_known(served, host.service.histories, items=asked.item_ids)
    k = asked.k + len(served.removed)
    table = await host.call(served.recommender.similar, asked.item_ids, k)
    lists: dict[object, list[JsonObject]] = {one: [] for one in asked.item_ids}
    for row in table.to_pylist():
        lists[row.pop("query_id")].append(row)
    found = [{"item_id": one, "items": _items(served, rows, asked.k, asked.fields)} for one, rows in lists.items()]
    return {"similar": found, "model": _model(served), "warnings": unknown_fields(served, asked.fields)}


@routes.post("/search", **documented(SearchResults))
async def search(asked: Search, host: TheHost) -> JsonObject:
    """Find items by words, a picture, or both; for a person if one is given."""
    if asked.text is None and asked.image is None:
        raise Refused(422, "/text: give a text, an image, or both.")
    host.check(asked)
    image = None if asked.image is None else decoded("/image", asked.image, host.config.max_image_bytes)
    served = host.served
    (user,), warnings = host.service.readable(served, "user", [(asked.user_id, asked.user or {})])
    asked = asked if asked.user is None else asked.model_copy(update={"user": user})
    table = await host.call(_search, served, host.service.histories, asked, image)
    items = _items(served, table.to_pylist(), asked.k, asked.fields)
    warnings = [*warnings, *unknown_fields(served, asked.fields)]
    return {"items": items, "model": _model(served), "warnings": warnings}


@routes.post("/embed", **documented(Vectors))
async def embed(asked: Embed, host: TheHost) -> JsonObject:
    """Return the vectors of known users and items, as lists take them into account, or of records."""
    host.check(asked)
    served = host.served
    (users, notes), (items, more) = (
        host.service.readable(served, side, [(one.get(f"{side}_id"), one) for one in records])
        for side, records in zip(SIDES, (asked.users, asked.items), strict=True)
    )
    asked = asked.model_copy(update={"users": users, "items": items})
    found, unread = await host.call(_embed, served, host.service.histories, asked)
    unread = [in_request("/v1/embed", one) for one in unread]
    return {
        **found,
        "model": _model(served),
        "warnings": [*(notes or more), *unread],
    }


@routes.get("/popular", **documented(PopularItems))
async def popular(host: TheHost, k: Annotated[int, Query(ge=1)] = 10) -> JsonObject:
    """List the items that the most people had, the events since the training included."""
    if k > host.config.max_k:
        raise Refused(422, f"/k: {host.config.max_k:,} at most; found {k:,}.")
    served = host.served
    found = await host.call(host.service.popular, served, k)
    items = [{"item_id": item, "count": count, "rank": rank} for rank, (item, count) in enumerate(found, 1)]
    return {"items": items, "model": _model(served)}


def _json(message: BaseModel) -> Response:
    """Return a message as a response. FastAPI would validate and convert it again, which takes longer than a list."""
    return Response(message.model_dump_json(exclude_none=True), media_type="application/json")


def _embed(served: Served, histories: Histories, asked: Embed) -> tuple[JsonObject, list[str]]:
    """Return the vectors of users and items, those with ids first, and what the model cannot read of the records."""
    lookups.check_known(served, histories, asked.user_ids, asked.item_ids)
    users = lookups.embed_users(served, histories, asked.user_ids) if asked.user_ids else []
    items = lookups.embed_items(served, histories, asked.item_ids) if asked.item_ids else []
    found: JsonObject = {"users": users, "items": items}
    warnings: list[str] = []
    for side, records in zip(SIDES, (asked.users, asked.items), strict=True):
        if records:
            read = served.recommender.read_records(side, records)
            embed = served.recommender.embed_users if side == "user" else served.recommender.embed_items
            found[f"{side}s"] += embed(read).to_pylist()
            warnings += read.context.warnings  # also on files, which only the encoders open
    return found, list(dict.fromkeys(warnings))


def _search(served: Served, histories: Histories, asked: Search, image: bytes | None) -> pa.Table:
    """Search in a thread of the model, with the picture as a file of its own for as long as it takes."""
    user = None
    options: JsonObject = {}
    if asked.user_id is not None or asked.user is not None:
        user = lookups.person(served, histories, Person(user_id=asked.user_id, user=asked.user))
        options = {"personal": asked.personal}
    k = asked.k + len(served.removed)
    with tempfile.TemporaryDirectory() as folder:
        path = None
        if image is not None:
            path = Path(folder) / f"query{ending(image)}"
            path.write_bytes(image)
        return served.recommender.search(
            text=asked.text, image=path, user=user, k=k, space=asked.space, where=asked.filter, **options
        )


def _items(served: Served, rows: list[JsonObject], k: int, fields: bool | list[str]) -> list[JsonObject]:
    """Return the first k rows of a list without the items that were removed, with the fields that are wanted."""
    kept = [row for row in rows if row["item_id"] not in served.removed][:k]
    own = fields_of(served, [row["item_id"] for row in kept], fields)
    return [
        {**row, "rank": rank, **({} if record is None else {"fields": record})}
        for rank, (row, record) in enumerate(zip(kept, own, strict=True), 1)
    ]


def _model(served: Served) -> dict[str, str]:
    return {"name": served.name, "digest": served.digest}
