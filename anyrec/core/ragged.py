"""Rows of different lengths (n-grams, tags, sequences, several images) as two flat tensors, and prepared columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, overload

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from anyrec.core.columns import FlatLists, PreparedColumn


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

    def bag(self, table: Tensor, *, sparse: bool = False) -> Tensor:
        """Return the mean of the rows of a table that the values of each row index.

        Args:
            table: (entries, dim).
            sparse: Whether the gradient of the table is sparse.

        Returns:
            (rows, dim); zeros for an empty row.
        """
        return functional.embedding_bag(self.values, table, self.offsets[:-1], mode="mean", sparse=sparse)

    def sum_bag(self, table: Tensor, weights: Tensor | None = None, *, sparse: bool = False) -> Tensor:
        """Return the sum of the rows of a table that the values of each row index.

        Args:
            table: (entries, dim).
            weights: (total,) the weight of each value; None for 1.
            sparse: Whether the gradient of the table is sparse.

        Returns:
            (rows, dim).
        """
        return functional.embedding_bag(
            self.values, table, self.offsets[:-1], mode="sum", per_sample_weights=weights, sparse=sparse
        )

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


class Padded(NamedTuple):
    """Rows of different lengths, padded at the end: the form that they have in an exported graph.

    It has the methods of `Ragged`, so that `forward` of an encoder reads either.

    Attributes:
        values: (rows * longest, ...) the elements of all rows with their padding, in row order.
        mask: (rows, longest) bool, False for padding.
    """

    values: Tensor
    mask: Tensor

    @staticmethod
    def of(values: Tensor, mask: Tensor) -> Padded:
        """Return the rows of `values: (rows, longest, ...)` with their `mask: (rows, longest)`."""
        return Padded(values.flatten(0, 1), mask)

    @property
    def lengths(self) -> Tensor:
        """(rows,) int64, the length of each row."""
        return self.mask.sum(1)

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self.mask.shape[0]

    @property
    def offsets(self) -> Tensor:
        """(rows + 1,) int64, where each row begins in `values`, and the end."""
        return torch.arange(self.rows + 1, device=self.mask.device) * self.mask.shape[1]

    def mean(self, values: Tensor | None = None) -> Tensor:
        """Return the mean of each row; argument and result as of `Ragged.mean`."""
        values = self.values if values is None else values
        count = self.lengths.clamp(min=1).to(values.dtype)
        return self._sum(values) / count.view(-1, *[1] * (values.dim() - 1))

    def bag(self, table: Tensor, *, sparse: bool = False) -> Tensor:
        """Return the mean of the table's rows; arguments and result as of `Ragged.bag`."""
        return self.mean(table[self.values])

    def sum_bag(self, table: Tensor, weights: Tensor | None = None, *, sparse: bool = False) -> Tensor:
        """Return the sum of the table's rows; arguments and result as of `Ragged.sum_bag`."""
        rows = table[self.values]
        return self._sum(rows if weights is None else rows * weights.unsqueeze(1))

    def pad(self) -> tuple[Tensor, Tensor]:
        """Return (rows, longest, ...) values, and (rows, longest) bool, False for padding."""
        return self.values.unflatten(0, self.mask.shape), self.mask.clone()

    def _sum(self, values: Tensor) -> Tensor:
        """Return (rows, ...), the sum of each row of `values: (rows * longest, ...)`."""
        padded = values.unflatten(0, self.mask.shape)
        inside = self.mask.view(*self.mask.shape, *[1] * (padded.dim() - 2))
        return torch.where(inside, padded, 0.0).sum(1)


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


def tensors(column: PreparedColumn) -> Prepared:
    """Return a column of NumPy arrays as tensors that share their memory."""
    values = column.values
    if isinstance(values, Mapping):
        made: Values = {name: tensors_of(part) for name, part in values.items()}
    else:
        made = tensors_of(values)
    return Prepared(made, torch.from_numpy(column.present))


@overload
def tensors_of(values: np.ndarray) -> Tensor: ...
@overload
def tensors_of(values: FlatLists) -> Ragged: ...
def tensors_of(values: np.ndarray | FlatLists) -> Tensor | Ragged:
    """Return an array as a tensor, and flat lists as ragged rows."""
    if isinstance(values, FlatLists):
        return Ragged(torch.from_numpy(values.values), torch.from_numpy(values.offsets))
    return torch.from_numpy(values)


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
