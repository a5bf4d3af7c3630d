"""Run the trials of a study on the workers of a Ray cluster."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anyrec.core.config import ClusterConfig
from anyrec.core.ray_cluster import like_the_driver, ray_workers, resources
from anyrec.core.types import Json
from anyrec.study.trials import StudySetup
from anyrec.study.workers import Message, serve


class _Worker:
    """An actor that runs trials in a thread of its own, and passes messages meanwhile.

    Args:
        setup: What the trials share.
        folder: Working directory of the process of the study.
        cpus: Cores that the worker may use.
    """

    def __init__(self, setup: StudySetup, folder: str, cpus: int):
        like_the_driver(folder, cpus)
        self._tasks: queue.Queue[Json] = queue.Queue()
        self._messages: queue.Queue[Json] = queue.Queue()
        threading.Thread(target=serve, args=(setup, self._tasks.get, self._messages.put), daemon=True).start()

    def send(self, message: object) -> None:
        """Take a task, or the answer to an epoch."""
        self._tasks.put(message)

    def receive(self) -> Message:
        """Wait for the next message of the trial."""
        return self._messages.get()


class RayPool:
    """The workers of a Ray cluster, as a `Pool`.

    Args:
        setup: What the trials share. It is sent to the cluster once.
        cluster: The section `cluster`.
        workers: Number of workers.
    """

    def __init__(self, setup: StudySetup, cluster: ClusterConfig, workers: int):
        import ray

        self._cluster, self._setup = cluster, ray.put(setup)
        self._actors = [self._started() for _ in range(workers)]
        self._waiting: dict[Json, int] = {}

    def _started(self) -> Json:
        import ray

        takes = resources(self._cluster)
        options = {"num_cpus": takes["CPU"], "num_gpus": takes.get("GPU", 0), "max_concurrency": 2}
        return ray.remote(_Worker).options(**options).remote(self._setup, str(Path.cwd()), self._cluster.cpus)

    def send(self, worker: int, message: object) -> None:
        """As for `Pool`."""
        self._actors[worker].send.remote(message)

    def receive(self) -> tuple[int, Message | None]:
        """As for `Pool`."""
        import ray

        for worker, actor in enumerate(self._actors):
            if worker not in self._waiting.values():
                self._waiting[actor.receive.remote()] = worker
        (ready,), _ = ray.wait(list(self._waiting), num_returns=1)
        worker = self._waiting.pop(ready)
        try:
            return worker, ray.get(ready)
        except ray.exceptions.RayError:
            return worker, None

    def restart(self, worker: int) -> None:
        """As for `Pool`."""
        self._actors[worker] = self._started()

    def close(self) -> None:
        """End the workers."""
        import ray

        for actor in self._actors:
            ray.kill(actor)


@contextmanager
def ray_pool(setup: StudySetup, cluster: ClusterConfig) -> Iterator[tuple[RayPool, int]]:
    """Join or start a cluster within the block, and return its workers and their number.

    Raises:
        ConfigError: If no cluster answers, or it lacks the resources.
        MissingDependency: If Ray is not installed.
    """
    with ray_workers(cluster) as workers:
        pool = RayPool(setup, cluster, workers)
        try:
            yield pool, workers
        finally:
            pool.close()
