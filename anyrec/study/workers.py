"""Run the trials of a study: one after another in this process, or at the same time in other processes (or on Ray).

Workers only train. The process of the study starts each trial, answers each epoch and alone writes the journal.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Protocol, TypeAlias

from anyrec.core.types import Json, JsonObject
from anyrec.study.trials import Outcome, StudySetup, Task, TrialRunner

Message: TypeAlias = tuple[str, Json]
"""What a worker sends: ("epoch", entry of metrics.jsonl) or ("done", outcome)."""
LOST = Outcome("failed", problem="its process ended")


class Driver(Protocol):
    """What runs the study."""

    def next_task(self) -> Task | None:
        """Return the next trial; None if there is none."""
        ...

    def on_epoch(self, number: int, entry: JsonObject) -> bool:
        """Record an epoch of a trial, and return whether the trial ends there."""
        ...

    def on_done(self, number: int, outcome: Outcome) -> None:
        """Record the end of a trial."""
        ...


class Pool(Protocol):
    """Workers by number, which exchange messages with this process."""

    def send(self, worker: int, message: object) -> None:
        """Send a task, or the answer to an epoch."""
        ...

    def receive(self) -> tuple[int, Message | None]:
        """Wait for the next message of any worker: ("epoch", entry) or ("done", outcome); None if it died."""
        ...

    def restart(self, worker: int) -> None:
        """Replace a worker that died."""
        ...


def run_here(driver: Driver, runner: TrialRunner) -> None:
    """Run the trials one after another in this process."""
    while (task := driver.next_task()) is not None:
        driver.on_done(task.number, runner.run(task, partial(driver.on_epoch, task.number)))


def run_on(driver: Driver, pool: Pool, workers: int) -> None:
    """Run the trials on the workers of a pool."""
    running: dict[int, Task] = {}

    def assign(worker: int) -> None:
        task = driver.next_task()
        if task is not None:
            running[worker] = task
            pool.send(worker, task)

    for worker in range(workers):
        assign(worker)
    while running:
        worker, message = pool.receive()
        if message is None:
            pool.restart(worker)
        if worker not in running:
            continue
        number = running[worker].number
        if message is not None and message[0] == "epoch":
            pool.send(worker, driver.on_epoch(number, message[1]))
            continue
        del running[worker]
        driver.on_done(number, LOST if message is None else message[1])
        assign(worker)


class Processes:
    """Processes of this machine, which share its cores. They end with this process, also if it is killed.

    Args:
        setup: What the trials share.
        workers: Number of processes.
    """

    def __init__(self, setup: StudySetup, workers: int):
        self._setup = setup
        self._threads = max(1, (os.cpu_count() or 1) // workers)
        self._workers: list[tuple[BaseProcess, Connection]] = [self._started() for _ in range(workers)]

    def _started(self) -> tuple[BaseProcess, Connection]:
        context = get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(there, self._setup, self._threads), daemon=True)
        process.start()
        there.close()
        return process, here

    def send(self, worker: int, message: object) -> None:
        """As for `Pool`. A worker that died is noticed by `receive`."""
        with suppress(OSError):
            self._workers[worker][1].send(message)

    def receive(self) -> tuple[int, Message | None]:
        """As for `Pool`."""
        ends = {connection: number for number, (_, connection) in enumerate(self._workers)}
        ready = wait(list(ends))[0]
        assert isinstance(ready, Connection)
        try:
            return ends[ready], ready.recv()
        except (EOFError, OSError):
            return ends[ready], None

    def restart(self, worker: int) -> None:
        """As for `Pool`."""
        self._workers[worker][1].close()
        self._workers[worker] = self._started()

    def close(self) -> None:
        """End all processes."""
        for process, connection in self._workers:
            connection.close()
            process.terminate()
            process.join()


@contextmanager
def processes(setup: StudySetup, workers: int) -> Iterator[Processes]:
    """Start processes, and end them with the block."""
    pool = Processes(setup, workers)
    try:
        yield pool
    finally:
        pool.close()


def _serve(connection: Connection, setup: StudySetup, threads: int) -> None:
    """Run tasks in a process of its own until the connection is closed."""
    import torch

    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    with suppress(EOFError, OSError, KeyboardInterrupt):
        serve(setup, connection.recv, connection.send)


def serve(setup: StudySetup, receive: Callable[[], Json], send: Callable[[Message], object]) -> None:
    """Run tasks one after another, without an end.

    Args:
        setup: What the trials share.
        receive: Waits for a task, or for the answer to an epoch.
        send: Sends ("epoch", entry) or ("done", outcome).
    """
    runner = TrialRunner(setup)

    def report(entry: JsonObject) -> bool:
        send(("epoch", entry))
        return receive()

    while True:
        send(("done", runner.run(receive(), report)))


def _end_with_parent() -> None:
    """End this process when the one that started it ends: a killed study must not go on training."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        signal.raise_signal(signal.SIGTERM)
