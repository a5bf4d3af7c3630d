"""Routes that describe what the model knows: its features, its data, a map of its items, and what happens now."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from functools import lru_cache
from pathlib import Path
from typing import Annotated

import pyarrow as pa
from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from anyrec.core.errors import DataError
from anyrec.core.files import json_object
from anyrec.core.types import JsonObject
from anyrec.data.dataset import Dataset
from anyrec.data.ids import Side
from anyrec.data.item_facts import title_of
from anyrec.data.overview import OVERVIEW, overview
from anyrec.model.fitted import FittedModel
from anyrec.serving.experiments.report import experiment_report
from anyrec.serving.form import form_of, values_with
from anyrec.serving.http.host import Host
from anyrec.serving.http.lists import TheHost
from anyrec.serving.http.problems import ERRORS
from anyrec.serving.http.runs import EVERY, events
from anyrec.serving.item_map import item_map
from anyrec.serving.live.event_log import log_bytes
from anyrec.serving.live.service import Service
from anyrec.serving.live.variants import EXPOSURES

routes = APIRouter(prefix="/v1", responses=ERRORS)


@routes.get("/features")
async def features(host: TheHost) -> JsonObject:
    """Describe the features of users and items with their known values, as a form for a new one needs them."""
    recommender = host.served.recommender
    return {
        "user": await host.call_slowly(form_of, recommender, "user"),
        "item": await host.call_slowly(form_of, recommender, "item"),
    }


@routes.get("/features/values")
async def feature_values(
    host: TheHost,
    feature: Annotated[str, Query(max_length=200, description="A categorical feature (`categorical.job`).")],
    side: Annotated[Side, Query(description="Whose feature it is.")] = "user",
    q: Annotated[str, Query(max_length=200, description="Letters that the values contain.")] = "",
    k: Annotated[int, Query(ge=1, le=1000)] = 20,
) -> JsonObject:
    """Find known values of a category: `/v1/features` lists the 500 most frequent ones only."""
    return await host.call_slowly(values_with, host.served.recommender.model, side, feature, q, k)


@routes.get("/data")
async def data(host: TheHost) -> JsonObject:
    """Describe the data: counts, how complete each feature is, distributions, and what the data doctor found.

    It is the data that the model was trained on, as the run kept it (`source` is `training`), or otherwise what the
    model still knows of it (`model`): then without times, types, ratings and findings.
    """
    return await host.call_slowly(_data, host.served.recommender.model)


@routes.get("/map")
async def catalogue_map(
    host: TheHost,
    feature: Annotated[str | None, Query(max_length=200, description="A categorical feature of the items.")] = None,
) -> JsonObject:
    """Return the items in the plane, similar ones close to each other, with a category to colour them by."""
    served = host.served
    found = await host.call_slowly(item_map, served.recommender.model, feature)
    return {**found, "removed": list(served.removed)}


@routes.get("/experiments")
async def experiments(host: TheHost) -> JsonObject:
    """Return what the log says of each experiment: users, conversions, rates with intervals, and what follows."""
    return {"experiments": await host.call_slowly(_experiments, host.service)}


@routes.get("/live")
async def live(host: TheHost) -> JsonObject:
    """Return what the server did lately: requests by second, latencies by stage, the last events."""
    return summary_of(host)


@routes.get("/live/stream", response_class=StreamingResponse, include_in_schema=False)
async def live_stream(host: TheHost) -> StreamingResponse:
    """Send the answer of `/v1/live` twice a second, as server-sent events."""
    return events(_summaries(host))


async def _summaries(host: Host) -> AsyncIterator[tuple[str, object]]:
    while not host.stopping:
        yield "live", summary_of(host)
        await asyncio.sleep(EVERY)


def summary_of(host: Host) -> JsonObject:
    """Return what the server did lately, with the titles of the items of events."""
    found, served = host.metrics.activity.summary(), host.served
    rows = served.rows("item", [event["item_id"] for event in found["recent"]])
    dataset = served.recommender.dataset
    for event, row in zip(found["recent"], rows.tolist(), strict=True):
        event["title"] = str(event["item_id"]) if row < 0 else title_of(dataset, row)
    return {**found, "model": {"name": served.name, "digest": served.digest, "loaded": served.loaded}}


def _experiments(service: Service) -> list[JsonObject]:
    """Return the report of each experiment of the config; without `rates` for one that showed no list yet."""
    folder = service.folder
    if folder is None:  # there is no log
        return []
    state = log_bytes(folder), log_bytes(folder / EXPOSURES)
    return [_report(folder, one.name, state) for one in service.config.experiments]


@lru_cache(16)
def _report(folder: Path, name: str, state: tuple[int, int]) -> JsonObject:
    """Return the report of an experiment, which is made again when the logs have grown. state: their sizes."""
    try:
        return _finite(experiment_report(folder, name).as_json())
    except DataError:  # no list was shown yet
        return {"experiment": name, "rates": {}, "conclusion": "No list was shown yet."}


def _finite(value: JsonObject) -> JsonObject:
    """Return nested values with None for NaN, which JSON does not have: the rate of no users."""
    return {
        name: _finite(one) if isinstance(one, dict) else None if isinstance(one, float) and math.isnan(one) else one
        for name, one in value.items()
    }


@lru_cache(1)
def _data(model: FittedModel) -> JsonObject:
    kept = {} if model.directory is None else json_object(model.directory.parent / OVERVIEW)
    if kept.get("model") == model.model_id:  # the overview that the training of this model kept
        return {"source": "training", **kept}
    known = model.dataset
    seen = pa.table(
        {
            "user_id": known.ids("user").take(pa.array(model.seen.owners())),
            "item_id": known.ids("item").take(pa.array(model.seen.items)),
        }
    )
    return {"source": "model", **overview(Dataset(known.users, known.items, seen, roles=known.roles))}
