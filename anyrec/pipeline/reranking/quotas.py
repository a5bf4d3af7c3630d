"""Choice of the best entries of a list within bounds on the counts by category."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Chosen:
    """Entries chosen within bounds.

    Attributes:
        marked: (users, length) bool, the entries.
        over: (users,) bool, whether the list exceeds an upper bound because it has too few other entries.
        under: (users,) bool, whether the list does not reach a lower bound.
    """

    marked: np.ndarray
    over: np.ndarray
    under: np.ndarray


def choose_within(codes: np.ndarray, filled: np.ndarray, least: np.ndarray, most: np.ndarray, k: int) -> Chosen:
    """Choose k entries, best first, with at least `least` and at most `most` of each category.

    First each category gets its minimum, then the remaining places are filled, always in the order of the list. If the
    categories do not overlap, no other choice within the bounds ranks higher entry by entry. If the bounds leave fewer
    than k entries, the list is filled past `most`.

    Args:
        codes: (users, length, n) int64 distinct categories of each entry, -1 past the end.
        filled: (users, length) bool, False past the end of a list.
        least: (categories,) int64.
        most: (categories,) int64.
        k: The number of entries to choose.
    """
    # Only the categories in use are counted. Code -1 becomes a category without bounds.
    used, local = np.unique(codes, return_inverse=True)
    local = local.reshape(codes.shape)
    none = used < 0
    least, most = np.where(none, 0, least[used]), np.where(none, filled.shape[1] + 1, most[used])
    users, length = filled.shape
    rows = np.arange(users)[:, None]
    counts = np.zeros((users, len(used)), np.int64)
    marked, total = np.zeros((users, length), bool), np.zeros(users, np.int64)
    for minimum in (True, False):  # first the minimum of each category, then the rest
        if minimum and not least.any():
            continue
        for place in range(length):
            own = local[:, place]  # (users, n)
            held = counts[rows, own]
            take = filled[:, place] & ~marked[:, place] & (total < k) & (held < most[own]).all(1)
            if minimum:
                take &= (held < least[own]).any(1)
            marked[:, place] |= take
            total += take
            # the categories of an entry are distinct, except -1, whose count is not used
            counts[rows, own] += take[:, None]
            if not minimum and (total >= k).all():
                break
    rest = filled & ~marked
    extra = rest & (np.cumsum(rest, 1) <= np.maximum(k - total, 0)[:, None])
    return Chosen(marked | extra, np.asarray(extra.any(1)), np.asarray((counts < least).any(1)))
