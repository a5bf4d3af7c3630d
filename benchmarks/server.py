"""A server in a process of its own, and connections to it. Shared by the benchmarks."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

HOST = "127.0.0.1"


class Client:
    """One connection that is kept open."""

    def __init__(self, port: int):
        self.port = port
        self.busy = asyncio.Lock()
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, path: str, body: dict, method: str = "POST") -> tuple[int, dict]:
        """Send a request, and return the status and the document of the answer."""
        async with self.busy:
            if self.streams is None:
                self.streams = await asyncio.open_connection(HOST, self.port)
            reader, writer = self.streams
            data = json.dumps(body).encode()
            kind = f"content-type: application/json\r\ncontent-length: {len(data)}"
            writer.write(f"{method} {path} HTTP/1.1\r\nhost: {HOST}:{self.port}\r\n{kind}\r\n\r\n".encode() + data)
            header = await reader.readuntil(b"\r\n\r\n")
            lines = header.lower().split(b"\r\n")
            length = next(int(line[15:]) for line in lines if line.startswith(b"content-length"))
            return int(header[9:12]), json.loads(await reader.readexactly(length))


@dataclass(frozen=True)
class Server:
    """A server that runs. ready: seconds from the start of the process until it answered."""

    process: subprocess.Popen
    port: int
    ready: float


@contextmanager
def running(model: Path, events: Path, overrides: Sequence[str] = (), trust: bool = False) -> Iterator[Server]:
    """Yield a server that runs within the block.

    Args:
        model: Folder of a run.
        events: Folder of the log of events.
        overrides: Changes of the model's config, `key=value`.
        trust: Whether the model is trusted (`--trust-plugins`).
    """
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    changes = [word for one in overrides for word in ("--set", one)]
    command = [sys.executable, "-m", "anyrec", "serve", "--model_path", str(model), "--port", str(port)]
    command += ["--trust-plugins"] if trust else []
    begun = time.perf_counter()
    process = subprocess.Popen([*command, "--events", str(events), *changes], stderr=subprocess.DEVNULL)
    try:
        _wait_for(process, port)
        yield Server(process, port, time.perf_counter() - begun)
    finally:
        process.terminate()
        process.wait()


def _wait_for(process: subprocess.Popen, port: int) -> None:
    while True:
        try:
            urlopen(f"http://{HOST}:{port}/readyz", timeout=1).close()
            return
        except OSError:  # it does not listen yet, or its model is being loaded (status 503)
            assert process.poll() is None, "the server ended"
            time.sleep(0.05)
