"""The layers of the rankers, and functions of feature vectors that they share.

Tensors of users, items and pairs have the shape (batch or 1, items or 1, width) and are broadcast to all pairs as late
as possible.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add

import torch
from torch import Tensor, nn
from torch.nn import functional


class Cross(nn.Module):
    """The linear map W x + b of one cross, of full rank or as up(down(x)).

    Args:
        width: Dimension of x and of the result.
        rank: Dimension between `down` and `up`; None for full rank.
    """

    def __init__(self, width: int, rank: int | None):
        super().__init__()
        self.down = None if rank is None else nn.Linear(width, rank, bias=False)
        self.up = nn.Linear(rank or width, width)

    def forward(self, parts: list[Tensor]) -> Tensor:
        """Return W x + b, (..., width), of the parts of x, (..., columns) each, which are broadcast."""
        return linear_of(self.up, parts) if self.down is None else self.up(linear_of(self.down, parts))

    def inner(self, part: Tensor, at: slice) -> Tensor:
        """Return the product of some columns of x with the first matrix; `outer` turns the sum over all columns into
        W x + b.

        Args:
            part: (..., columns) of x.
            at: Which columns these are.
        """
        return functional.linear(part, (self.up if self.down is None else self.down).weight[:, at])

    def outer(self, inner: Tensor) -> Tensor:
        """Return W x + b, (..., width), from the sum of what `inner` returned for the parts of x."""
        return inner + self.up.bias if self.down is None else self.up(inner)

    def backwards(self, part: Tensor, at: slice) -> tuple[Tensor, Tensor]:
        """Return the contribution of some columns of y to W' y and to b . y.

        Args:
            part: (..., columns) of y.
            at: Which columns these are.

        Returns:
            (..., width or rank), from which `onwards` completes W' y; and (..., 1).
        """
        return part @ self.up.weight[at], part @ self.up.bias[at].unsqueeze(1)

    def onwards(self, user: Tensor, items: Sequence[Tensor], plus: Tensor) -> Tensor:
        """Return W' y + plus, (batch, items, width), from what `backwards` returned for the parts of y.

        Args:
            user: (batch, 1, width or rank), the contribution of the user's columns.
            items: (1 or batch, items, width or rank) each, the contributions of the item's columns.
            plus: (width,).
        """
        if self.down is None:
            return total(user + plus, items)
        return total(user, items) @ self.down.weight + plus


class Deep(nn.Module):
    """A perceptron without its output layer, over a concatenation of parts that belong to the user, the item or the
    pair.

    Args:
        widths: Dimension of each part.
        hidden: Units of the layers.
        dropout: Dropout rate after each layer.

    Attributes:
        width: Units of the last layer.
    """

    def __init__(self, widths: Sequence[int], hidden: list[int], dropout: float):
        super().__init__()
        first, *rest = hidden
        self.first = nn.Linear(sum(widths), first)
        self.rest = nn.ModuleList(nn.Linear(size, out) for size, out in zip(hidden[:-1], rest, strict=True))
        self.dropout = nn.Dropout(dropout)
        self.width = hidden[-1]

    def forward(self, *parts: Tensor) -> Tensor:
        """Return (batch, items, width) of the parts, (batch or 1, items or 1, columns) each."""
        return self.after(linear_of(self.first, parts))

    def after(self, first: Tensor) -> Tensor:
        """Return (..., width), computed from the output of the first layer."""
        hidden = self.dropout(first.relu())
        for layer in self.rest:
            hidden = self.dropout(layer(hidden).relu())
        return hidden


def lay_flat(users: Tensor, items: Tensor) -> list[Tensor]:
    """Concatenate the features of each side.

    Args:
        users: (batch, features, dim).
        items: (items, features, dim), or (batch, items, features, dim).

    Returns:
        (batch, 1, width) of the users, and (1 or batch, items, width) of the items.
    """
    return [users.flatten(1).unsqueeze(1), (items if items.dim() == 4 else items.unsqueeze(0)).flatten(2)]


def join(parts: list[Tensor]) -> Tensor:
    """Concatenate parts, (batch or 1, items or 1, columns) each, for each pair: (batch, items, width)."""
    shape = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
    return torch.cat([part.expand(*shape, -1) for part in parts], -1)


def total(user: Tensor, items: Sequence[Tensor]) -> Tensor:
    """Add the parts of each pair.

    Args:
        user: (batch, 1, width).
        items: (1 or batch, items, width) each.

    Returns:
        (batch, items, width).
    """
    found = reduce(add, items)
    # A new tensor is only needed if `found` is one of the arguments, or too small for the broadcast result.
    return found + user if len(items) == 1 or len(user) > len(found) else found.add_(user)


def linear_of(layer: nn.Linear, parts: Sequence[Tensor]) -> Tensor:
    """Apply a linear layer to the concatenation of parts, each multiplied by its own columns before the broadcast."""
    weights = layer.weight.split(sizes(parts), 1)
    mapped = reduce(add, (functional.linear(part, weight) for part, weight in zip(parts, weights, strict=True)))
    return mapped if layer.bias is None else mapped + layer.bias


def sizes(parts: Sequence[Tensor]) -> list[int]:
    """Return the last dimension of each part."""
    return [part.shape[-1] for part in parts]


def pair_sums(features: Tensor) -> Tensor:
    """Return the sum of v_f * v_g over all pairs of features f < g, in time linear in the number of features.

    Args:
        features: (..., features, dim).

    Returns:
        (..., dim).
    """
    return (features.sum(-2).square() - features.square().sum(-2)) / 2


def products(features: Tensor) -> Tensor:
    """Return the dot product of each pair of features f < g.

    Args:
        features: (..., features, dim).

    Returns:
        (..., pairs), the upper triangle of the matrix of products, row by row.
    """
    count = features.shape[-2]
    first, second = torch.triu_indices(count, count, 1, device=features.device)
    return (features @ features.transpose(-1, -2))[..., first, second]
