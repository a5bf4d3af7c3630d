"""The float32 vectors of an index, and the key of each row."""

from __future__ import annotations

from pathlib import Path

import numpy as np

VECTORS, KEYS = "vectors.npy", "keys.npy"
MAX_KEYS = 1 << 28
"""Keys of a saved index must be smaller: the table from keys to rows then takes at most 2 GiB."""
NUMBERS_AT_A_TIME = 1 << 22
"""Numbers of a loaded file that are checked at once: 16 MiB, so that a mapped file is read but not kept."""


class Store:
    """Vectors in rows that are only ever appended.

    A removed or replaced vector keeps its row, whose key becomes -1: a backend's structure refers to rows, and most
    backends cannot forget one.

    Attributes:
        count: The number of rows that have a key.
    """

    def __init__(self, vectors: np.ndarray, keys: np.ndarray):
        """Wrap the arrays without a copy.

        Args:
            vectors: (rows, dim) float32.
            keys: (rows,) int64, distinct except for -1.
        """
        self._vectors, self._keys, self._rows = vectors, keys, len(keys)
        self.count = int((keys >= 0).sum())
        self._row_of = np.full(int(keys.max(initial=-1)) + 1, -1)
        alive = np.flatnonzero(keys >= 0)
        self._row_of[keys[alive]] = alive

    def __len__(self) -> int:
        """The number of rows, removed ones included."""
        return self._rows

    @property
    def vectors(self) -> np.ndarray:
        """(rows, dim) float32; mapped from the file after `load` until something is added."""
        return self._vectors[: self._rows]

    @property
    def keys(self) -> np.ndarray:
        """(rows,) int64; -1 for removed rows."""
        return self._keys[: self._rows]

    @property
    def alive(self) -> np.ndarray | None:
        """(rows,) bool, the rows that have a key; None if all have one."""
        return None if self.count == self._rows else self.keys >= 0

    @property
    def in_order(self) -> bool:
        """Whether the key of each row is its number."""
        return self.count == self._rows == len(self._row_of) and bool((self._row_of == np.arange(self._rows)).all())

    def rows_of(self, keys: np.ndarray) -> np.ndarray:
        """Return the row of each key: (keys,) int64; -1 for a key that is not in the store."""
        rows = np.full(len(keys), -1)
        inside = (keys >= 0) & (keys < len(self._row_of))
        rows[inside] = self._row_of[keys[inside]]
        return rows

    def append(self, keys: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        """Append vectors.

        Args:
            keys: (n,) int64, distinct and not in the store.
            vectors: (n, dim) float32.

        Returns:
            (n,) the new rows.
        """
        rows = np.arange(self._rows, self._rows + len(keys))
        if self._rows + len(keys) > len(self._keys):
            # Capacity doubles, so that n additions of one vector copy O(n) numbers, not O(n^2).
            capacity = max(2 * self._rows, self._rows + len(keys))
            self._vectors = _grown(self.vectors, capacity)
            self._keys = _grown(self.keys, capacity)
        self._vectors[rows], self._keys[rows] = vectors, keys
        last = int(keys.max(initial=-1))
        if last >= len(self._row_of):
            self._row_of = np.concatenate([self._row_of, np.full(max(last + 1 - len(self._row_of), len(rows)), -1)])
        self._row_of[keys] = rows
        self._rows += len(keys)
        self.count += len(keys)
        return rows

    def remove(self, keys: np.ndarray) -> np.ndarray:
        """Remove keys; those that are not in the store are ignored.

        Args:
            keys: (n,) int64.

        Returns:
            The rows that the keys had.
        """
        keys = np.unique(keys)
        rows = self.rows_of(keys)
        keys, rows = keys[rows >= 0], rows[rows >= 0]
        self._keys[rows] = -1
        self._row_of[keys] = -1
        self.count -= len(rows)
        return rows

    def compacted(self) -> Store:
        """Return a store without the removed rows, in the order of the keys."""
        alive = np.flatnonzero(self.keys >= 0)
        alive = alive[np.argsort(self.keys[alive])]
        return Store(self.vectors[alive], self.keys[alive])

    def save(self, folder: Path) -> None:
        """Write `vectors.npy` and `keys.npy` into the folder."""
        np.save(folder / VECTORS, self.vectors)
        np.save(folder / KEYS, self.keys)

    @classmethod
    def load(cls, folder: Path, dim: int, max_keys: int = MAX_KEYS) -> Store:
        """Read what `save` wrote.

        Args:
            folder: The folder of the files.
            dim: The expected dimension.
            max_keys: Keys must be smaller.

        Raises:
            ValueError: If the arrays are not those of a store of this dimension, or hold numbers that are not finite.
        """
        # Mode "c": changes stay in memory. A mode without write access would not do, as torch refuses read-only arrays.
        vectors, keys = (np.load(folder / name, mmap_mode="c", allow_pickle=False) for name in (VECTORS, KEYS))
        fit = vectors.dtype == np.float32 and vectors.ndim == 2 and keys.dtype == np.int64
        if not fit or keys.shape != vectors.shape[:1]:
            raise ValueError(f"vectors {vectors.dtype} {vectors.shape} and keys {keys.dtype} {keys.shape}")
        alive = keys[keys >= 0]
        if keys.min(initial=-1) < -1 or len(np.unique(alive)) < len(alive) or keys.max(initial=-1) >= max_keys:
            raise ValueError("a key is negative, too large or occurs twice")
        if vectors.shape[1] != dim:
            raise ValueError(f"vectors of {vectors.shape[1]} numbers, not {dim}")
        parts = np.array_split(vectors, 1 + vectors.size // NUMBERS_AT_A_TIME)
        if not all(bool(np.isfinite(part).all()) for part in parts):
            raise ValueError("a vector holds NaN or infinite numbers")
        return cls(vectors, np.array(keys))


def _grown(array: np.ndarray, capacity: int) -> np.ndarray:
    grown = np.empty((capacity, *array.shape[1:]), array.dtype)
    grown[: len(array)] = array
    return grown
