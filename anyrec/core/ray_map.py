"""Work that is divided over the workers of a Ray cluster by Ray Data; the results come back in order."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from anyrec.core.config import ClusterConfig
from anyrec.core.errors import AnyrecError
from anyrec.core.ray_cluster import last_line, like_the_driver, ray_workers, resources

State = TypeVar("State")
Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True)
class _Outcome:
    """The result of a job, or the error that it raised."""

    result: Any = None
    error: Exception | None = None


def map_in_order(
    config: ClusterConfig,
    prepare: Callable[[], State],
    work: Callable[[State, Job], Result],
    jobs: Callable[[int], Sequence[Job]],
) -> Generator[Result]:
    """Yield the result of each job, in the order of the jobs, as soon as it and those before it are done.

    A worker that dies is replaced, and its jobs are done again. Only the results that wait for earlier ones are held,
    in the memory that the workers share.

    Args:
        config: The section `cluster`, with `type: ray`.
        prepare: Called once by each worker; a function that can be pickled, as can `work` and the jobs.
        work: Called with what `prepare` returned, and a job.
        jobs: Called with the number of workers.

    Raises:
        AnyrecError: As `prepare` and `work` raise it, and as `ray_workers` does.
    """
    with ray_workers(config) as workers:
        import ray.data

        for name in ("ray.data", "ray.train"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        listed = jobs(workers)
        if not listed:
            return
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        rows = ray.data.from_items([{"job": n} for n in range(len(listed))], override_num_blocks=len(listed))
        size = min(workers, len(listed))
        done = rows.map_batches(
            _Worker,
            fn_constructor_args=(prepare, work, listed, str(Path.cwd()), config.cpus),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=size),
            num_cpus=resources(config)["CPU"],
            num_gpus=resources(config).get("GPU"),
        )
        batches: Iterator[Any] = iter(done.iter_batches(batch_size=None, prefetch_batches=0))
        while (batch := _next(batches)) is not None:
            for outcome in batch["outcome"]:
                if outcome.error is not None:
                    raise outcome.error
                yield outcome.result


def _next(batches: Iterator[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the next batch; None at the end. Raises AnyrecError if Ray could not compute it."""
    try:
        return next(batches, None)
    except Exception as error:
        if os.environ.get("ANYREC_DEBUG"):
            raise
        raise AnyrecError(f"the workers of the cluster failed: {last_line(error)} ANYREC_DEBUG=1 shows more.") from None


class _Worker(Generic[State, Job, Result]):
    """One process. It prepares itself at its first job, so that an error of that is a result like any other."""

    def __init__(
        self,
        prepare: Callable[[], State],
        work: Callable[[State, Job], Result],
        jobs: Sequence[Job],
        folder: str,
        cpus: int,
    ):
        self.prepare, self.work, self.jobs = prepare, work, jobs
        self.state: list[State] = []
        like_the_driver(folder, cpus)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[_Outcome]]:
        """Do the jobs of a batch: {"job": their numbers}."""
        return {"outcome": [self._attempt(self.jobs[int(n)]) for n in batch["job"]]}

    def _attempt(self, job: Job) -> _Outcome:
        try:
            if not self.state:
                self.state.append(self.prepare())
            return _Outcome(self.work(self.state[0], job))
        except AnyrecError as error:
            return _Outcome(error=error)
        except Exception as error:
            if os.environ.get("ANYREC_DEBUG"):
                raise
            return _Outcome(error=RuntimeError(f"{type(error).__name__} in a worker: {error}"))
