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

from anyrec.core.contracts import Interaction, Params, Width
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

    def columns(self, features: Tensor, first: int) -> slice:
        """The columns of `features: (..., features, dim)` in all vectors end to end; first: the place of the first of them."""
        return slice(first * self.dim, (first + features.shape[-2]) * self.dim)

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
        crossed = self._crossed(join(flat), self.crosses[0](flat), len(self.crosses))
        return torch.cat([crossed, self.deep(*flat)], -1) if self.parallel else self.deep(crossed)

    def score(self, users: Tensor, items: Tensor) -> Tensor:
        own = items if items.dim() == 4 else items.unsqueeze(0)
        return self._score(self._terms(users.unsqueeze(1), 0), self.item_terms(own))

    def item_terms(self, items: Tensor) -> tuple[Tensor, ...]:
        return self._terms(items, self.counts[0])

    def score_terms(self, users: Tensor, terms: Sequence[Tensor], rest: Tensor) -> Tensor:
        return self._score(
            self._terms(users.unsqueeze(1), 0), terms, self._terms(rest, sum(self.counts) - rest.shape[2])
        )

    def _terms(self, features: Tensor, first: int) -> tuple[Tensor, ...]:
        """Features end to end, and their products with each matrix that reads all features: all that depends on them alone.

        w (x0 * (W x + b) + x) = x (W' (w * x0) + w) + b (w * x0): read backwards, the last cross's matrix meets x0 alone, and so each
        user and item once instead of each pair (two crosses score 1.4 times quicker: benchmarks/rankers.py --speed).

        Args:
            features: (..., features, dim), of the user or the item.
            first: The place of the first of them among all.

        Returns:
            x0 (..., columns), and of the products: with the first cross's matrix, if it is not the last; if `parallel`, with the last
            cross's, backwards, with its bias, and with the perceptron's first layer.
        """
        at, flat = self.columns(features, first), features.flatten(-2)
        inner = [self.crosses[0].inner(flat, at)] if not self.parallel or len(self.crosses) > 1 else []  # type: ignore[operator]
        if not self.parallel:
            return (flat, *inner)
        back, constant = self.crosses[-1].backwards(flat * self.out.weight[0, at], at)  # type: ignore[operator]
        return (flat, back, constant, functional.linear(flat, self.deep.first.weight[:, at]), *inner)

    def _score(self, user: Sequence[Tensor], *items: Sequence[Tensor]) -> Tensor:
        """(batch, items) from the `_terms` of the user and of the item, which may come in parts.

        At a request most time goes into writing (items, width) numbers: biases are added to the user's part, which is one row.
        """
        start = join([user[0], *(part[0] for part in items)])
        terms = list(zip(*(part[1:] for part in items), strict=True))
        first, deep_first = self.crosses[0], self.deep.first
        if not self.parallel:
            mapped = first.outer(total(user[1], terms[0]))  # type: ignore[operator]
            return self.out(self.deep(self._crossed(start, mapped, len(self.crosses)))).squeeze(-1)
        of_crosses, of_deep = self.out.weight.split([sum(self.widths), self.deep.width], 1)
        deep = self.deep.after(total(user[3] + deep_first.bias, terms[2]))
        mapped = first.outer(total(user[4], terms[3])) if len(terms) > 3 else start  # type: ignore[operator]
        crossed = self._crossed(start, mapped, len(self.crosses) - 1)
        back = self.crosses[-1].onwards(user[1], terms[0], of_crosses[0])  # type: ignore[operator]
        cross = (crossed * back).sum(-1) + total(user[2], terms[1]).squeeze(-1)
        return cross + functional.linear(deep, of_deep, self.out.bias).squeeze(-1)

    def _crossed(self, start: Tensor, mapped: Tensor, layers: int) -> Tensor:
        """(batch, items, width) after so many crosses; mapped: W x0 + b of the first."""
        crossed = start
        for place, cross in enumerate(self.crosses[:layers]):
            crossed = torch.addcmul(crossed, start, cross([crossed]) if place else mapped)
        return crossed


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
        return self._score(users, self.item_terms(items))

    def item_terms(self, items: Tensor) -> tuple[Tensor, ...]:
        return self._terms(items, self.counts[0])

    def score_terms(self, users: Tensor, terms: Sequence[Tensor], rest: Tensor) -> Tensor:
        more = self._terms(rest, sum(self.counts) - rest.shape[2])
        total, own, deep = map(add, terms, more)
        return self._score(users, (total, own + (terms[0] * more[0]).sum(-1, keepdim=True), deep))

    def _terms(self, features: Tensor, first: int) -> tuple[Tensor, ...]:
        """Of features of the user or of the item: their sum (..., dim), first-order terms and products among them (..., 1), and product
        with the perceptron's first layer. features: (..., features, dim); first: the place of the first of them among all."""
        at, flat = self.columns(features, first), features.flatten(-2)
        own = functional.linear(flat, self.first.weight[:, at]) + pair_sums(features).sum(-1, keepdim=True)
        return features.sum(-2), own, functional.linear(flat, self.deep.first.weight[:, at])

    def _score(self, users: Tensor, items: Sequence[Tensor]) -> Tensor:
        """(batch, items); items: their `_terms`.

        |u + i|^2 = |u|^2 + |i|^2 + 2 u.i: of the pairs of features, only those between the sides need user and item together.
        """
        user, (total, own, deep) = self._terms(users, 0), items
        hidden = self.deep.after(user[2].unsqueeze(1) + deep + self.deep.first.bias)
        return self.out(hidden).squeeze(-1) + user[1] + own.squeeze(-1) + self.first.bias + dot(user[0], total)


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

    def inner(self, part: Tensor, at: slice) -> Tensor:
        """The product of the columns `at` of x, (..., columns), with the first matrix. `outer` makes W x + b of the sum of all."""
        return functional.linear(part, (self.up if self.down is None else self.down).weight[:, at])

    def outer(self, inner: Tensor) -> Tensor:
        """(..., width) W x + b from the sum of what `inner` returned of the parts of x."""
        return inner + self.up.bias if self.down is None else self.up(inner)

    def backwards(self, part: Tensor, at: slice) -> tuple[Tensor, Tensor]:
        """part: (..., columns), the columns `at` of y -> their parts of W' y, before `onwards`, and of b . y (..., 1)."""
        return part @ self.up.weight[at], part @ self.up.bias[at].unsqueeze(1)

    def onwards(self, user: Tensor, items: Sequence[Tensor], plus: Tensor) -> Tensor:
        """(batch, items, width) W' y + plus from what `backwards` returned of the parts of y."""
        if self.down is None:
            return total(user + plus, items)
        return total(user, items) @ self.down.weight + plus


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
        return self.after(linear_of(self.first, parts))

    def after(self, first: Tensor) -> Tensor:
        """first: (..., width of the first layer), its output -> (..., last width)."""
        hidden = self.dropout(first.relu())
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


def total(user: Tensor, items: Sequence[Tensor]) -> Tensor:
    """user: (batch, 1, width); items: parts (1 or batch, items, width) -> their sum for each pair."""
    found = reduce(add, items)
    return found + user if len(items) == 1 or len(user) > len(found) else found.add_(user)


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
