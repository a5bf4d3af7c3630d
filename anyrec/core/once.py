"""Values that are computed when first needed and kept, safely for several threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import RLock
from typing import Any, Generic, TypeVar

from anyrec.core.time_limit import until

T = TypeVar("T")


class Once(Generic[T]):
    """A table of values by key, each computed at most once.

    A value may be computed from others of the same table. Threads that ask for a value that another thread is computing
    wait for it. A computation that raises leaves nothing, so the next call tries again. The time limit of a request
    (`anyrec.core.time_limit`) does not stop a computation, since later requests need its value as well.
    """

    def __init__(self, values: Mapping[Any, T] | None = None):
        """
        Args:
            values: Values that are known already.
        """
        self._values: dict[object, T] = dict(values or {})
        self._lock = RLock()

    def get(self, key: object, compute: Callable[[], T]) -> T:
        """Return the value of `key`; call `compute` if there is none yet."""
        if key in self._values:  # without the lock: a value that is there never changes
            return self._values[key]
        with self._lock:
            if key not in self._values:
                with until(None):
                    self._values[key] = compute()
            return self._values[key]

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def known(self) -> dict[object, T]:
        """Return the values computed so far."""
        with self._lock:
            return dict(self._values)

    def without(self, *keys: object) -> Once[T]:
        """Return a table of its own with the values computed so far, except those of `keys`."""
        return Once({key: value for key, value in self.known().items() if key not in keys})
