"""Rankers over the feature vectors of both sides at once: DCN-v2, DeepFM, DLRM. What is the user's alone is computed once for all items."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from anyrec.contracts import Interaction, Params, Width
from anyrec.interaction.interaction_modeling import dot


class Ranker(Interaction):
    """What the three share: users (batch, features, dim) and items (items or batch x items, features, dim) laid flat.

    Subclasses give `hidden`, what the heads read of each pair.
    """

    reads = "tokens"

    class Params(Params):
        hidden_dims: list[Width] = Field(
            default_factory=lambda: [64, 32],
            min_length=1,
            max_length=16,
            description="Widths of the perceptron's hidden layers.",
        )
        dropout: float = Field(0.0, ge=0, le=0.99, description="Share of hidden values silenced in training.")

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self.counts = [len(names) for names in self.fields]
        self.widths = [count * self.dim for count in self.counts]

    def pair(self, users: Tensor, items: Tensor) -> Tensor:
        return self.hidden(users, items.unsqueeze(1)).squeeze(1)

    def hidden(self, users: Tensor, items: Tensor) -> Tensor:
        """users: (batch, features, dim); items: as for `score` -> (batch, items, pair_dim)."""
        raise NotImplementedError(f"ranker '{self.type}' has no hidden()")


class DCN(Ranker):
    """DCN-v2 (Wang et al., 2021): crosses x' = x0 * (W x + b) + x of all features, and a perceptron beside or after them.

    x0 is the vectors of all features end to end. `rank` makes W the product of two thin matrices, as in their equation 3.
    """

    type = "dcn"

    class Params(Ranker.Params):
        cross_layers: int = Field(
            2, ge=1, le=64, description="Crosses one after another: products of up to one more feature."
        )
        rank: int | None = Field(None, ge=1, le=4096, description="Rank of each cross's matrix; by default full.")
        structure: Literal["parallel", "stacked"] = Field(
            "parallel", description="The perceptron reads the features themselves, or what the crosses make of them."
        )

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        width = sum(self.widths)
        self.crosses = nn.ModuleList(Cross(width, self.params.rank) for _ in range(self.params.cross_layers))
        self.parallel = self.params.structure == "parallel"
        self.deep = Deep(self.widths if self.parallel else [width], self.params.hidden_dims, self.params.dropout)
        self.out = nn.Linear(self.pair_dim, 1)

    @property
    def pair_dim(self) -> int:
        return self.deep.width + (sum(self.widths) if self.parallel else 0)

    def hidden(self, users: Tensor, items: Tensor) -> Tensor:
        flat = lay_flat(users, items)
        crossed = self._crossed(flat, len(self.crosses))
        return torch.cat([crossed, self.deep(*flat)], -1) if self.parallel else self.deep(crossed)

    def score(self, users: Tensor, items: Tensor) -> Tensor:
        if not self.parallel:
            return self.out(self.hidden(users, items)).squeeze(-1)
        flat = lay_flat(users, items)
        of_crosses, of_deep = self.out.weight.split([sum(self.widths), self.deep.width], 1)
        deep = functional.linear(self.deep(*flat), of_deep, self.out.bias).squeeze(-1)
        return self._cross_score(flat, of_crosses[0]) + deep

    def _crossed(self, flat: list[Tensor], layers: int) -> Tensor:
        """(batch, items, width) after so many crosses."""
        start = crossed = join(flat)
        for place, cross in enumerate(self.crosses[:layers]):
            crossed = start * (cross(flat) if not place else cross([crossed])) + crossed
        return crossed

    def _cross_score(self, flat: list[Tensor], weight: Tensor) -> Tensor:
        """(batch, items): weight: (width,) times the last cross.

        w (x0 * (W x + b) + x) = x (W' (w * x0) + w) + b (w * x0): read backwards, the last matrix meets x0 alone, and so each
        user and item once instead of each pair (two crosses score 1.4 times quicker: benchmarks/rankers.py --speed).
        """
        last = self.crosses[-1]
        weighted = [part * own for part, own in zip(flat, weight.split(self.widths), strict=True)]
        back, constant = last.backwards(weighted)  # type: ignore[operator]
        return (self._crossed(flat, len(self.crosses) - 1) * (back + weight)).sum(-1) + constant


class DeepFM(Ranker):
    """DeepFM (Guo et al., 2017): a factorisation machine and a perceptron over the same feature vectors, added.

    First-order terms + the sum of v_f . v_g over all pairs of features + the perceptron. A feature's first-order weight is
    read from its vector, linearly, where the paper learns one more number for each id: so any encoder's output will do.
    """

    type = "deepfm"

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self.first = nn.Linear(sum(self.widths), 1)
        self.deep = Deep(self.widths, self.params.hidden_dims, self.params.dropout)
        self.out = nn.Linear(self.deep.width, 1, bias=False)

    @property
    def pair_dim(self) -> int:
        return self.deep.width + self.dim

    def hidden(self, users: Tensor, items: Tensor) -> Tensor:
        """The perceptron's last layer and the sums of products of which the machine is the total."""
        own = items if items.dim() == 4 else items.unsqueeze(0)
        products = pair_sums(users).unsqueeze(1) + pair_sums(own) + users.sum(1).unsqueeze(1) * own.sum(-2)
        return torch.cat([self.deep(*lay_flat(users, items)), products], -1)

    def score(self, users: Tensor, items: Tensor) -> Tensor:
        flat = lay_flat(users, items)
        # |u + i|^2 = |u|^2 + |i|^2 + 2 u.i: of the pairs, only those between the sides need user and item together.
        machine = pair_sums(users).sum(-1, keepdim=True) + pair_sums(items).sum(-1) + dot(users.sum(1), items.sum(-2))
        return (linear_of(self.first, flat) + self.out(self.deep(*flat))).squeeze(-1) + machine


class DLRM(Ranker):
    """DLRM (Naumov et al., 2019): the dot product of each two features, beside their vectors, into a perceptron.

    The paper joins the products with the one vector of all dense features; here with the vectors of all features, as each
    encoder made them. A feature's product with itself is left out.
    """

    type = "dlrm"

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        of_user, of_item = self.counts
        user, item = (width + count * (count - 1) // 2 for width, count in zip(self.widths, self.counts, strict=True))
        self.deep = Deep([user, item, of_user * of_item], self.params.hidden_dims, self.params.dropout)
        self.out = nn.Linear(self.deep.width, 1)

    @property
    def pair_dim(self) -> int:
        return self.deep.width

    def hidden(self, users: Tensor, items: Tensor) -> Tensor:
        equation = "bfd,bigd->bifg" if items.dim() == 4 else "bfd,igd->bifg"
        between = torch.einsum(equation, users, items).flatten(2)
        own_user, own_item = (torch.cat([side.flatten(-2), products(side)], -1) for side in (users, items))
        return self.deep(own_user.unsqueeze(1), own_item if items.dim() == 4 else own_item.unsqueeze(0), between)

    def score(self, users: Tensor, items: Tensor) -> Tensor:
        return self.out(self.hidden(users, items)).squeeze(-1)


class Cross(nn.Module):
    """The linear map W x + b of one cross, of full rank or as up(down(x))."""

    def __init__(self, width: int, rank: int | None):
        super().__init__()
        self.down = None if rank is None else nn.Linear(width, rank, bias=False)
        self.up = nn.Linear(rank or width, width)

    def forward(self, parts: list[Tensor]) -> Tensor:
        """parts: (..., widths) of x -> (..., width)."""
        return linear_of(self.up, parts) if self.down is None else self.up(linear_of(self.down, parts))

    def backwards(self, parts: list[Tensor]) -> tuple[Tensor, Tensor]:
        """parts of y -> W' y (..., width), and b . y (...)."""
        weight = self.up.weight
        mapped = reduce(add, (part @ own for part, own in zip(parts, weight.split(sizes(parts)), strict=True)))
        constant = reduce(add, (part @ own for part, own in zip(parts, self.up.bias.split(sizes(parts)), strict=True)))
        return mapped if self.down is None else mapped @ self.down.weight, constant


class Deep(nn.Module):
    """A perceptron without its output layer, over parts of which some are the user's, some the item's, some the pair's."""

    def __init__(self, widths: Sequence[int], hidden: list[int], dropout: float):
        super().__init__()
        first, *rest = hidden
        self.first = nn.Linear(sum(widths), first)
        self.rest = nn.ModuleList(nn.Linear(size, out) for size, out in zip(hidden[:-1], rest, strict=True))
        self.dropout = nn.Dropout(dropout)
        self.width = hidden[-1]

    def forward(self, *parts: Tensor) -> Tensor:
        """parts: (batch or 1, items or 1, width) each -> (batch, items, last width)."""
        hidden = self.dropout(linear_of(self.first, parts).relu())
        for layer in self.rest:
            hidden = self.dropout(layer(hidden).relu())
        return hidden


def lay_flat(users: Tensor, items: Tensor) -> list[Tensor]:
    """Feature vectors end to end: (batch, 1, width) of users, (1 or batch, items, width) of items."""
    return [users.flatten(1).unsqueeze(1), (items if items.dim() == 4 else items.unsqueeze(0)).flatten(2)]


def join(parts: list[Tensor]) -> Tensor:
    """Parts (batch or 1, items or 1, width) side by side for each pair."""
    shape = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
    return torch.cat([part.expand(*shape, -1) for part in parts], -1)


def linear_of(layer: nn.Linear, parts: Sequence[Tensor]) -> Tensor:
    """`layer` of the parts side by side, each met by its own columns before they are broadcast to pairs."""
    weights = layer.weight.split(sizes(parts), 1)
    mapped = reduce(add, (functional.linear(part, weight) for part, weight in zip(parts, weights, strict=True)))
    return mapped if layer.bias is None else mapped + layer.bias


def sizes(parts: Sequence[Tensor]) -> list[int]:
    return [part.shape[-1] for part in parts]


def pair_sums(features: Tensor) -> Tensor:
    """features: (..., features, dim) -> (..., dim), the sum of v_f * v_g over all pairs, in time linear in the features."""
    return (features.sum(-2).square() - features.square().sum(-2)) / 2


def products(features: Tensor) -> Tensor:
    """features: (..., features, dim) -> (..., pairs), the dot product of each two, upper triangle row by row."""
    count = features.shape[-2]
    first, second = torch.triu_indices(count, count, 1, device=features.device)
    return (features @ features.transpose(-1, -2))[..., first, second]
