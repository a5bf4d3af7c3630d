"""Routes of items, users and events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Query

from anyrec.core.runtime import giving_way
from anyrec.core.types import JsonObject
from anyrec.data.ids import Side
from anyrec.serving.http.answers import (
    FoundItems,
    FoundRecord,
    FoundUser,
    FoundUsers,
    ItemsPut,
    Removed,
    UsersPut,
    documented,
)
from anyrec.serving.http.body import StrictRoute
from anyrec.serving.http.host import Host, known_id
from anyrec.serving.http.lists import TheHost
from anyrec.serving.http.messages import Accepted, Events, PutItems, PutUsers
from anyrec.serving.http.places import in_request
from anyrec.serving.http.problems import ERRORS, Refused
from anyrec.serving.live.events import Received
from anyrec.serving.live.lookups import find, record_of
from anyrec.serving.live.query import Id

routes = APIRouter(prefix="/v1", responses=ERRORS, route_class=StrictRoute)
Words = Annotated[str, Query(max_length=200, description="Words of the id, a text or a category.")]
Count = Annotated[int, Query(ge=1, le=1000)]
Before = Annotated[int, Query(ge=0, le=10**9)]
SHOWN = ("user_id", "item_id", "interaction_type", "timestamp")
"""What the page shows of an event."""
HISTORY = 100
"""Latest items of a user's history in the user's page."""


@routes.get("/items/{item_id:path}", **documented(FoundRecord))
async def get_item(item_id: str, host: TheHost) -> JsonObject:
    """Return an item: its features, and the number of users who had it, in training or by the events since."""
    served = host.served
    key = known_id(served, "item", item_id)
    row = int(served.rows("item", [key])[0])
    since = await host.call(host.service.popularity.since, served)
    count = int(served.recommender.model.item_users[row]) + since.get(key, 0)
    return {"item_id": key, **served.records("item", [key])[0], "users": count}


@routes.get("/items", **documented(FoundItems))
async def find_items(host: TheHost, q: Words = "", k: Count = 20, offset: Before = 0) -> JsonObject:
    """Find items whose id, texts or categories contain some words, in the order of their ids."""
    return await host.call(find, host.served, "item", q, k, offset)


@routes.get("/users", **documented(FoundUsers))
async def find_users(host: TheHost, q: Words = "", k: Count = 20, offset: Before = 0) -> JsonObject:
    """Find users whose id, texts or categories contain some words, in the order of their ids."""
    return await host.call(find, host.served, "user", q, k, offset)


@routes.get("/users/{user_id:path}", **documented(FoundUser))
async def get_user(user_id: str, host: TheHost) -> JsonObject:
    """Return a user: the features, the latest items from training, and the events since."""
    served = host.served
    key = served.typed("user", user_id)
    record = record_of(served, "user", key)
    if record is None and key not in host.service.histories:
        raise Refused(404, f"no user has the id {user_id!r}.")
    return {
        "user_id": key,
        **(record or {}),
        "history": served.history_of(key, HISTORY),
        "events": host.service.histories.of(key),
    }


@routes.post("/events", response_model_exclude_defaults=True)
async def post_events(asked: Events, host: TheHost) -> Accepted:
    """Receive what users did. The next list of each of them takes it into account."""
    has_items = any(one.item is not None for one in asked.events)  # their vectors can take minutes
    events, received = await (host.write if has_items else host.call)(_receive, host, asked)
    host.metrics.events(({name: one[name] for name in SHOWN if name in one} for one in events), received.accepted)
    warnings = [in_request("/v1/events", one) for one in received.warnings]
    return Accepted(accepted=received.accepted, duplicates=received.duplicates, warnings=warnings)


@routes.put("/items", **documented(ItemsPut))
async def put_items(asked: PutItems, host: TheHost) -> JsonObject:
    """Add or change items without training. Their vectors are computed, and the next list can contain them."""
    warnings = await host.write(_put, host, asked, host.service.put_items)
    return {"items": len(asked.items), "warnings": [in_request("/v1/items", one) for one in warnings]}


@routes.put("/users", **documented(UsersPut))
async def put_users(asked: PutUsers, host: TheHost) -> JsonObject:
    """Add or change users without training."""
    warnings = await host.write(_put, host, asked, host.service.put_users)
    return {"users": len(asked.users), "warnings": [in_request("/v1/users", one) for one in warnings]}


@routes.delete("/items/{item_id:path}", **documented(Removed))
async def delete_item(item_id: str, host: TheHost) -> dict[str, Id]:
    """Remove an item: it is in no list, and unknown, until it is put again."""
    key = known_id(host.served, "item", item_id)
    await host.call(host.service.remove_items, [key])
    return {"removed": key}


@routes.delete("/users/{user_id:path}", **documented(Removed))
async def delete_user(user_id: str, host: TheHost) -> dict[str, Id]:
    """Forget the record and the events of a user that came since the training."""
    key = host.served.typed("user", user_id)
    if not await host.call(host.service.remove_user, key):
        raise Refused(404, f"nothing came from or about a user with the id {user_id!r} since the training.")
    return {"removed": key}


# In threads, since the checks of a thousand records would keep the event loop from its requests for 10 ms.


def _receive(host: Host, asked: Events) -> tuple[list[JsonObject], Received]:
    """Receive events, and return them as well."""
    host.check(asked)
    events = [one.model_dump(exclude_none=True) for one in asked.events]
    return events, host.service.receive(events)


def _put(host: Host, asked: PutItems | PutUsers, put: Callable[[dict[Id, JsonObject]], list[str]]) -> list[str]:
    """Add or change records."""
    with giving_way():
        host.check(asked)
        records, side = (asked.items, "item") if isinstance(asked, PutItems) else (asked.users, "user")
        by_id = _by_id([one.model_dump() for one in records], side)
    return put(by_id)


def _by_id(records: list[JsonObject], side: Side) -> dict[Id, JsonObject]:
    """Return records by id, without their ids.

    Raises:
        Refused: For two records with the same id.
    """
    found: dict[Id, JsonObject] = {}
    for n, record in enumerate(records):
        key = record[f"{side}_id"]
        if key in found:
            raise Refused(422, f"/{side}s/{n}/{side}_id: {key!r} is there twice.")
        found[key] = {name: value for name, value in record.items() if name != f"{side}_id"}
    return found
