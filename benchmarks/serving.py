"""The server under load: times of answers at a fixed rate, events per second, and the cost of HTTP.

    python benchmarks/serving.py --model FOLDER [--seconds 60] [--rate 200] [--set pipeline=...]

The full pipeline: `anyrec train --data ml-1m --config benchmarks/serving_pipeline.json`, and `--rate 50`.

Starts `anyrec serve` on a free port with a log of events in a temporary folder, and sends requests from this process:

- lists of known users at a fixed rate (a request is sent when its time has come, whether or not others are answered),
- the same call in Python, and one request after another over HTTP: their difference is the cost of HTTP,
- batches of events, one after another, with fsync; and the time until the next list reflects one,
- lists at 100 requests per second while the model is loaded again.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import argument_parser

from anyrec.core.config import ServingConfig
from anyrec.recommender import Recommender
from anyrec.serving.live.query import Query
from anyrec.serving.live.service import Service

CONNECTIONS = 16


class Client:
    """One connection that is kept open."""

    def __init__(self, port: int):
        self.port = port
        self.busy = asyncio.Lock()
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, path: str, body: dict) -> tuple[int, dict]:
        """Send a request, and return the status and the document of the answer."""
        async with self.busy:
            if self.streams is None:
                self.streams = await asyncio.open_connection("127.0.0.1", self.port)
            reader, writer = self.streams
            data = json.dumps(body).encode()
            kind = f"content-type: application/json\r\ncontent-length: {len(data)}"
            writer.write(f"POST {path} HTTP/1.1\r\nhost: x\r\n{kind}\r\n\r\n".encode() + data)
            header = await reader.readuntil(b"\r\n\r\n")
            lines = header.lower().split(b"\r\n")
            length = next(int(line[15:]) for line in lines if line.startswith(b"content-length"))
            return int(header[9:12]), json.loads(await reader.readexactly(length))


async def at_rate(port: int, bodies: list[dict], rate: float) -> tuple[np.ndarray, int]:
    """Send requests for lists at a fixed rate; return (requests,) milliseconds from their time on, and the failures."""
    clients, started = [Client(port) for _ in range(CONNECTIONS)], time.perf_counter()
    took, failed = np.zeros(len(bodies)), 0

    async def one(n: int) -> None:
        nonlocal failed
        due = started + n / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        status, _ = await clients[n % CONNECTIONS].send("/v1/recommend", bodies[n])
        took[n] = 1000 * (time.perf_counter() - due)
        failed += status != 200

    await asyncio.gather(*(one(n) for n in range(len(bodies))))
    return took, failed


async def one_by_one(port: int, path: str, bodies: list[dict]) -> np.ndarray:
    """Send requests one after another; return (requests,) milliseconds of each."""
    client, took = Client(port), []
    for body in bodies:
        started = time.perf_counter()
        status, document = await client.send(path, body)
        assert status == 200, document
        took.append(1000 * (time.perf_counter() - started))
    return np.array(took)


async def reflects(port: int, user: object) -> float:
    """Return the milliseconds from sending an event until a list without its item is there."""
    client = Client(port)
    _, before = await client.send("/v1/recommend", {"user_id": user})
    item = before["items"][0]["item_id"]
    started = time.perf_counter()
    event = {"event_id": f"reflects-{user}", "user_id": user, "item_id": item}
    await client.send("/v1/events", {"events": [event]})
    _, after = await client.send("/v1/recommend", {"user_id": user})
    assert item not in [one["item_id"] for one in after["items"]]
    return 1000 * (time.perf_counter() - started)


async def while_reloading(port: int, bodies: list[dict]) -> tuple[np.ndarray, int]:
    """As `at_rate` at 100 requests per second, while the model is loaded again once a second."""

    async def reload() -> None:
        client = Client(port)
        while True:
            await client.send("/v1/reload", {})
            await asyncio.sleep(1)

    task = asyncio.create_task(reload())
    try:
        return await at_rate(port, bodies, 100)
    finally:
        task.cancel()


def started(model: Path, events: Path, overrides: list[str]) -> tuple[subprocess.Popen, int, float]:
    """Start a server; return it, its port and the seconds until it is ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    changes = [word for one in overrides for word in ("--set", one)]
    command = [sys.executable, "-m", "anyrec", "serve", "--model_path", str(model), "--port", str(port)]
    begun = time.perf_counter()
    process = subprocess.Popen([*command, "--events", str(events), *changes], stderr=subprocess.DEVNULL)
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 0.1).close()
            return process, port, time.perf_counter() - begun
        except OSError:
            assert process.poll() is None, "the server ended"
            time.sleep(0.05)


def print_times(name: str, took: np.ndarray, failed: int = 0) -> None:
    p50, p99 = np.percentile(took, [50, 99])
    print(f"{name}: p50 {p50:.1f} ms, p99 {p99:.1f} ms, {len(took):,} requests, {failed} failed", flush=True)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of a run")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rate", type=float, default=200, help="requests per second")
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="change of the model's config")
    arguments = parser.parse_args()
    recommender = Recommender.load(arguments.model)
    users = recommender.dataset.ids("user").to_pylist()
    drawn = [
        users[n] for n in np.random.default_rng(0).integers(0, len(users), int(arguments.rate * arguments.seconds))
    ]
    bodies = [{"user_id": user} for user in drawn]
    with tempfile.TemporaryDirectory() as folder:
        process, port, ready = started(arguments.model, Path(folder) / "events", arguments.overrides)
        try:
            print(f"ready after {ready:.1f} s")
            asyncio.run(at_rate(port, bodies[:200], 100))
            print_times(f"lists at {arguments.rate:g}/s", *asyncio.run(at_rate(port, bodies, arguments.rate)))
            service = Service(recommender, ServingConfig())
            service.lists([Query(user_id=drawn[0])])
            in_python = []
            for user in drawn[:500]:
                begun = time.perf_counter()
                service.lists([Query(user_id=user)])
                in_python.append(1000 * (time.perf_counter() - begun))
            over_http = asyncio.run(one_by_one(port, "/v1/recommend", bodies[:500]))
            print(f"one by one: HTTP {np.median(over_http):.2f} ms, Python {np.median(in_python):.2f} ms")
            items = recommender.dataset.ids("item").to_pylist()
            batches = [
                {"events": [{"event_id": f"{n}-{m}", "user_id": drawn[m], "item_id": items[m]} for m in range(100)]}
                for n in range(100)
            ]
            took = asyncio.run(one_by_one(port, "/v1/events", batches))
            print(f"events: {10_000 / took.sum() * 1000:,.0f}/s in batches of 100, each on the disk")
            print_times("event to list", np.array([asyncio.run(reflects(port, user)) for user in users[:50]]))
            print_times("lists at 100/s", *asyncio.run(at_rate(port, bodies[:1000], 100)))
            print_times("while reloading", *asyncio.run(while_reloading(port, bodies[:1000])))
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()
