"""Rows of different lengths (n-grams, tags, sequences, several images) as two flat tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor


class Ragged(NamedTuple):
    """`rows` lists laid end to end.

    values: (total, ...) the elements of all rows, in row order.
    offsets: (rows + 1,) int64; row i is `values[offsets[i]:offsets[i + 1]]`.
    """

    values: Tensor
    offsets: Tensor

    @property
    def lengths(self) -> Tensor:
        """(rows,) int64"""
        return self.offsets[1:] - self.offsets[:-1]

    @property
    def rows(self) -> int:
        return self.offsets.numel() - 1

    def to(self, device: torch.device | str) -> Ragged:
        return Ragged(self.values.to(device), self.offsets.to(device))

    def select(self, index: Tensor) -> Ragged:
        """The rows named by `index: (batch,) int64`, in that order."""
        lengths = self.lengths.index_select(0, index)
        offsets = torch.zeros(index.numel() + 1, dtype=torch.int64, device=index.device)
        torch.cumsum(lengths, 0, out=offsets[1:])
        shift = self.offsets.index_select(0, index) - offsets[:-1]
        total = int(offsets[-1])
        positions = torch.arange(total, device=index.device) + shift.repeat_interleave(lengths, output_size=total)
        return Ragged(self.values.index_select(0, positions), offsets)

    def row_of_value(self) -> Tensor:
        """(total,) int64: which row each value belongs to."""
        rows = torch.arange(self.rows, device=self.offsets.device)
        return rows.repeat_interleave(self.lengths, output_size=self.values.shape[0])

    def mean(self, values: Tensor | None = None) -> Tensor:
        """(rows, ...) the mean of each row's `values: (total, ...)` (default its own); an empty row gives zeros."""
        values = self.values if values is None else values
        total = values.new_zeros((self.rows, *values.shape[1:])).index_add(0, self.row_of_value(), values)
        count = self.lengths.clamp(min=1).to(values.dtype)
        return total / count.view(-1, *[1] * (values.dim() - 1))

    def pad(self, fill: float = 0.0) -> tuple[Tensor, Tensor]:
        """(rows, longest, ...) padded at the end, and the mask (rows, longest) of what is real."""
        lengths = self.lengths
        longest = int(lengths.max()) if self.rows else 0
        mask = torch.arange(longest, device=self.offsets.device)[None, :] < lengths[:, None]
        padded = self.values.new_full((self.rows, longest, *self.values.shape[1:]), fill)
        padded[mask] = self.values
        return padded, mask


Values = Tensor | Ragged | Mapping[str, Tensor | Ragged]
"""What an encoder's `prepare` may return: anything whose first dimension is rows."""


class Prepared(NamedTuple):
    """A column made ready for `forward`.

    values: one row a record; rows that are absent hold any finite stand-in.
    present: (rows,) bool
    """

    values: Values
    present: Tensor


def select(values: Values, index: Tensor) -> Values:
    """The rows of `values` named by `index: (batch,) int64`."""
    if isinstance(values, Ragged):
        return values.select(index)
    if isinstance(values, Tensor):
        return values.index_select(0, index)
    return {
        name: part.select(index) if isinstance(part, Ragged) else part.index_select(0, index)
        for name, part in values.items()
    }


def move(values: Values, device: torch.device | str) -> Values:
    """`values` on another device."""
    if isinstance(values, (Tensor, Ragged)):
        return values.to(device)
    return {name: part.to(device) for name, part in values.items()}
