"""The threads that run the model, and the requests that are scored together because they wait at the same time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")
T = TypeVar("T")


class Batcher(Generic[Asked, Answered]):
    """Runs blocking work in a fixed number of threads, so that the event loop stays free.

    Args:
        run: Answers several requests at once, each with its answer or its error.
        threads: Threads that run it.
        most: Most requests in one call.
    """

    def __init__(self, run: Callable[[list[Asked]], Sequence[Answered | Exception]], threads: int, most: int):
        self._run, self._most = run, most
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="model")
        self._waiting: deque[tuple[Asked, asyncio.Future[Answered]]] = deque()
        self._free = threads

    async def ask(self, request: Asked) -> Answered:
        """Return the answer to a request. Requests that wait when a thread gets free are answered together."""
        future: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        if self._free:
            self._free -= 1
            asyncio.get_running_loop().create_task(self._work())
        return await future

    async def call(self, function: Callable[..., T], *arguments: object) -> T:
        """Return what a function returns that one of the threads runs."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)

    def close(self) -> None:
        """Wait for the work that runs, and end the threads."""
        self._pool.shutdown(cancel_futures=True)

    async def _work(self) -> None:
        """Answer what waits until nothing does."""
        try:
            while self._waiting:
                taken = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
                taken = [one for one in taken if not one[1].done()]  # the client of the others is gone
                if taken:
                    await self._answer(taken)
        finally:
            self._free += 1

    async def _answer(self, taken: list[tuple[Asked, asyncio.Future[Answered]]]) -> None:
        try:
            answers = await self.call(self._run, [request for request, _ in taken])
        except Exception as error:
            answers = [error] * len(taken)
        for (_, future), answer in zip(taken, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
