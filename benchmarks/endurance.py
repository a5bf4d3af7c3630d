"""A server over a long time: its memory, its start with a long log, and events that survive kill -9.

    OMP_NUM_THREADS=1 python benchmarks/endurance.py memory --model FOLDER [--requests 200000] [--events 200000]
    OMP_NUM_THREADS=1 python benchmarks/endurance.py kill --model FOLDER [--times 50]
    OMP_NUM_THREADS=1 python benchmarks/endurance.py start --model FOLDER [--events 200000] [--puts 5000]
    OMP_NUM_THREADS=1 python benchmarks/endurance.py texts --model FOLDER [--puts 200]

`memory` prints the resident memory of the server while it answers requests for lists, as fast as it can, then while it
receives events in batches of 100, and then while it answers as many requests again. The events are data: their ids are
kept so that an event counts once, and the latest of each user are in the user's history.

`start` prints the seconds, and the processor seconds of the server, from its start until it answers: with an empty log,
with a log of events, and with changes of as many items and as many users as well, each in a request of its own.

`texts` prints the times of lists at 20 per second, alone and while a request puts as many items with texts of 300
words, of known users and of persons with such a text. The model should read texts by a language model; it is trusted
(`--trust-plugins`), since its config may name the folder of one.

`kill` sends batches of events one after another, kills the server by SIGKILL at a random moment, starts it again and
sends the batch that was not acknowledged once more, and so on. At the end the log must contain each event that was
acknowledged, and no event twice. Ends with status 1 if not.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
from common import argument_parser
from server import Client, Server, running
from serving import CONNECTIONS, at_rate, print_times

from anyrec.data.dataset import Dataset
from anyrec.data.ids import SIDES, Side
from anyrec.recommender import Recommender
from anyrec.serving.live.event_log import EventLog, read_events

RATE = 20
"""Lists per second while texts are put."""
SENTENCE = "a light shoe for long walks in rain and snow with a soft sole that holds on wet stones and dries fast"
BATCH = 100
"""Events of one request."""
WRITING = 0.4
"""The longest time in seconds that the server receives events before it is killed."""


def main() -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("what", choices=("memory", "kill", "start", "texts"))
    parser.add_argument("--model", type=Path, required=True, help="folder of a run")
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--puts", type=int, help="by default 5,000, and 200 for texts")
    parser.add_argument("--times", type=int, default=50, help="how often the server is killed")
    arguments = parser.parse_args()
    dataset = Recommender.load(arguments.model, trust_plugins=True).dataset
    users, items = dataset.ids("user").to_pylist(), dataset.ids("item").to_pylist()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.what == "kill":
            return kill(arguments.model, Path(folder), users, items, arguments.times)
        if arguments.what == "start":
            start(arguments.model, Path(folder), users, items, arguments.events, arguments.puts or 5000)
            return 0
        with running(arguments.model, Path(folder), trust=arguments.what == "texts") as server:
            if arguments.what == "texts":
                asyncio.run(put_texts(server, dataset, arguments.puts or 200))
                return 0
            asyncio.run(grow(server, users, items, arguments.requests, arguments.events))
    return 0


async def grow(server: Server, users: list, items: list, requests: int, events: int) -> None:
    """Print the memory of a server while it answers requests, receives events, and answers again."""

    async def lists(n: int, client: Client) -> None:
        status, _ = await client.send("/v1/recommend", {"user_id": users[n % len(users)]})
        assert status == 200

    async def batch(n: int, client: Client) -> None:
        own = [
            {"event_id": f"event-{n}-{m}", "user_id": users[(n + m) % len(users)], "item_id": items[m % len(items)]}
            for m in range(BATCH)
        ]
        status, _ = await client.send("/v1/events", {"events": own})
        assert status == 200

    await send(server.port, 2 * CONNECTIONS * 100, lists)
    for name, count, one in (
        ("requests", requests, lists),
        ("events", events // BATCH, batch),
        ("requests", requests, lists),
    ):
        before = resident(server.process)
        print(f"{name}: {before:.1f} MiB before", flush=True)
        for part in range(1, 6):
            await send(server.port, count // 5, one, count // 5 * (part - 1))
            each = BATCH if one is batch else 1
            print(f"  after {count // 5 * part * each:,}: {resident(server.process) - before:+.1f} MiB", flush=True)


async def send(port: int, count: int, one: Callable[[int, Client], Awaitable[None]], first: int = 0) -> None:
    """Send requests over several connections as fast as they are answered."""
    numbers: Iterator[int] = iter(range(first, first + count))

    async def work(client: Client) -> None:
        for n in numbers:
            await one(n, client)

    await asyncio.gather(*(work(Client(port)) for _ in range(CONNECTIONS)))


def start(model: Path, folder: Path, users: list, items: list, events: int, puts: int) -> None:
    """Print how long a server takes to start with logs of some lengths."""

    def print_start(what: str) -> None:
        with running(model, folder) as server:
            spent = sum(
                map(int, Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()[11:13])
            )
            used = resident(server.process)
        seconds = spent / os.sysconf("SC_CLK_TCK")
        print(
            f"{what}: ready after {server.ready:.1f} s, {seconds:.1f} s of processor time, {used:.0f} MiB", flush=True
        )

    print_start("empty log")
    names = [*users, *(f"user{n}" for n in range(len(users)))] if isinstance(users[0], str) else users
    with closing(EventLog(folder, "never")) as log:
        for first in range(0, events, 1000):
            numbers = range(first, min(events, first + 1000))
            log.append([event(f"event-{n}", names[n * 7 % len(names)], items[n * 13 % len(items)]) for n in numbers])
    print_start(f"{events:,} events")
    new = itertools.count(10**9) if isinstance(items[0], int) else map("new{}".format, itertools.count())
    with closing(EventLog(folder / "records", "never")) as log:
        for one in itertools.islice(new, puts):
            log.append([{"items": [[one, {"text": {"title": f"Item {one}"}}]]}, {"users": [[one, {}]]}])
    print_start(f"{events:,} events, {puts:,} items and {puts:,} users")


def event(event_id: str, user: object, item: object) -> dict:
    """Return an event as the log has it."""
    return {"event_id": event_id, "user_id": user, "item_id": item, "timestamp": 1.7e9, "received": 1.7e9}


async def put_texts(server: Server, dataset: Dataset, puts: int) -> None:
    """Print the times of lists alone, and while items with long texts are put."""
    features = {side: next(one for one in dataset.features(side) if one.startswith("text.")) for side in SIDES}
    drawn = random.Random(0)

    def record(side: Side) -> dict:
        return {"text": {features[side].partition(".")[2]: " ".join(drawn.choices(SENTENCE.split(), k=300))}}

    users = dataset.ids("user").to_pylist()
    known = [{"user_id": drawn.choice(users)} for _ in range(RATE * 5)]
    persons = [{"user": record("user")} for _ in range(RATE * 5)]
    first = 10**9 if isinstance(users[0], int) else "new"
    for n, (name, bodies) in enumerate((("known users", known), ("persons with texts", persons))):
        print_times(name, *await at_rate(server.port, bodies, RATE))
        ids = [first + n * puts + m if isinstance(first, int) else f"{first}-{n}-{m}" for m in range(puts)]
        items = [{"item_id": one, **record("item")} for one in ids]
        begun = time.perf_counter()
        put = asyncio.create_task(Client(server.port).send("/v1/items", {"items": items}, "PUT"))
        times = []
        while not put.done():
            times.append(await at_rate(server.port, bodies[: RATE * 2], RATE))
        status, answer = await put
        assert status == 200, answer
        took, failed = np.concatenate([one for one, _ in times]), sum(one for _, one in times)
        print_times(f"{name}, while {puts} items are put in {time.perf_counter() - begun:.1f} s", took, failed)
        print(f"  longest {took.max():.0f} ms", flush=True)


def kill(model: Path, folder: Path, users: list, items: list, times: int) -> int:
    """Kill a server that receives events. Returns the exit status."""
    drawn, acknowledged, number, again = random.Random(0), 0, 0, 0
    for _ in range(times):
        with running(model, folder) as server:
            number, own, retried = asyncio.run(write_until_killed(server, users, items, number, drawn))
        acknowledged, again = acknowledged + own, again + retried
    ids = [event["event_id"] for event in read_events(folder)]
    lost = set(range(number * BATCH)) - {int(one.split("-")[1]) for one in ids}
    twice = len(ids) - len(set(ids))
    print(
        f"killed {times} times: {acknowledged:,} events acknowledged, {again:,} of them only when sent again, as the "
        f"first answer was cut off; {len(lost)} lost, {twice} twice"
    )
    return int(bool(lost or twice))


async def write_until_killed(
    server: Server, users: list, items: list, number: int, drawn: random.Random
) -> tuple[int, int, int]:
    """Send batches from `number` on until the server is killed.

    Returns:
        The number of the first batch that was not acknowledged, which is to be sent again; how many events were
        acknowledged; and how many of them were in the log already.
    """
    client, acknowledged, duplicates = Client(server.port), 0, 0
    asyncio.get_running_loop().call_later(drawn.random() * WRITING, server.process.kill)
    while True:
        own = [
            {"event_id": f"event-{number * BATCH + m}", "user_id": users[m % len(users)], "item_id": items[0]}
            for m in range(BATCH)
        ]
        try:
            status, answer = await client.send("/v1/events", {"events": own})
        except (OSError, asyncio.IncompleteReadError):
            return number, acknowledged, duplicates
        assert status == 200, answer
        acknowledged, duplicates, number = acknowledged + BATCH, duplicates + answer["duplicates"], number + 1


def resident(process: subprocess.Popen) -> float:
    """Return the resident memory of a process in MiB."""
    text = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", text)
    assert found is not None
    return int(found[1]) / 1024


if __name__ == "__main__":
    sys.exit(main())
