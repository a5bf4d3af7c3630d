"""Prepared columns as NumPy arrays. `anyrec.core.ragged` has the same as tensors; programs without torch read these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


class FlatLists(NamedTuple):
    """Lists of different lengths, one for each row, concatenated.

    Attributes:
        values: (total, ...) the elements of all rows, in row order.
        offsets: (rows + 1,) int64; row i is `values[offsets[i]:offsets[i + 1]]`.

    Example:
        FlatLists(np.array([3, 1, 4]), np.array([0, 2, 2, 3]))  # the rows [3, 1], [] and [4]
    """

    values: np.ndarray
    offsets: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """(rows,) int64, the length of each row."""
        return np.diff(self.offsets)

    def padded(self, least: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Pad the rows at the end.

        Args:
            least: Length that the result has at least.

        Returns:
            (rows, longest, ...) values, zeros for padding; and (rows, longest) bool, False for padding.
        """
        longest = max(least, int(self.lengths.max(initial=0)))
        mask = np.arange(longest) < self.lengths[:, None]
        padded = np.zeros((*mask.shape, *self.values.shape[1:]), self.values.dtype)
        padded[mask] = self.values
        return padded, mask

    def rows(self, start: int, stop: int) -> FlatLists:
        """Return the rows from `start` to before `stop`; their values share memory."""
        offsets = self.offsets[start : stop + 1]
        return FlatLists(self.values[offsets[0] : offsets[-1]], offsets - offsets[0])

    def last(self, most: int) -> FlatLists:
        """Return the last `most` elements of each row."""
        from_end = np.repeat(self.offsets[1:], self.lengths) - np.arange(len(self.values))
        lengths = np.minimum(self.lengths, most)
        return FlatLists(self.values[from_end <= most], np.concatenate([[0], np.cumsum(lengths)]))

    def mean(self) -> np.ndarray:
        """Return (rows, ...), the mean of each row; zeros for an empty row."""
        padded, mask = self.padded()
        count = np.maximum(self.lengths, 1).astype(self.values.dtype)
        return padded.sum(1) / count.reshape(-1, *[1] * (self.values.ndim - 1))


Arrays = np.ndarray | FlatLists | Mapping[str, np.ndarray | FlatLists]
"""What a column becomes: one or more arrays whose first dimension is the rows."""


class PreparedColumn(NamedTuple):
    """A column that is ready for an encoder's layers.

    Attributes:
        values: One row for each record. Absent rows hold any finite value.
        present: (rows,) bool, False for a missing value.
    """

    values: Arrays
    present: np.ndarray

    def rows(self, start: int, stop: int) -> PreparedColumn:
        """Return the rows from `start` to before `stop`; they share memory."""
        if isinstance(self.values, Mapping):
            values: Arrays = {name: _rows(part, start, stop) for name, part in self.values.items()}
        else:
            values = _rows(self.values, start, stop)
        return PreparedColumn(values, self.present[start:stop])


def _rows(values: np.ndarray | FlatLists, start: int, stop: int) -> np.ndarray | FlatLists:
    return values.rows(start, stop) if isinstance(values, FlatLists) else values[start:stop]


def with_presence(made: Arrays | PreparedColumn, column: pa.Array) -> PreparedColumn:
    """Return what a preparation made, with the presence of each row if it made none.

    Args:
        made: What it made.
        column: (rows,) what it was made of: nulls and empty lists are absent.
    """
    if isinstance(made, PreparedColumn):
        return made
    present = pc.is_valid(column).to_numpy(zero_copy_only=False)
    return PreparedColumn(made, present & (made.lengths > 0) if isinstance(made, FlatLists) else present)
