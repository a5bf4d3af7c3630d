"""Choosing the best of a list so that counts by category stay within bounds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Taken(NamedTuple):
    """marked: (users, length) bool the entries chosen; over, under: (users,) bool whose list had too few to keep the upper bounds,
    the lower ones."""

    marked: np.ndarray
    over: np.ndarray
    under: np.ndarray


def take_within(codes: np.ndarray, there: np.ndarray, least: np.ndarray, most: np.ndarray, k: int) -> Taken:
    """The k entries, best first, with at least `least` and at most `most` of each category.

    codes: (users, length, n) int64 each entry's categories, -1 past the end; there: (users, length) bool, False past the end of a list.
    least, most: (categories,) int64. First each category gets its least, then the rest is filled, always in the list's
    order: for categories that do not overlap no other choice within the bounds ranks higher entry by entry. Where the bounds
    leave fewer than k, the lists are filled past `most`.
    """
    used, local = np.unique(codes, return_inverse=True)
    local = local.reshape(codes.shape)
    none = used < 0
    least, most = np.where(none, 0, least[used]), np.where(none, there.shape[1] + 1, most[used])
    users, length = there.shape
    rows = np.arange(users)[:, None]
    counts = np.zeros((users, len(used)), np.int64)
    marked, total = np.zeros((users, length), bool), np.zeros(users, np.int64)
    for lacking in (True, False):
        if lacking and not least.any():
            continue
        for place in range(length):
            own = local[:, place]
            held = counts[rows, own]
            take = there[:, place] & ~marked[:, place] & (total < k) & (held < most[own]).all(1)
            if lacking:
                take &= (held < least[own]).any(1)
            marked[:, place] |= take
            total += take
            counts[rows, own] += take[
                :, None
            ]  # an entry's categories are distinct, but for -1, whose count is not read
            if not lacking and (total >= k).all():
                break
    short = there & ~marked
    rest = np.cumsum(short, 1) <= np.maximum(k - total, 0)[:, None]
    over = (short & rest).any(1)
    under = np.asarray((counts < least).any(1))
    return Taken(marked | (short & rest), np.asarray(over), under)
