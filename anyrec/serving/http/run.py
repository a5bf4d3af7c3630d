"""The process of the server."""

from __future__ import annotations

import datetime as dt
import errno
import json
import logging
import math
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import uvicorn

from anyrec.core.errors import Fault, InputError
from anyrec.core.runtime import short_waits
from anyrec.recommender import Recommender
from anyrec.serving.http.app import make_app
from anyrec.serving.http.host import Host
from anyrec.serving.http.keys import Keys
from anyrec.serving.http.origin import is_loopback
from anyrec.serving.http.starting import WARMING, Starting
from anyrec.serving.live.service import Service
from anyrec.serving.live.warm_up import load_encoders, warm_up

BACKLOG = 2048
"""Connections that wait to be accepted."""
FIELDS = ("request_id", "method", "path", "status", "ms", "key")


def check_address(host: str, keys: Keys | None, insecure: bool) -> None:
    """Check that a server that other machines can reach asks for keys.

    Raises:
        InputError: If it does not, and `insecure` is false.
    """
    if not is_loopback(host) and keys is None and not insecure:
        what = f"other machines can reach {host}, and no API keys are set."
        hint = "Give --api-key-file (`anyrec key` makes one), or --insecure if a proxy in front of it checks clients."
        raise InputError(Fault("--host", what, hint, "no keys"))


def listen(host: str, port: int) -> list[socket.socket]:
    """Take the port at each address of a host, before a model is loaded for it.

    Args:
        host: A name or an address.
        port: The port; 0 for any that is free.

    Raises:
        InputError: If the port is in use, or the address is none of this machine.
    """
    taken: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in found[:1] if port == 0 else dict.fromkeys(found):
            place = socket.socket(family, kind, protocol)
            taken.append(place)
            place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                place.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            place.bind(address)
            place.listen(BACKLOG)  # of two servers that bind at the same time only one can
    except OSError as error:
        for place in taken:
            place.close()
        where = "--host" if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL else "--port"
        hint = "Give another one, or 0 for any port that is free." if where == "--port" else "Give 127.0.0.1, say."
        raise InputError(Fault(where, f"cannot listen at {host}, port {port}: {error.strerror}.", hint)) from None
    return taken


def serve(
    recommender: Recommender,
    folder: Path | None,
    *,
    load: Callable[[Path], Recommender],
    watch: bool,
    places: list[socket.socket],
    starting: Starting,
    local: bool,
    keys: Keys | None,
    events: Path | None,
) -> None:
    """Serve a model until the process is stopped.

    Args:
        recommender: The fitted model.
        folder: Its folder, for reloads.
        load: Loads another version of the model from its folder.
        watch: Load the model again whenever its folder changes.
        places: Where to listen, as `listen` returns it.
        starting: What answers there until the server does.
        local: As for `make_app`.
        keys: The API keys; None to answer everybody.
        events: Folder of the log of events; None to keep events in memory only.

    Raises:
        OutputError: If the log of events cannot be written.
    """
    service = Service(recommender, recommender.config.serving, events, load)
    try:
        service.variants.check(service.served)
        starting.reason = WARMING
        warm_up(service.served)
        _log_as_json()
        for version in (service.served, *service.variants.others.values()):
            load_encoders(version)
        app = make_app(service, keys=keys, folder=folder, watch=watch, local=local)
        app.openapi()  # FastAPI otherwise prepares routes at the first request, while all others wait
        patience = math.ceil(service.config.timeout_seconds)
        options = uvicorn.Config(
            app, log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=patience
        )
        starting.end()
        with short_waits():
            _Server(options, app.state.host).run(sockets=places)
    finally:
        service.close()
        for place in places:
            place.close()


class _Server(uvicorn.Server):
    """A server that says at `/readyz` that it stops, and then takes no more connections and answers those it has.

    It ends the streams of the page first, since it waits for open connections.
    """

    def __init__(self, config: uvicorn.Config, host: Host):
        super().__init__(config)
        self._host = host

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop: by the first SIGTERM after `serving.drain_seconds`, by other signals at once."""
        seconds = self._host.config.drain_seconds
        if sig == signal.SIGTERM and seconds and not self._host.stopping:
            timer = threading.Timer(seconds, super().handle_exit, (sig, frame))
            timer.daemon = True
            timer.start()
        else:
            super().handle_exit(sig, frame)
        self._host.stopping = True


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record with the fields of a request, if it is of one."""
        when = dt.datetime.fromtimestamp(record.created, dt.timezone.utc).isoformat(timespec="milliseconds")
        entry = {"time": when, "level": record.levelname, "message": record.getMessage()}
        entry |= {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def _log_as_json() -> None:
    """Write the log of requests and of the server to standard error, one JSON object a line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in ("anyrec.serving", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)
