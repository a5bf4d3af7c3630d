"""Routes of the page in the browser: its files, which say nothing of the data, and what it shows."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from anyrec.core.types import JsonObject
from anyrec.core.version import __version__
from anyrec.serving.http.problems import ERRORS, Refused
from anyrec.serving.http.tags import tagged

routes = APIRouter(responses=ERRORS)
TYPES = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
"""Files of the page by ending, and their content types."""
ALL = ("people", "items", "data", "training", "live")
"""The sections of the page of a model."""


@routes.head("/", include_in_schema=False)
@routes.get("/", response_class=HTMLResponse)
def index() -> HTMLResponse:
    """Return the page."""
    return HTMLResponse(_contents()["index.html"].decode().replace("{version}", __version__))


@routes.get("/page/{name}", response_class=Response)
def file(name: str, request: Request) -> Response:
    """Return a file of the page."""
    data, kind = _contents().get(name), TYPES.get(name.rpartition(".")[2])
    if data is None or kind is None:
        raise Refused(404, f"the page has no file {name!r}.")
    return tagged(request, data, kind, "no-cache")


@routes.get("/v1/page")
def about(request: Request) -> JsonObject:
    """Say which sections the page has, and of which model or run."""
    return {"version": __version__, **request.app.state.about()}


@cache
def _contents() -> dict[str, bytes]:
    folder = files("anyrec.serving.page")
    return {one.name: one.read_bytes() for one in folder.iterdir() if one.name.endswith((*TYPES, "html"))}
