"""A set of keys of a fixed size that only grows, for millions of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

RECENT = 4096
"""Keys that are kept in a Python set until they become a sorted block."""
BLOCK = 1 << 20
"""Keys of a block that is not merged any more, so that no merge takes longer than 0.1 s."""


class KeySet:
    """A set of keys in sorted blocks: as many bytes for each as the key has, and none that garbage collection visits.

    A Python set needs 100 bytes for a key of 16 bytes. Blocks of similar size are merged (a log-structured merge), so
    that there are few: a look-up bisects each of them.

    Args:
        dtype: The type of the keys, such as "S16" or "u8".
    """

    def __init__(self, dtype: str):
        self._dtype = np.dtype(dtype)
        self._recent: set[object] = set()
        self._blocks: list[np.ndarray] = []

    def has(self, keys: Sequence[object]) -> list[bool]:
        """Return which keys are in the set."""
        if not self._blocks:
            return [key in self._recent for key in keys]
        wanted = np.array(keys, self._dtype)
        found = np.zeros(len(wanted), bool)
        for block in self._blocks:
            places = np.minimum(np.searchsorted(block, wanted), len(block) - 1)
            found |= block[places] == wanted
        return [there or key in self._recent for key, there in zip(keys, found.tolist(), strict=True)]

    def add(self, keys: Sequence[object]) -> None:
        """Add keys, each of which is new."""
        self._recent.update(keys)
        if len(self._recent) >= RECENT:
            self.add_block(np.array(list(self._recent), self._dtype))
            self._recent = set()

    def add_block(self, keys: np.ndarray) -> None:
        """Add many keys, each of which is new: (keys,) of the type of the set."""
        blocks, block = list(self._blocks), np.sort(keys)
        while blocks and len(blocks[-1]) < min(2 * len(block), BLOCK):
            # timsort, by which numpy sorts keys of 8 and more bytes stably, merges sorted parts in linear time
            block = np.sort(np.concatenate([blocks.pop(), block]), kind="stable")
        self._blocks = [*blocks, block]  # at once, since other threads look keys up meanwhile

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield all keys, in parts."""
        yield from self._blocks
        yield np.array(list(self._recent), self._dtype)

    def __len__(self) -> int:
        return len(self._recent) + sum(map(len, self._blocks))
