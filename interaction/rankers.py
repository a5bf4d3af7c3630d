"""Rankers over the feature vectors of both sides: DCN-v2, DeepFM and DLRM.

They score one user against many items. Linear maps of all features are therefore split into the user's part, which is
computed once, and the item's part, which `item_terms` computes once for all requests. The rest is computed for each
pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import add
from typing import Literal, cast

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn
from torch.nn import functional

from anyrec.core.contracts import Fields, Interaction, Params, Width
from anyrec.core.params import tunable
from anyrec.interaction.interaction_modeling import dot
from anyrec.interaction.ranker_layers import Cross, Deep, join, lay_flat, pair_sums, products, total


class Ranker(Interaction):
    """Base class of the three rankers. Subclasses implement `hidden`, the vector of each pair that the heads read.

    Attributes:
        counts: Number of features of the user and of the item.
        widths: Dimension of their concatenated features.
    """

    reads = "tokens"

    class Params(Params):
        hidden_dims: list[Width] = Field(
            default_factory=lambda: [64, 32],
            min_length=1,
            max_length=16,
            description="Units of the perceptron's hidden layers.",
        )
        dropout: float = Field(
            0.0,
            ge=0,
            le=0.99,
            description="Fraction of hidden values set to zero in training.",
            json_schema_extra=tunable(0.0, 0.5),
        )

    def __init__(self, dim: int, params: BaseModel | None = None, fields: Fields = ((), ())):
        super().__init__(dim, params, fields)
        self.counts = [len(names) for names in self.fields]
        self.widths = [count * self.dim for count in self.counts]

    def pair(self, users: Tensor, items: Tensor) -> Tensor:
        return self.hidden(users, items.unsqueeze(1)).squeeze(1)

    def columns(self, features: Tensor, first: int) -> slice:
        """Return the columns that `features` have in the concatenation of all features.

        Args:
            features: (..., features, dim), neighbouring features.
            first: Index of the first of them among all features.
        """
        return slice(first * self.dim, (first + features.shape[-2]) * self.dim)

    def hidden(self, users: Tensor, items: Tensor) -> Tensor:
        """Compute the vectors of all pairs.

        Args:
            users: (batch, features, dim).
            items: (items, features, dim) shared by all users, or (batch, items, features, dim), each user's own.

        Returns:
            (batch, items, pair_dim).
        """
        raise NotImplementedError(f"ranker '{self.type}' has no hidden()")


class DCN(Ranker):
    """DCN-v2: crosses x' = x0 * (W x + b) + x of all features, and a perceptron in parallel or after them.

    x0 is the concatenation of all feature vectors. With `rank`, W is the product of two thin matrices.

    References:
        Wang et al., DCN V2: Improved Deep & Cross Network, 2021 (`rank`: its equation 3).
    """

    type = "dcn"

    class Params(Ranker.Params):
        cross_layers: int = Field(
            2,
            ge=1,
            le=64,
            description="Cross layers; n of them give products of up to n + 1 features.",
            json_schema_extra=tunable(1, 4),
        )
        rank: int | None = Field(
            None, ge=1, le=4096, description="Rank of the matrix of each cross; null for full rank."
        )
        structure: Literal["parallel", "stacked"] = Field(
            "parallel",
            description="The perceptron reads the features (parallel) or the output of the crosses (stacked).",
        )

    def __init__(self, dim: int, params: BaseModel | None = None, fields: Fields = ((), ())):
        super().__init__(dim, params, fields)
        width = sum(self.widths)
        self.crosses = nn.ModuleList(Cross(width, self.params.rank) for _ in range(self.params.cross_layers))
        self.parallel = self.params.structure == "parallel"
        self.deep = Deep(self.widths if self.parallel else [width], self.params.hidden_dims, self.params.dropout)
        self.out = nn.Linear(self.pair_dim, 1)

    def cross(self, place: int) -> Cross:
        """Return a cross by its index."""
        return cast(Cross, self.crosses[place])

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
        """Compute everything that depends on these features only.

        Let w be the output weights. Then w . (x0 * (W x + b) + x) = x . (W' (w * x0) + w) + b . (w * x0). On the right,
        the matrix of the last cross is applied to w * x0, so once for each user and item instead of once for each pair.
        Two crosses score 1.4 times faster (benchmarks/rankers.py --speed).

        Args:
            features: (..., features, dim), of the user or the item.
            first: Index of the first of them among all features.

        Returns:
            Their concatenation x0, (..., columns). If `parallel`: W' (w * x0) and b . (w * x0) of the last cross, and
            the product of x0 with the first layer of the perceptron. The product of x0 with the first cross's matrix,
            unless that is the last cross too.
        """
        at, flat = self.columns(features, first), features.flatten(-2)
        inner = [self.cross(0).inner(flat, at)] if not self.parallel or len(self.crosses) > 1 else []
        if not self.parallel:
            return (flat, *inner)
        back, constant = self.cross(-1).backwards(flat * self.out.weight[0, at], at)
        return (flat, back, constant, functional.linear(flat, self.deep.first.weight[:, at]), *inner)

    def _score(self, user: Sequence[Tensor], *items: Sequence[Tensor]) -> Tensor:
        """Compute match scores from terms.

        Most of the time of a request goes into writing (items, width) numbers. Biases are therefore added to the user's
        part, which is a single row.

        Args:
            user: The `_terms` of the user's features.
            *items: The `_terms` of the item's features; several for terms of several parts of the features.

        Returns:
            (batch, items).
        """
        start = join([user[0], *(part[0] for part in items)])
        terms = list(zip(*(part[1:] for part in items), strict=True))
        first, deep_first = self.cross(0), self.deep.first
        if not self.parallel:
            mapped = first.outer(total(user[1], terms[0]))
            return self.out(self.deep(self._crossed(start, mapped, len(self.crosses)))).squeeze(-1)
        of_crosses, of_deep = self.out.weight.split([sum(self.widths), self.deep.width], 1)
        deep = self.deep.after(total(user[3] + deep_first.bias, terms[2]))
        mapped = first.outer(total(user[4], terms[3])) if len(terms) > 3 else start
        crossed = self._crossed(start, mapped, len(self.crosses) - 1)
        back = self.cross(-1).onwards(user[1], terms[0], of_crosses[0])
        cross = (crossed * back).sum(-1) + total(user[2], terms[1]).squeeze(-1)
        return cross + functional.linear(deep, of_deep, self.out.bias).squeeze(-1)

    def _crossed(self, start: Tensor, mapped: Tensor, layers: int) -> Tensor:
        """Apply crosses.

        Args:
            start: (batch, items, width), x0.
            mapped: (batch, items, width), W x0 + b of the first cross.
            layers: Number of crosses to apply.

        Returns:
            (batch, items, width).
        """
        crossed = start
        for place, cross in enumerate(self.crosses[:layers]):
            crossed = torch.addcmul(crossed, start, cross([crossed]) if place else mapped)
        return crossed


class DeepFM(Ranker):
    """DeepFM: the sum of a factorisation machine and a perceptron over the same feature vectors.

    The score is the first-order terms, plus v_f . v_g over all pairs of features f, g, plus the output of the
    perceptron.

    References:
        Guo et al., DeepFM: A Factorization-Machine based Neural Network for CTR Prediction, 2017. The paper learns one
        number for each id as its first-order term. Here it is a linear map of the feature's vector, so that the
        features can come from any encoder.
    """

    type = "deepfm"

    def __init__(self, dim: int, params: BaseModel | None = None, fields: Fields = ((), ())):
        super().__init__(dim, params, fields)
        self.first = nn.Linear(sum(self.widths), 1)
        self.deep = Deep(self.widths, self.params.hidden_dims, self.params.dropout)
        self.out = nn.Linear(self.deep.width, 1, bias=False)

    @property
    def pair_dim(self) -> int:
        return self.deep.width + self.dim

    def hidden(self, users: Tensor, items: Tensor) -> Tensor:
        """Return the perceptron's last layer, and the elementwise products whose sum is the second-order term."""
        own = items if items.dim() == 4 else items.unsqueeze(0)
        products = pair_sums(users).unsqueeze(1) + pair_sums(own) + users.sum(1).unsqueeze(1) * own.sum(-2)
        return torch.cat([self.deep(*lay_flat(users, items)), products], -1)

    def score(self, users: Tensor, items: Tensor) -> Tensor:
        return self._score(users, self.item_terms(items))

    def item_terms(self, items: Tensor) -> tuple[Tensor, ...]:
        return self._terms(items, self.counts[0])

    def score_terms(self, users: Tensor, terms: Sequence[Tensor], rest: Tensor) -> Tensor:
        more = self._terms(rest, sum(self.counts) - rest.shape[2])
        summed, own, deep = map(add, terms, more)
        between = (terms[0] * more[0]).sum(-1, keepdim=True)  # products between the two parts of the item's features
        return self._score(users, (summed, own + between, deep))

    def _terms(self, features: Tensor, first: int) -> tuple[Tensor, ...]:
        """Compute everything that depends on these features only.

        Args:
            features: (..., features, dim), of the user or the item.
            first: Index of the first of them among all features.

        Returns:
            Their sum, (..., dim); their first-order terms and the products among them, (..., 1); and their product with
            the first layer of the perceptron.
        """
        at, flat = self.columns(features, first), features.flatten(-2)
        own = functional.linear(flat, self.first.weight[:, at]) + pair_sums(features).sum(-1, keepdim=True)
        return features.sum(-2), own, functional.linear(flat, self.deep.first.weight[:, at])

    def _score(self, users: Tensor, items: Sequence[Tensor]) -> Tensor:
        """Compute match scores.

        The sum over all pairs of features is the sum over pairs on the user's side, plus that on the item's side, plus
        the dot product of the sums of both sides. Only the last needs user and item together.

        Args:
            users: (batch, features, dim).
            items: The `_terms` of the items.

        Returns:
            (batch, items).
        """
        user, (summed, own, deep) = self._terms(users, 0), items
        hidden = self.deep.after(user[2].unsqueeze(1) + deep + self.deep.first.bias)
        return self.out(hidden).squeeze(-1) + user[1] + own.squeeze(-1) + self.first.bias + dot(user[0], summed)


class DLRM(Ranker):
    """DLRM: a perceptron over the feature vectors and the dot product of each pair of features.

    References:
        Naumov et al., Deep Learning Recommendation Model for Personalization and Recommendation Systems, 2019. The
        paper concatenates the products with the single vector of all dense features. Here they are concatenated with
        the vectors of all features. A feature is not multiplied by itself.
    """

    type = "dlrm"

    def __init__(self, dim: int, params: BaseModel | None = None, fields: Fields = ((), ())):
        super().__init__(dim, params, fields)
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
