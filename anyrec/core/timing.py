"""Logs how long the steps of a program take, at debug level: `anyrec --verbose` prints them."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def timed(step: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Return a decorator that logs the duration of each call, to the logger of the function's module.

    Args:
        step: What a call does, as `data read`.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        log = logging.getLogger(function.__module__)

        @functools.wraps(function)
        def call(*arguments: P.args, **options: P.kwargs) -> T:
            started = time.perf_counter()
            result = function(*arguments, **options)
            log.debug("%s in %.1f s", step, time.perf_counter() - started)
            return result

        return call

    return decorate
