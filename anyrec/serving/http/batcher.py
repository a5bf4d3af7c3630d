"""The threads that run the model, and the requests that are scored together because they wait at the same time."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from anyrec.core.time_limit import OutOfTime, check_time, until

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")
T = TypeVar("T")


@dataclass(frozen=True)
class _Waiting(Generic[Asked, Answered]):
    """A request that waits. ends: when nobody waits for it any more, by `time.monotonic`."""

    request: Asked
    ends: float
    future: asyncio.Future[Answered]


class Batcher(Generic[Asked, Answered]):
    """Runs blocking work in a fixed number of threads, so that the event loop stays free.

    Args:
        run: Answers several requests at once, each with its answer or its error.
        threads: Threads that run it.
        most: Most requests in one call.
        seconds: Time limit of each piece of work, from when it is given to the batcher.
    """

    def __init__(
        self,
        run: Callable[[list[Asked]], Sequence[Answered | Exception]],
        threads: int,
        most: int,
        seconds: float,
    ):
        self._run, self._most, self._seconds = run, most, seconds
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="model")
        self._waiting: deque[_Waiting[Asked, Answered]] = deque()
        self._free = threads

    async def ask(self, request: Asked) -> Answered:
        """Return the answer to a request. Requests that wait when a thread gets free are answered together.

        Raises:
            OutOfTime: After the time limit.
        """
        future: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(request, time.monotonic() + self._seconds, future))
        if self._free:
            self._free -= 1
            asyncio.get_running_loop().create_task(self._work())
        return await _in_time(future, self._seconds)

    async def call(self, function: Callable[..., T], *arguments: object) -> T:
        """Return what a function returns that one of the threads runs.

        Raises:
            OutOfTime: After the time limit. The function is then stopped where it looks at the time.
        """
        ends = time.monotonic() + self._seconds
        return await _in_time(self._submit(ends, function, *arguments), self._seconds)

    def close(self) -> None:
        """Wait for the work that runs, and end the threads."""
        self._pool.shutdown(cancel_futures=True)

    def _submit(self, ends: float, function: Callable[..., T], *arguments: object) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._pool, _stopped_at, ends, function, *arguments)

    async def _work(self) -> None:
        """Answer what waits until nothing does."""
        try:
            while self._waiting:
                taken = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
                taken = [one for one in taken if not one.future.done()]  # the client of the others is gone
                if taken:
                    await self._answer(taken)
        finally:
            self._free += 1

    async def _answer(self, taken: list[_Waiting[Asked, Answered]]) -> None:
        ends = max(one.ends for one in taken)
        try:
            answers = await self._submit(ends, self._run, [one.request for one in taken])
        except Exception as error:
            answers = [error] * len(taken)
        for future, answer in zip((one.future for one in taken), answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)


def _stopped_at(ends: float, function: Callable[..., T], *arguments: object) -> T:
    """Return what a function returns, which is stopped at a time by `time.monotonic`."""
    with until(ends):
        check_time()
        return function(*arguments)


async def _in_time(work: asyncio.Future[T], seconds: float) -> T:
    """Return the result of some work. Raises OutOfTime after some seconds, and cancels it if it has not begun."""
    try:
        return await asyncio.wait_for(work, seconds)
    except TimeoutError:
        raise OutOfTime(f"the model did not answer within {seconds:g} s") from None
