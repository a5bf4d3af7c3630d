"""Numbers for the ids that events name, so that an event needs no objects of its own."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Numbers(dict[T, int], Generic[T]):
    """The number of each value, from 0 in the order in which they came: `numbers[value]` also adds it.

    Attributes:
        by_number: The values by number.
    """

    def __init__(self) -> None:
        super().__init__()
        self.by_number: list[T] = []

    def __missing__(self, key: T) -> int:
        number = self[key] = len(self.by_number)
        self.by_number.append(key)
        return number
