"""Answers at the port of a server while its model is loaded, before the server itself does."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

LOADING = "the server is starting: the model is being loaded"
WARMING = "the server is starting: the model makes its first lists"
WAITING = 128
"""Connections that wait to be accepted."""
POLL = 0.05
"""Seconds in which the end of the start is noticed."""
PATIENCE = 5
"""Seconds that a client has for its request."""
AGAIN = "setTimeout(() => location.reload(), 1000)"
"""Script by which a browser tries again; the header `refresh` would do nothing at an address with a fragment."""
PAGE = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>anyrec</title></head>
<body><h1>anyrec</h1><p>REASON. This page opens as soon as it can.</p><script>{AGAIN}</script></body></html>
"""
"""What a browser shows meanwhile."""
PAGES = ("/", "/docs")
POLICY = f"default-src 'none'; script-src 'sha256-{base64.b64encode(hashlib.sha256(AGAIN.encode()).digest()).decode()}'"


class Starting:
    """Answers all requests at some sockets until a server takes these over: `/livez` with 200, all others with 503.

    A browser gets a page that opens the real one later. A connection that comes in between waits for the server, so
    none is refused.

    Args:
        places: Bound sockets, as `run.listen` returns them.

    Attributes:
        reason: What `/readyz` says.
    """

    def __init__(self, places: Sequence[socket.socket]):
        self.reason = LOADING
        self._servers = [self._answering(place) for place in places]

    def __enter__(self) -> Starting:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """Answer no more. The sockets stay open."""
        for server in self._servers:
            server.shutdown()
            server.server_close()
        self._servers = []

    def _answering(self, place: socket.socket) -> ThreadingHTTPServer:
        """Return a running server at a socket."""
        place.listen(WAITING)
        server = ThreadingHTTPServer(place.getsockname()[:2], _handler(self), bind_and_activate=False)
        server.socket.close()
        server.socket = place.dup()
        threading.Thread(target=server.serve_forever, args=(POLL,), daemon=True).start()
        return server


def _handler(starting: Starting) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = PATIENCE

        def handle_one_request(self) -> None:
            """Answer a request, whatever its method."""
            self.raw_requestline = self.rfile.readline(65537)
            if not self.raw_requestline or not self.parse_request():
                return
            path = self.path.partition("?")[0]
            live, page = path == "/livez", path in PAGES and "text/html" in self.headers.get("accept", "")
            answer = json.dumps(_alive() if live else _not_ready(starting.reason))
            data = (PAGE.replace("REASON", starting.reason.capitalize()) if page else answer).encode()
            self.send_response(200 if live else 503)
            self.send_header("content-type", "text/html; charset=utf-8" if page else "application/json")
            if page:
                self.send_header("content-security-policy", POLICY)
            self.send_header("content-length", str(len(data)))
            self.send_header("cache-control", "no-store")
            self.send_header("x-content-type-options", "nosniff")
            if not live:
                self.send_header("retry-after", "1")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def version_string(self) -> str:
            return "anyrec"

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing: these are probes."""

    return Handler


def _alive() -> dict[str, object]:
    return {"status": "alive"}


def _not_ready(reason: str) -> dict[str, object]:
    return {"ready": False, "reasons": [reason], "notes": [], "model": None}
