"""The float32 vectors of an index, a row each, and which key each row stands for."""

from __future__ import annotations

from pathlib import Path

import numpy as np

VECTORS, KEYS = "vectors.npy", "keys.npy"
MOST_KEYS = 1 << 28
"""Keys of a saved index are below it: the table from keys to rows then takes 2 GiB at most."""
CHUNK = 1 << 22


class Store:
    """Rows are only ever appended; one that is removed or replaced keeps its place with key -1.

    vectors: (rows, dim) float32, memory-mapped after `load` until something is added. keys: (rows,) int64.
    """

    def __init__(self, vectors: np.ndarray, keys: np.ndarray):
        """keys: distinct, but for -1."""
        self._vectors, self._keys, self._rows = vectors, keys, len(keys)
        self.count = int((keys >= 0).sum())
        self._row_of = np.full(int(keys.max(initial=-1)) + 1, -1)
        alive = np.flatnonzero(keys >= 0)
        self._row_of[keys[alive]] = alive

    def __len__(self) -> int:
        return self._rows

    @property
    def vectors(self) -> np.ndarray:
        return self._vectors[: self._rows]

    @property
    def keys(self) -> np.ndarray:
        return self._keys[: self._rows]

    @property
    def alive(self) -> np.ndarray | None:
        """(rows,) bool; None where all are."""
        return None if self.count == self._rows else self.keys >= 0

    @property
    def in_order(self) -> bool:
        """Whether row and key are the same."""
        return self.count == self._rows == len(self._row_of) and bool((self._row_of == np.arange(self._rows)).all())

    def rows_of(self, keys: np.ndarray) -> np.ndarray:
        """The row of each key, -1 where there is none."""
        rows = np.full(len(keys), -1)
        inside = (keys >= 0) & (keys < len(self._row_of))
        rows[inside] = self._row_of[keys[inside]]
        return rows

    def append(self, keys: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        """The new rows of keys that are not there."""
        rows = np.arange(self._rows, self._rows + len(keys))
        if self._rows + len(keys) > len(self._keys):
            room = max(2 * self._rows, self._rows + len(keys))
            self._vectors = _grown(self.vectors, room)
            self._keys = _grown(self.keys, room)
        self._vectors[rows], self._keys[rows] = vectors, keys
        last = int(keys.max(initial=-1))
        if last >= len(self._row_of):
            self._row_of = np.concatenate([self._row_of, np.full(max(last + 1 - len(self._row_of), len(rows)), -1)])
        self._row_of[keys] = rows
        self._rows += len(keys)
        self.count += len(keys)
        return rows

    def remove(self, keys: np.ndarray) -> np.ndarray:
        """The rows that the keys had."""
        keys = np.unique(keys)
        rows = self.rows_of(keys)
        keys, rows = keys[rows >= 0], rows[rows >= 0]
        self._keys[rows] = -1
        self._row_of[keys] = -1
        self.count -= len(rows)
        return rows

    def save(self, folder: Path) -> None:
        np.save(folder / VECTORS, self.vectors)
        np.save(folder / KEYS, self.keys)

    @classmethod
    def load(cls, folder: Path, most_keys: int = MOST_KEYS) -> Store:
        """What `save` wrote, keys below `most_keys`. Raises ValueError for arrays that are not a store's."""
        # mode "c": changes stay in memory; torch refuses arrays that it may not write to
        vectors, keys = (np.load(folder / name, mmap_mode="c", allow_pickle=False) for name in (VECTORS, KEYS))
        if (
            vectors.dtype != np.float32
            or vectors.ndim != 2
            or keys.dtype != np.int64
            or keys.shape != vectors.shape[:1]
        ):
            raise ValueError(f"vectors {vectors.dtype} {vectors.shape} and keys {keys.dtype} {keys.shape}")
        alive = keys[keys >= 0]
        if keys.min(initial=-1) < -1 or len(np.unique(alive)) < len(alive) or keys.max(initial=-1) >= most_keys:
            raise ValueError("a key is negative, too large or there twice")
        return cls(vectors, np.array(keys))

    def check(self, dim: int) -> None:
        """Raises ValueError if the vectors are not of `dim` finite numbers."""
        if self.vectors.shape[1] != dim:
            raise ValueError(f"vectors of {self.vectors.shape[1]} numbers, not {dim}")
        if not all(
            bool(np.isfinite(part).all()) for part in np.array_split(self.vectors, 1 + self.vectors.size // CHUNK)
        ):
            raise ValueError("a vector holds NaN or infinite numbers")


def _grown(array: np.ndarray, room: int) -> np.ndarray:
    grown = np.empty((room, *array.shape[1:]), array.dtype)
    grown[: len(array)] = array
    return grown
