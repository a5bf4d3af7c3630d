"""Sorting of many rows: by group and value, and distinct numbers. Faster than numpy's own ways, with equal results."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

BLOCK = 1 << 20
"""About this many rows are sorted by value at once. Their temporaries take 50 MB and stay in the processor's caches."""


def order_by(groups: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the order of rows by group and then by value; ties keep their order, as in `np.lexsort`.

    The rows are grouped by a radix sort, and then sorted by value in blocks of whole groups, except blocks that are
    sorted already, such as those of a log in order of time. 10 M rows of 500,000 groups take 1.7 s, and `np.lexsort`
    3.3 s.

    Args:
        groups: (rows,) int64 group numbers from -1.
        values: (rows,) int64.

    Returns:
        (rows,) int64.
    """
    order = order_of_groups(groups)
    for block in blocks_of_groups(groups, BLOCK):
        part = order[block]
        mine, among = groups[part], values[part]
        if ((among[1:] < among[:-1]) & (mine[1:] == mine[:-1])).any():
            order[block] = part[np.lexsort((among, mine))]
    return order


def order_of_groups(groups: np.ndarray) -> np.ndarray:
    """Return the order of rows by group, stable.

    numpy sorts 16-bit numbers by radix, so each 16 bits of the group numbers take one pass.

    Args:
        groups: (rows,) int64 group numbers from -1.

    Returns:
        (rows,) int64.
    """
    order = np.argsort(_digits(groups, 0), kind="stable")
    shift = 16
    while int(groups.max(initial=0)) + 1 >> shift:
        order = order[np.argsort(_digits(groups, shift)[order], kind="stable")]
        shift += 16
    return order


def _digits(groups: np.ndarray, shift: int) -> np.ndarray:
    """Return (rows,) uint16, the 16 bits from `shift` of each group number plus 1."""
    digits = np.empty(len(groups), np.uint16)
    for start in range(0, len(groups), BLOCK):
        digits[start : start + BLOCK] = (groups[start : start + BLOCK] + 1 >> shift) & 0xFFFF
    return digits


def blocks_of_groups(groups: np.ndarray, size: int) -> Iterator[slice]:
    """Yield consecutive slices of the rows in order of their groups, each of whole groups.

    Args:
        groups: (rows,) int64 group numbers from -1, in any order.
        size: Rows of a block: it has at least as many if it is not the last, and at most one group more.
    """
    counts = np.zeros(groups.max(initial=-1) + 2, np.int64)
    for start in range(0, len(groups), BLOCK):
        counts += np.bincount(groups[start : start + BLOCK] + 1, minlength=len(counts))
    ends = np.cumsum(counts)
    start = 0
    while start < len(groups):
        end = int(ends[min(np.searchsorted(ends, start + size), len(ends) - 1)])
        yield slice(start, end)
        start = end


def distinct(numbers: np.ndarray) -> np.ndarray:
    """Return the distinct numbers, ascending, as `np.unique` does, which takes four times as long for many integers."""
    found = np.sort(numbers)
    return found[begins_of(found)]


def begins_of(ordered: np.ndarray) -> np.ndarray:
    """Return (rows,) bool, which of `ordered: (rows,)` differ from the number before them."""
    begins = np.ones(len(ordered), bool)
    np.not_equal(ordered[1:], ordered[:-1], out=begins[1:])
    return begins
