"""The application: all routes, behind the guard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI

from anyrec.core.types import JsonObject
from anyrec.core.version import __version__
from anyrec.serving.http import admin, api_page, catalogue, lists, page, pictures, records, runs
from anyrec.serving.http.document import precise
from anyrec.serving.http.follow import follow
from anyrec.serving.http.guard import Guard
from anyrec.serving.http.host import Host
from anyrec.serving.http.keys import Keys
from anyrec.serving.http.problems import add_handlers
from anyrec.serving.live.service import Service
from anyrec.serving.runs import MODEL, Runs

ABOUT = """Lists, scores, vectors and searches of one recommender, events that change the next list, and changes of
records without training. Errors are problem documents (RFC 9457)."""


def make_app(
    service: Service,
    *,
    keys: Keys | None = None,
    folder: Path | None = None,
    watch: bool = False,
    local: bool = False,
) -> FastAPI:
    """Return the ASGI application of a live model.

    Args:
        service: The live model.
        keys: The API keys; None to answer everybody.
        folder: The model's folder, for reloads.
        watch: Load the model again whenever its folder changes.
        local: Answer only requests to this machine's own names and addresses, and no other websites.
    """
    host = Host(service, folder)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        following = asyncio.create_task(follow(host)) if watch else None
        yield
        if following is not None:
            following.cancel()
        host.stopping = True
        host.close()

    app = FastAPI(
        title="anyrec",
        version=__version__,
        description=ABOUT,
        lifespan=lifespan,
        docs_url=None,  # FastAPI's own pages load scripts from elsewhere, which the security policy forbids
        redoc_url=None,
    )
    app.state.host = host
    app.state.runs = _runs(service)
    app.state.stopping, app.state.training = lambda: host.stopping, lambda: None
    app.state.about = lambda: {"name": host.served.name, "digest": host.served.digest, "sections": page.ALL}
    for part in (lists, pictures, records, catalogue, runs, admin, page, api_page):
        app.include_router(part.routes)
    add_handlers(app)
    document = app.openapi

    def documented() -> JsonObject:
        if app.openapi_schema is None:
            app.openapi_schema = precise(document(), service.config, host.served)
        return app.openapi_schema

    app.openapi = documented
    limits = {"most_bytes": service.config.max_body_bytes, "patience": service.config.timeout_seconds}
    app.add_middleware(Guard, keys=keys, **limits, metrics=host.metrics, local=local)
    return app


def _runs(service: Service) -> Runs:
    """Return the run of the model that serves, and the other runs in its folder."""
    folder = service.served.recommender.model.directory
    if folder is None or folder.name != MODEL:  # saved alone, not by a training run
        return Runs(None)
    return Runs(folder.parent.parent, folder.parent.name)
