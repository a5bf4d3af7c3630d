"""Rows of different lengths (n-grams, tags, sequences, several images) as two flat tensors, and prepared columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor


class Ragged(NamedTuple):
    """Lists of different lengths, one for each row, concatenated.

    Attributes:
        values: (total, ...) the elements of all rows, in row order.
        offsets: (rows + 1,) int64; row i is `values[offsets[i]:offsets[i + 1]]`.

    Example:
        Ragged(torch.tensor([3, 1, 4]), torch.tensor([0, 2, 2, 3]))  # the rows [3, 1], [] and [4]
    """

    values: Tensor
    offsets: Tensor

    @property
    def lengths(self) -> Tensor:
        """(rows,) int64, the length of each row."""
        return self.offsets[1:] - self.offsets[:-1]

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self.offsets.numel() - 1

    def to(self, device: torch.device | str) -> Ragged:
        """Return a copy on another device."""
        return Ragged(self.values.to(device), self.offsets.to(device))

    def select(self, index: Tensor) -> Ragged:
        """Return some rows.

        Args:
            index: (batch,) int64 row numbers, in any order.
        """
        lengths = self.lengths.index_select(0, index)
        offsets = torch.zeros(index.numel() + 1, dtype=torch.int64, device=index.device)
        torch.cumsum(lengths, 0, out=offsets[1:])
        shift = self.offsets.index_select(0, index) - offsets[:-1]
        total = int(offsets[-1])
        positions = torch.arange(total, device=index.device) + shift.repeat_interleave(lengths, output_size=total)
        return Ragged(self.values.index_select(0, positions), offsets)

    def row_of_value(self) -> Tensor:
        """Return (total,) int64, the row that each value belongs to."""
        rows = torch.arange(self.rows, device=self.offsets.device)
        return rows.repeat_interleave(self.lengths, output_size=self.values.shape[0])

    def mean(self, values: Tensor | None = None) -> Tensor:
        """Return the mean of each row.

        Args:
            values: (total, ...) values to average instead of the row's own.

        Returns:
            (rows, ...); zeros for an empty row.
        """
        values = self.values if values is None else values
        total = values.new_zeros((self.rows, *values.shape[1:])).index_add(0, self.row_of_value(), values)
        count = self.lengths.clamp(min=1).to(values.dtype)
        return total / count.view(-1, *[1] * (values.dim() - 1))

    def pad(self, fill: float = 0.0) -> tuple[Tensor, Tensor]:
        """Pad the rows at the end.

        Args:
            fill: Value of the padding.

        Returns:
            (rows, longest, ...) values, and (rows, longest) bool, False for padding.
        """
        lengths = self.lengths
        longest = int(lengths.max()) if self.rows else 0
        mask = torch.arange(longest, device=self.offsets.device)[None, :] < lengths[:, None]
        padded = self.values.new_full((self.rows, longest, *self.values.shape[1:]), fill)
        padded[mask] = self.values
        return padded, mask


Values = Tensor | Ragged | Mapping[str, Tensor | Ragged]
"""What an encoder's `prepare` can return: one or more tensors whose first dimension is the rows."""


class Prepared(NamedTuple):
    """A column that is ready for `forward`.

    Attributes:
        values: One row for each record. Absent rows hold any finite value.
        present: (rows,) bool, False for a missing value.

    Example:
        Prepared(torch.tensor([[0.5], [0.0]]), torch.tensor([True, False]))  # the second record has no value
    """

    values: Values
    present: Tensor


def select(values: Values, index: Tensor) -> Values:
    """Return some rows.

    Args:
        values: Prepared values.
        index: (batch,) int64 row numbers, in any order.
    """
    if isinstance(values, Ragged):
        return values.select(index)
    if isinstance(values, Tensor):
        return values.index_select(0, index)
    return {
        name: part.select(index) if isinstance(part, Ragged) else part.index_select(0, index)
        for name, part in values.items()
    }


def move(values: Values, device: torch.device | str) -> Values:
    """Return a copy of prepared values on another device."""
    if isinstance(values, (Tensor, Ragged)):
        return values.to(device)
    return {name: part.to(device) for name, part in values.items()}
