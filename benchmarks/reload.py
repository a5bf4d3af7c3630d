"""How long a reload of the model delays requests, in processor time of the loading thread: also on a busy machine.

    OMP_NUM_THREADS=1 python benchmarks/reload.py --model FOLDER [--seconds 10] [--plain]

Asks for lists at 100 per second in this process, while a thread loads the model again and again, with 0.2 s between. A
request is delayed by at most the processor time that the loading thread takes while the request waits, which other
processes do not change, unlike the time on the clock. `--plain` leaves out the settings of the server's process and of
the loading thread (`anyrec.core.runtime`).
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path

import numpy as np
from common import argument_parser

from anyrec.core.config import ServingConfig
from anyrec.core.runtime import SWITCH, short_waits
from anyrec.recommender import Recommender
from anyrec.serving.http.app import make_app
from anyrec.serving.http.host import Host
from anyrec.serving.http.messages import Recommend
from anyrec.serving.live.service import Service

RATE = 100
"""Requests per second."""


class Reloads(threading.Thread):
    """Loads a model again and again until it is stopped."""

    def __init__(self, service: Service, folder: Path):
        super().__init__(daemon=True)
        self.service, self.folder = service, folder
        self.stopped, self.seconds = threading.Event(), []

    def run(self) -> None:
        while not self.stopped.wait(0.2):
            started = time.thread_time()
            self.service.reload(self.folder)
            self.seconds.append(time.thread_time() - started)

    def cpu(self) -> float:
        """Return the processor seconds of this thread."""
        assert self.ident is not None
        return time.clock_gettime(time.pthread_getcpuclockid(self.ident))


async def delays(host: Host, users: list, reloads: Reloads, seconds: float) -> np.ndarray:
    """Return (requests,) milliseconds that the loading thread took during each request for a list."""
    for user in users[:50]:
        await host.list_of(Recommend(user_id=user))
    reloads.start()
    started, found = time.perf_counter(), np.zeros(int(RATE * seconds))

    async def one(n: int) -> None:
        await asyncio.sleep(max(0.0, started + n / RATE - time.perf_counter()))
        before = reloads.cpu()
        await host.list_of(Recommend(user_id=users[n % len(users)]))
        found[n] = 1000 * (reloads.cpu() - before)

    await asyncio.gather(*(one(n) for n in range(len(found))))
    return found


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of a run")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--plain", action="store_true", help="without the settings of the server's process")
    arguments = parser.parse_args()
    if arguments.plain:
        os.environ[SWITCH] = "0"
    service = Service(Recommender.load(arguments.model), ServingConfig())
    host = make_app(service).state.host
    users = service.served.recommender.dataset.ids("user").to_pylist()
    reloads = Reloads(service, arguments.model)
    with short_waits():
        found = asyncio.run(delays(host, users, reloads, arguments.seconds))
        reloads.stopped.set()
        reloads.join()
    p50, p90, p99 = np.percentile(found, [50, 90, 99])
    took = f"{len(reloads.seconds)} reloads of {np.mean(reloads.seconds):.2f} s"
    print(f"{len(found):,} lists, {took}: delay p50 {p50:.1f} ms, p90 {p90:.1f} ms, p99 {p99:.1f} ms")
    host.close()


if __name__ == "__main__":
    main()
