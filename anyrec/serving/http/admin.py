"""Routes of the server itself: its state, its figures, its models."""

from __future__ import annotations

import logging

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from anyrec.core.errors import AnyrecError
from anyrec.core.types import JsonObject
from anyrec.serving.http.answers import Models, NowServing, documented
from anyrec.serving.http.body import StrictRoute
from anyrec.serving.http.lists import TheHost
from anyrec.serving.http.messages import Ready, Reload
from anyrec.serving.http.metrics import CONTENT_TYPE
from anyrec.serving.http.problems import ERRORS, Refused
from anyrec.serving.live.health import log_faults, notes
from anyrec.serving.live.served import Served

log = logging.getLogger("anyrec.serving")
routes = APIRouter(responses=ERRORS, route_class=StrictRoute)


@routes.head("/livez", include_in_schema=False)
@routes.get("/livez")
async def live() -> dict[str, str]:
    """Answer as long as the process does, also while the model works."""
    return {"status": "alive"}


@routes.head("/readyz", include_in_schema=False)
@routes.get("/readyz", responses={503: {"model": Ready, "description": "Requests are not answered, or not all."}})
async def ready(host: TheHost, response: Response) -> Ready:
    """Say whether requests are answered, and if not, why (status 503)."""
    reasons = ["the server is stopping"] if host.stopping else []
    if any(log.fault for log in host.service.logs.values()):  # the disk can have space again
        reasons += await host.call_slowly(log_faults, host.service.logs)
    response.status_code = 503 if reasons else 200
    return Ready(ready=not reasons, reasons=reasons, notes=notes(host.service), model=host.served.name)


@routes.get("/metrics", response_class=PlainTextResponse)
async def metrics(host: TheHost) -> Response:
    """Return the figures of the server in the text format of Prometheus."""
    return Response(host.metrics.text(), media_type=CONTENT_TYPE)


@routes.get("/v1/models", **documented(Models))
async def models(host: TheHost) -> JsonObject:
    """Describe the model that serves, and the one before the last reload."""
    served, previous = await host.call_slowly(host.service.versions)
    return {"serving": _about(served), "previous": None if previous is None else _about(previous)}


@routes.post("/v1/reload", **documented(NowServing))
async def reload(host: TheHost, asked: Reload | None = None) -> JsonObject:
    """Load another version of the model while the present one serves, and let it serve once it answers."""
    if host.folder is None:
        raise Refused(409, "this model is not saved in a folder, so there is nothing to load.")
    name = None if asked is None else asked.name
    if name is not None and set(name) <= {"."}:
        raise Refused(422, "/name: the name of a folder next to the present one is expected.")
    folder = host.folder if name is None else host.folder.parent / name
    try:
        served = await host.call_slowly(host.service.reload, folder)
    except AnyrecError as error:
        log.error("%s was not loaded, and the model before keeps serving: %s", folder, error)
        raise
    return {"serving": _about(served)}


@routes.post("/v1/rollback", **documented(NowServing))
async def rollback(host: TheHost) -> JsonObject:
    """Let the version before the last reload serve again."""
    if host.service.previous is None:
        raise Refused(409, "no other version was loaded before.")
    return {"serving": _about(await host.call_slowly(host.service.rollback))}


def _about(served: Served) -> JsonObject:
    recommender = served.recommender
    return {
        "name": served.name,
        "digest": served.digest,
        "type": recommender.config.model.type,
        "loaded": served.loaded,
        "users": len(recommender.dataset.users),
        "items": len(recommender.dataset.items),
        "metrics": recommender.metrics,
    }
