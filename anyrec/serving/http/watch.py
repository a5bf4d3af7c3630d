"""The page of a training run while it trains (`anyrec train --watch`), served by a thread of the same process."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from anyrec.core.errors import Fault, OutputError
from anyrec.serving.http import page, runs
from anyrec.serving.http.guard import Guard
from anyrec.serving.http.metrics import Metrics
from anyrec.serving.http.problems import add_handlers
from anyrec.serving.runs import Runs

HOST = "127.0.0.1"
MOST_BYTES = 1 << 16
PATIENCE = 10.0
LAST = 2.0
"""Seconds that the page has at the end to receive the last news."""


class Watch:
    """What the page of a training needs to know.

    Attributes:
        training: Whether the training goes on.
        stopping: Whether the server is about to stop.
    """

    def __init__(self) -> None:
        self.training, self.stopping = True, False


def make_watch_app(folder: Path, watch: Watch, *, local: bool = False) -> FastAPI:
    """Return the ASGI application for the page of a training run.

    Args:
        folder: The run's folder; the other runs in the same folder are shown as well.
        watch: Whether it trains.
        local: As for `make_app`.
    """
    app = FastAPI(title="anyrec", openapi_url=None)
    app.state.runs = Runs(folder.parent, folder.name)
    app.state.stopping = lambda: watch.stopping
    app.state.training = lambda: watch.training
    app.state.about = lambda: {"name": folder.name, "sections": ["training"], "training": watch.training}
    for part in (page, runs):
        app.include_router(part.routes)
    add_handlers(app)
    app.add_middleware(Guard, keys=None, most_bytes=MOST_BYTES, patience=PATIENCE, metrics=Metrics(), local=local)
    return app


@contextmanager
def watched(folder: Path, port: int) -> Iterator[str]:
    """Serve the page of a training run during the `with` block.

    Args:
        folder: The run's folder.
        port: Port of this machine; 0 for any that is free.

    Yields:
        The address of the page.

    Raises:
        OutputError: If the port is in use.
    """
    place = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        place.bind((HOST, port))
        place.listen()
    except OSError as error:
        place.close()
        what = f"the page cannot be served at port {port}: {error.strerror}."
        raise OutputError(Fault("--watch-port", what, "Give another port, or 0 for any that is free.")) from None
    log = logging.getLogger("anyrec.serving")
    level = log.level
    log.setLevel(logging.WARNING)  # the terminal shows the training, not the requests of its page
    watch = Watch()
    app = make_watch_app(folder.resolve(), watch, local=True)
    options = uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(options)
    thread = threading.Thread(target=server.run, args=([place],), daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{place.getsockname()[1]}"
    finally:
        watch.training = False
        until = time.monotonic() + LAST
        while time.monotonic() < until and server.server_state.connections:
            time.sleep(0.05)
        watch.stopping = server.should_exit = True
        thread.join()
        place.close()
        log.setLevel(level)
