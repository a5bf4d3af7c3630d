"""Random numbers of each user that do not depend on the other users of a request."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

DAY = 86_400 * 10**6
"""Microseconds of a day."""


def seed_of(seed: int, now: int | None, present: int) -> int:
    """Return the seed of the draws of a request.

    Without a given time it is the same on the whole day, so that the pages of one list agree.

    Args:
        seed: The model's seed.
        now: Time of the request in microseconds since 1970, if it was given.
        present: The present time in the same unit.
    """
    moment = [0, present // DAY] if now is None else [1, now % 2**64]
    return int(np.random.SeedSequence([seed, *moment]).generate_state(1, np.uint64)[0])


def uniform(seed: int, ids: pa.Array, place: int, count: int) -> np.ndarray:
    """Return (ids, count) float64 from 0 to 1 (excluded), which depend on the seed, the place and each row's id only.

    Args:
        seed: As `seed_of` returns it.
        ids: (ids,) texts or whole numbers.
        place: Distinguishes several draws of one request.
        count: Numbers for each id.
    """
    salt = _mixed(np.array([seed], np.uint64)) + np.uint64(place)
    rows = _mixed(_hashes(ids) ^ _mixed(salt))
    keys = _mixed(rows[:, None] + _mixed(np.arange(1, count + 1, dtype=np.uint64)))
    return (keys >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _hashes(ids: pa.Array) -> np.ndarray:
    """Return (ids,) uint64, for a text the sum of a hash of each of its bytes and their places (tabulation hashing)."""
    if pa.types.is_integer(ids.type):
        return _mixed(ids.to_numpy(zero_copy_only=False).astype(np.uint64))
    texts = ids.cast(pa.large_string()).cast(pa.large_binary())
    _, ends, data = texts.buffers()
    offsets = np.frombuffer(ends, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    values = np.frombuffer(data or b"", np.uint8)[offsets[0] : offsets[-1]].astype(np.uint64)
    offsets = offsets - offsets[0]
    places = np.arange(len(values)) - np.repeat(offsets[:-1], np.diff(offsets))
    mixed = _mixed(places.astype(np.uint64) << np.uint64(8) | values)
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mixed)])
    return _mixed(sums[offsets[1:]] - sums[offsets[:-1]])


def _mixed(values: np.ndarray) -> np.ndarray:
    """Return uint64 values mixed by the finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
