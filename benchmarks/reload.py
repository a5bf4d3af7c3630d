"""How long a change of the model delays requests, in processor time of its threads: also on a busy machine.

    OMP_NUM_THREADS=1 python benchmarks/reload.py --model FOLDER [--seconds 10] [--plain]
    OMP_NUM_THREADS=1 python benchmarks/reload.py --model FOLDER --items 1000

Asks for lists at 100 per second in this process, while a thread loads the model again and again, with 0.2 s between;
or, with `--items`, while that many new items are put twice a second. A request is delayed by at most the processor time
that the changing threads, and the event loop for the change, take while the request waits. Other processes do not
change it, unlike the time on the clock. `--plain` leaves out the settings of the server's process and of the changing
threads (`anyrec.core.runtime`).
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
from common import argument_parser

from anyrec.core.config import ServingConfig
from anyrec.core.runtime import SWITCH, short_waits
from anyrec.recommender import Recommender
from anyrec.serving.http.app import make_app
from anyrec.serving.http.host import Host
from anyrec.serving.http.messages import PutItems, Recommend
from anyrec.serving.http.records import put_items
from anyrec.serving.live.service import Service

RATE = 100
"""Requests per second."""
TITLE = "A new item of the season, which a shop describes in a sentence or two, as shops do; number"


class Changes:
    """Makes changes again and again until it is cancelled, and counts the processor time that they take.

    Args:
        change: Makes one change.
        pause: Seconds between two changes.
    """

    def __init__(self, change: Callable[[], Awaitable[object]], pause: float):
        self.change, self.pause, self.count, self.loop_seconds = change, pause, 0, 0.0

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self.pause)
            await _Counted(self.change(), self)
            self.count += 1

    def cpu(self) -> float:
        """Return the processor seconds of the changes: of their threads, and of the event loop."""
        threads = [one for one in threading.enumerate() if one.name.startswith("write") and one.ident is not None]
        return self.loop_seconds + sum(time.clock_gettime(time.pthread_getcpuclockid(one.ident)) for one in threads)


class _Counted:
    """Awaits something, and adds the processor time that the event loop takes for it."""

    def __init__(self, awaited: Awaitable[object], changes: Changes):
        self.steps, self.changes = awaited.__await__(), changes

    def __await__(self):
        value = None
        while True:
            started = time.thread_time()
            try:
                waits_for = self.steps.send(value)
            except StopIteration as done:
                return done.value
            finally:
                self.changes.loop_seconds += time.thread_time() - started
            value = yield waits_for


async def delays(host: Host, users: list, changes: Changes, seconds: float) -> np.ndarray:
    """Return (requests,) milliseconds that the changes took during each request for a list."""
    for user in users[:50]:
        await host.list_of(Recommend(user_id=user))
    task = asyncio.create_task(changes.run())
    started, found = time.perf_counter(), np.zeros(int(RATE * seconds))

    async def one(n: int) -> None:
        await asyncio.sleep(max(0.0, started + n / RATE - time.perf_counter()))
        before = changes.cpu()
        await host.list_of(Recommend(user_id=users[n % len(users)]))
        found[n] = 1000 * (changes.cpu() - before)

    await asyncio.gather(*(one(n) for n in range(len(found))))
    task.cancel()
    return found


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of a run")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--items", type=int, help="put that many items instead of loading the model")
    parser.add_argument("--plain", action="store_true", help="without the settings of the server's process")
    arguments = parser.parse_args()
    if arguments.plain:
        os.environ[SWITCH] = "0"
    service = Service(Recommender.load(arguments.model), ServingConfig())
    host = make_app(service).state.host
    dataset = service.served.recommender.dataset
    first = 10**9 if isinstance(dataset.ids("item")[0].as_py(), int) else "new"

    def put() -> Awaitable[object]:
        numbers = range(changes.count * arguments.items, (changes.count + 1) * arguments.items)
        names = [first + n if isinstance(first, int) else f"{first}{n}" for n in numbers]
        records = [{"item_id": one, "text": {"title": f"{TITLE} {one}"}, "categorical": {}} for one in names]
        return put_items(PutItems.model_validate({"items": records}), host)

    def reload() -> Awaitable[object]:
        return host.write(service.reload, arguments.model)

    changes = Changes(put, 0.5) if arguments.items else Changes(reload, 0.2)
    with short_waits():
        found = asyncio.run(delays(host, dataset.ids("user").to_pylist(), changes, arguments.seconds))
    p50, p90, p99 = np.percentile(found, [50, 90, 99])
    took = f"{changes.count} changes of {changes.cpu() / max(1, changes.count):.2f} s"
    in_loop = f"{1000 * changes.loop_seconds / max(1, changes.count):.1f} ms of it in the event loop"
    delay = f"p50 {p50:.1f} ms, p90 {p90:.1f} ms, p99 {p99:.1f} ms, at most {found.max():.1f} ms"
    print(f"{len(found):,} lists, {took}, {in_loop}: delay {delay}")
    host.close()


if __name__ == "__main__":
    main()
