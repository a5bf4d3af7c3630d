"""The application: all routes, behind the guard."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI

from anyrec.core.types import JsonObject
from anyrec.core.version import __version__
from anyrec.serving.http import admin, lists, records
from anyrec.serving.http.guard import Guard
from anyrec.serving.http.host import Host
from anyrec.serving.http.keys import Keys
from anyrec.serving.http.problems import add_handlers, document_problems
from anyrec.serving.live.service import Service

ABOUT = """Lists, scores, vectors and searches of one recommender, events that change the next list, and changes of
records without training. Errors are problem documents (RFC 9457)."""


def make_app(service: Service, *, keys: Keys | None = None, folder: Path | None = None) -> FastAPI:
    """Return the ASGI application of a live model.

    Args:
        service: The live model.
        keys: The API keys; None to answer everybody.
        folder: The model's folder, for reloads.
    """
    host = Host(service, folder)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        host.stopping = True
        host.close()

    app = FastAPI(title="anyrec", version=__version__, description=ABOUT, lifespan=lifespan)
    app.state.host = host
    for part in (lists, records, admin):
        app.include_router(part.routes)
    add_handlers(app)
    document = app.openapi

    def documented() -> JsonObject:
        if app.openapi_schema is None:
            app.openapi_schema = document_problems(document(), service.config.max_k)
        return app.openapi_schema

    app.openapi = documented
    app.add_middleware(Guard, keys=keys, most_bytes=service.config.max_body_bytes, metrics=host.metrics)
    return app
