"""The server under load: times of answers at a fixed rate, events per second, and the cost of HTTP.

    python benchmarks/serving.py --model FOLDER [--seconds 60] [--rate 200] [--set pipeline=...]

The full pipeline: `anyrec train --data ml-1m --config benchmarks/serving_pipeline.json`, and `--rate 50`.

Starts `anyrec serve` on a free port with a log of events in a temporary folder, and sends requests from this process:

- lists of known users at a fixed rate (a request is sent when its time has come, whether or not others are answered),
- the same call in Python, and one request after another over HTTP: their difference is the cost of HTTP,
- batches of events, one after another, with fsync; and the time until the next list reflects one,
- lists at 100 requests per second, without and while the model is loaded again, in turn (`--only-reloads`).
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

import numpy as np
from common import argument_parser
from server import Client, running

from anyrec.core.config import ServingConfig
from anyrec.core.runtime import short_waits
from anyrec.data.ids import SIDES
from anyrec.recommender import Recommender
from anyrec.serving.live.query import Query
from anyrec.serving.live.service import Service

CONNECTIONS = 16
ROUNDS = 3
"""Times that lists are measured without and with reloads."""


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


def print_times(name: str, took: np.ndarray, failed: int = 0) -> None:
    p50, p99 = np.percentile(took, [50, 99])
    print(f"{name}: p50 {p50:.1f} ms, p99 {p99:.1f} ms, {len(took):,} requests, {failed} failed", flush=True)


def print_calls(recommender: Recommender, port: int, users: list) -> None:
    """Print what HTTP adds to a call in Python."""
    service = Service(recommender, ServingConfig())
    service.lists([Query(user_id=users[0])])
    in_python = []
    for user in users:
        begun = time.perf_counter()
        service.lists([Query(user_id=user)])
        in_python.append(1000 * (time.perf_counter() - begun))
    over_http = asyncio.run(one_by_one(port, "/v1/recommend", [{"user_id": user} for user in users]))
    print(f"one by one: HTTP {np.median(over_http):.2f} ms, Python {np.median(in_python):.2f} ms")


def print_events(port: int, users: list, items: list) -> None:
    """Print how many events per second are received, and when a list reflects one."""
    batches = [
        {"events": [{"event_id": f"{n}-{m}", "user_id": users[m], "item_id": items[m]} for m in range(100)]}
        for n in range(100)
    ]
    took = asyncio.run(one_by_one(port, "/v1/events", batches))
    print(f"events: {10_000 / took.sum() * 1000:,.0f}/s in batches of 100, each on the disk")
    print_times("event to list", np.array([asyncio.run(reflects(port, user)) for user in users[:50]]))


def print_reloads(port: int, bodies: list[dict]) -> None:
    """Print the times of lists without and with reloads, in turn."""
    for _ in range(ROUNDS):
        print_times("lists at 100/s", *asyncio.run(at_rate(port, bodies, 100)))
        print_times("while reloading", *asyncio.run(while_reloading(port, bodies)))


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of a run")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rate", type=float, default=200, help="requests per second")
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="change of the model's config")
    parser.add_argument("--only-reloads", action="store_true", help="measure the last point alone")
    arguments = parser.parse_args()
    recommender = Recommender.load(arguments.model)
    users, items = (recommender.dataset.ids(side).to_pylist() for side in SIDES)
    count = int(arguments.rate * arguments.seconds)
    drawn = [users[n] for n in np.random.default_rng(0).integers(0, len(users), max(count, 1000))]
    bodies = [{"user_id": user} for user in drawn]
    with (
        short_waits(),  # a garbage collection of the client takes 0.3 s, which would count as time of the server
        tempfile.TemporaryDirectory() as folder,
        running(arguments.model, Path(folder) / "events", arguments.overrides) as server,
    ):
        print(f"ready after {server.ready:.1f} s")
        asyncio.run(at_rate(server.port, bodies[:200], 100))
        if not arguments.only_reloads:
            took = asyncio.run(at_rate(server.port, bodies[:count], arguments.rate))
            print_times(f"lists at {arguments.rate:g}/s", *took)
            print_calls(recommender, server.port, drawn[:500])
            print_events(server.port, drawn, items)
        print_reloads(server.port, bodies[:1000])


if __name__ == "__main__":
    main()
