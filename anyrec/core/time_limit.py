"""A time limit for the work of one thread: long loops look at it and stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class OutOfTime(Exception):
    """The time of a request is over, so nobody waits for its answer."""


class _Limit(threading.local):
    ends: float | None = None


_limit = _Limit()


@contextmanager
def until(ends: float | None) -> Iterator[None]:
    """Stop the work of this thread within the block at a time.

    Args:
        ends: The time by `time.monotonic`; None for no limit, also within a block that has one: for values that later
            requests use again, which would otherwise never be complete.
    """
    outer, _limit.ends = _limit.ends, ends
    try:
        yield
    finally:
        _limit.ends = outer


def check_time() -> None:
    """Raise OutOfTime if the time of this thread's work is over. Loops call it before each block of work."""
    if _limit.ends is not None and time.monotonic() >= _limit.ends:
        raise OutOfTime("the time of the request is over")
