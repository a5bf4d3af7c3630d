"""Errors as problem documents (RFC 9457): where, the fault, and how to fix it."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from anyrec.core.errors import AnyrecError, DataError, Fault, InputError, OutputError
from anyrec.core.time_limit import OutOfTime
from anyrec.core.types import JsonObject
from anyrec.serving.http.places import of_messages, translated

TITLES = {
    400: "The request cannot be read",
    401: "An API key is needed",
    403: "This is not allowed",
    404: "There is no such thing here",
    405: "This method is not allowed here",
    408: "The request did not arrive in time",
    409: "This conflicts with the present state",
    413: "The request is too large",
    415: "The content type is not supported",
    421: "The request is for another server",
    422: "The request is not valid",
    500: "The server failed",
    503: "The server is busy",
    507: "The server cannot store it",
}
SHOWN = 20
"""Faults of one document; the others are counted."""


class FaultMessage(BaseModel):
    """One fault: where it is, what was found, and how to fix it."""

    where: str
    what: str
    hint: str = ""


class Problem(BaseModel):
    """A problem document."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    faults: list[FaultMessage] = []
    request_id: str = ""


ERRORS: dict[int | str, JsonObject] = {
    status: {"model": Problem} for status in (400, 401, 403, 404, 405, 408, 409, 413, 415, 421, 422, 500, 503, 507)
}
"""The errors that every route documents."""


class Refused(Exception):
    """A request that is refused with a status and a reason."""

    def __init__(self, status: int, detail: str, faults: Sequence[Fault] = (), headers: dict[str, str] | None = None):
        super().__init__(detail)
        self.status, self.detail, self.faults, self.headers = status, detail, faults, headers or {}


def problem(
    status: int, detail: str, request_id: str, faults: Sequence[Fault] = (), headers: dict[str, str] | None = None
) -> JSONResponse:
    """Return a problem document as a response."""
    body = Problem(
        title=TITLES.get(status, "The request failed"),
        status=status,
        detail=detail,
        faults=[FaultMessage(where=one.where, what=one.what, hint=one.hint) for one in faults[:SHOWN]],
        request_id=request_id,
    )
    return JSONResponse(body.model_dump(), status, headers, media_type="application/problem+json")


def add_handlers(app: FastAPI) -> None:
    """Answer every error of a route with a problem document."""

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> JSONResponse:
        return problem(error.status, error.detail, _id_of(request), error.faults, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        faults = of_messages(error.errors(), _body_of(request))
        return problem(422, counted(faults), _id_of(request), faults)

    @app.exception_handler(AnyrecError)
    async def unanswerable(request: Request, error: AnyrecError) -> JSONResponse:
        faults = translated(request.url.path, error.faults) if isinstance(error, InputError) else []
        status = 507 if isinstance(error, OutputError) else 422 if isinstance(error, InputError) else 500
        if isinstance(error, DataError) and {one.kind for one in faults} == {"unknown id"}:
            status = 404
        detail = counted(faults) if faults else str(error)
        return problem(status, detail, _id_of(request), faults)

    @app.exception_handler(OutOfTime)
    async def late(request: Request, error: OutOfTime) -> JSONResponse:
        return problem(503, f"{error}.", _id_of(request), headers={"retry-after": "1"})

    @app.exception_handler(HTTPException)
    async def failed(request: Request, error: HTTPException) -> JSONResponse:
        detail = error.detail if isinstance(error.detail, str) else TITLES.get(error.status_code, "")
        headers = {name.lower(): value for name, value in (error.headers or {}).items()}
        if error.status_code == 405:
            headers["allow"] = ", ".join(_allowed(request))
        return problem(error.status_code, detail, _id_of(request), headers=headers)


def _allowed(request: Request) -> list[str]:
    """Return the methods of a path, by the most precise description: ids in paths can have slashes."""
    paths, asked = request.app.openapi()["paths"].items(), request.scope["path"]
    matching = [one for one in paths if compile_path(one[0].replace("}", ":path}"))[0].match(asked)]
    _, methods = max(matching, key=lambda one: one[0].count("/"), default=("", {}))
    return sorted(method.upper() for method in methods)


def _id_of(request: Request) -> str:
    return getattr(request.state, "request_id", "")


def counted(faults: Sequence[Fault]) -> str:
    """Return a fault, or the number of faults and the first."""
    if len(faults) == 1:
        return str(faults[0])
    return f"{len(faults)} faults; the first: {faults[0]}"


def message_of(path: str, error: AnyrecError) -> str:
    """Return an error within an answer in one sentence, with its place in the request of the route `path`."""
    return counted(translated(path, error.faults)) if isinstance(error, InputError) else str(error)


def _body_of(request: Request) -> type[BaseModel] | None:
    """Return what the body of a request should be; None if its route has none."""
    field = getattr(request.scope.get("route"), "body_field", None)
    kind = None if field is None else field.field_info.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None
