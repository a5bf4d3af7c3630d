"""Limits, keys, request ids, security headers and logs: before and after every route."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as Connection

from anyrec.serving.http.keys import Key, Keys, Scope
from anyrec.serving.http.metrics import Metrics
from anyrec.serving.http.origin import refusal
from anyrec.serving.http.problems import problem

log = logging.getLogger("anyrec.serving")
OPEN = ("/", "/livez", "/readyz", "/docs", "/openapi.json")
PAGE = "/page/"
"""Paths that need no key, since they say nothing of the data: those of `OPEN`, and the files of the page."""
ADMIN = ("/v1/reload", "/v1/rollback")
WRITING = ("PUT", "DELETE")
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"))
"""Methods that the figures name; others are counted together, so that clients cannot make figures of their own."""
ID = re.compile(r"[\w.-]{1,64}", re.ASCII)
HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
ENCODED = [(name.encode(), value.encode()) for name, value in {**HEADERS, "content-security-policy": POLICY}.items()]
"""The headers of every answer."""


def scope_of(method: str, path: str) -> Scope | None:
    """Return the scope that a request needs; None if it needs no key."""
    if path in OPEN or path.startswith(PAGE):
        return None
    if path in ADMIN:
        return "admin"
    return "write" if method in WRITING or path == "/v1/events" else "read"


class Guard:
    """The outermost application: every request passes through it.

    Args:
        app: The application inside.
        keys: The API keys; None if no key is needed.
        most_bytes: Most bytes of a request's body.
        patience: Most seconds between two parts of a body.
        metrics: Counts the requests.
        local: Refuse requests that other websites have a browser of this machine send (`refusal`).
    """

    def __init__(
        self, app: ASGIApp, keys: Keys | None, most_bytes: int, patience: float, metrics: Metrics, local: bool
    ):
        self.app, self.keys, self.metrics, self.local = app, keys, metrics, local
        self.most_bytes, self.patience = most_bytes, patience

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        wanted = headers.get("x-request-id", "")
        request_id = wanted if ID.fullmatch(wanted) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = message.get("headers", [])
                message = {**message, "headers": [*own, *_headers(request_id, {name.lower() for name, _ in own})]}
            await send(message)

        key, refusal = self._check(scope, headers, request_id)
        try:
            if refusal is not None:
                await refusal(scope, receive, answer)
            else:
                await self.app(scope, _Body(receive, self.most_bytes, self.patience), answer)
        except Exception:
            log.exception("request %s failed", request_id)
            if not status:
                detail = f"the log of the server has the details of request {request_id}."
                await problem(500, detail, request_id)(scope, receive, answer)
        finally:
            seconds = time.perf_counter() - started
            route = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if scope["method"] in METHODS else "other"
            self.metrics.request(method, route, status, seconds)
            who = "" if key is None else key.name
            log.info(
                "request",
                extra={
                    "request_id": request_id,
                    "method": scope["method"],
                    "path": scope["path"],
                    "status": status,
                    "ms": round(1000 * seconds, 2),
                    "key": who,
                },
            )

    def _check(self, scope: Connection, headers: dict[str, str], request_id: str) -> tuple[Key | None, ASGIApp | None]:
        """Return the key of a request, and the answer that refuses it; None if it is not refused."""
        refused = refusal(scope["method"], headers) if self.local else None
        if refused is not None:
            return None, problem(*refused, request_id)
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self.most_bytes:
            return None, problem(413, f"a request has at most {self.most_bytes:,} bytes.", request_id)
        needed = scope_of(scope["method"], scope["path"])
        if self.keys is None or needed is None:
            return None, None
        kind, _, secret = headers.get("authorization", "").partition(" ")
        secret = secret.strip() if kind.lower() == "bearer" else headers.get("x-api-key", "")
        key = self.keys.find(secret) if secret else None
        if key is None:
            detail = "send an API key as `Authorization: Bearer KEY`."
            return None, problem(401, detail, request_id, headers={"www-authenticate": "Bearer"})
        if needed not in key.scopes:
            return key, problem(403, f"the key {key.name!r} has not the scope '{needed}'.", request_id)
        return key, None


class _Body:
    """The body of a request. Its bytes are counted while it arrives, and a client that stops sending is given up."""

    def __init__(self, receive: Receive, most: int, patience: float):
        self._receive, self._most, self._left, self._patience = receive, most, most, patience
        self._complete = False

    async def __call__(self) -> Message:
        try:  # after the body, only the end of the connection is waited for
            async with asyncio.timeout(None if self._complete else self._patience):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(408, f"no more of the body came within {self._patience:g} s.") from None
        self._complete = not message.get("more_body", False)
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise HTTPException(413, f"a request has at most {self._most:,} bytes.")
        return message


def _headers(request_id: str, own: set[bytes]) -> list[tuple[bytes, bytes]]:
    """Return the headers of every answer but those that a route sets itself, such as how long a picture is kept."""
    every = [*ENCODED, (b"x-request-id", request_id.encode())]
    return [(name, value) for name, value in every if name not in own]
