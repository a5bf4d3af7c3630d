"""Fusions (feature vectors to the vector of a user or item) and interactions (two vectors to a score)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from anyrec.core.params import Params as Options
from anyrec.core.types import ComponentParams


class Fusion(nn.Module):
    """Joins the feature vectors of one user or item into one vector.

    Subclasses implement `fuse`. Absent features are replaced by learned vectors before it is called, so that the value
    of an absent feature cannot change the output.

    Args:
        names: Names of the features, in the order of the second dimension of the tensors.
        dim: Dimension of each feature vector.
        output_dim: Dimension of the result.
        params: The options; by default those of `Params()`.

    Attributes:
        type: Name of the fusion in a config.
        penalty: A weighted loss term of the latest forward pass in training, a mean over rows; the training loop adds
            it to the loss of the step. None for a fusion without one.
        penalty_rows: A scalar, the number of rows that `penalty` is the mean of. None: all rows of the forward pass.

    Example:
        class Sum(Fusion):
            type = "sum"

            def __init__(self, names, dim, output_dim, params=None):
                super().__init__(names, dim, output_dim, params)
                self.project = nn.Linear(dim, output_dim)

            def fuse(self, features, present):
                return self.project(features.sum(1))
    """

    type: ClassVar[str]  # pyright: ignore[reportIncompatibleMethodOverride]  nothing calls Module.type(dtype)
    penalty: Tensor | None = None
    penalty_rows: Tensor | None = None

    Params: ClassVar[type[Options]] = Options
    """The class of the options: a component declares its own as a nested class `Params`."""

    def __init__(self, names: Sequence[str], dim: int, output_dim: int, params: BaseModel | None = None):
        super().__init__()
        self.names = list(names)
        self.dim = dim
        self.output_dim = output_dim
        self.params: ComponentParams = params if params is not None else type(self).Params()
        self.missing = nn.Parameter(torch.randn(len(self.names), dim) * 0.02)

    def fill(self, features: Tensor, present: Tensor) -> Tensor:
        """Replace each absent feature by its learned vector.

        Args:
            features: (batch, features, dim) float.
            present: (batch, features) bool.

        Returns:
            (batch, features, dim) float.
        """
        missing = self.missing.to(features.dtype)
        # On a CPU, counting costs little, and writing a few rows less than a pass over all. A graph has no branches.
        if not present.is_cuda and not torch.compiler.is_exporting():
            rows, places = (~present).nonzero(as_tuple=True)
            if not len(rows):
                return features
            if len(rows) * 4 < present.numel():
                return features.index_put((rows, places), missing.index_select(0, places))
        return torch.where(present.unsqueeze(-1), features, missing)

    def forward(self, features: Tensor, present: Tensor) -> Tensor:
        """Fill the absent features and fuse.

        Args:
            features: (batch, features, dim) float.
            present: (batch, features) bool.

        Returns:
            (batch, output_dim) float.
        """
        return self.fuse(self.fill(features, present), present)

    def fuse(self, features: Tensor, present: Tensor) -> Tensor:
        """Join the feature vectors.

        Args:
            features: (batch, features, dim) float, the absent features filled.
            present: (batch, features) bool.

        Returns:
            (batch, output_dim) float.
        """
        raise NotImplementedError(f"fusion '{self.type}' has no fuse()")

    def export_fault(self) -> str:
        """Return why the fusion cannot be exported, as the end of a sentence; empty (the default) if it can."""
        return ""

    def take_penalty(self) -> Tensor | float:
        """Return `penalty` and reset it; 0 if there is none."""
        penalty, self.penalty = self.penalty, None
        return 0.0 if penalty is None else penalty


Fields = tuple[Sequence[str], Sequence[str]]
"""Names of the feature vectors of the user and of the item."""


class Interaction(nn.Module):
    """Scores users against items: the one scoring function of training, evaluation and inference.

    Args:
        dim: Dimension of the user and item vectors.
        params: The options; by default those of `Params()`.
        fields: Names of the feature vectors of the user and of the item, in order; used if `reads` is "tokens".

    Attributes:
        type: Name of the interaction in a config.
        factorised: True if the score is the dot product of `user_vectors(users)` and `item_vectors(items)`. Items can
            then be retrieved from a vector index.
        reads: `vectors`: the outputs of the towers, (batch, dim). `tokens`: the feature vectors before the fusion,
            (batch, features, dim).

    Example:
        class Distance(Interaction):
            type = "distance"

            def score(self, users, items):
                items = items if items.dim() == 3 else items.unsqueeze(0)
                return -(users.unsqueeze(1) - items).square().sum(-1)
    """

    type: ClassVar[str]  # pyright: ignore[reportIncompatibleMethodOverride]  nothing calls Module.type(dtype)
    factorised: ClassVar[bool] = False
    reads: ClassVar[Literal["vectors", "tokens"]] = "vectors"

    Params: ClassVar[type[Options]] = Options
    """The class of the options: a component declares its own as a nested class `Params`."""

    def __init__(self, dim: int, params: BaseModel | None = None, fields: Fields = ((), ())):
        super().__init__()
        self.dim = dim
        self.params: ComponentParams = params if params is not None else type(self).Params()
        self.fields = fields

    def score(self, users: Tensor, items: Tensor) -> Tensor:
        """Compute match scores.

        Args:
            users: (batch, ...); `...` is `dim`, or `features, dim` if `reads` is "tokens".
            items: (items, ...) shared by all users, or (batch, items, ...) for each user its own.

        Returns:
            (batch, items).
        """
        raise NotImplementedError(f"interaction '{self.type}' has no score()")

    def export_fault(self) -> str:
        """Return why the interaction cannot be exported, as the end of a sentence; empty (the default) if it can."""
        return ""

    def item_terms(self, items: Tensor) -> tuple[Tensor, ...]:
        """Compute the part of the scores that depends on the items only, once for all requests (if `reads` is
        "tokens").

        Args:
            items: (..., features, dim), the first feature vectors of each item, in the order of `fields`; the others
                may depend on the request.

        Returns:
            Tensors (..., width), one row for each item; by default the feature vectors themselves.
        """
        return (items.flatten(-2),)

    def score_terms(self, users: Tensor, terms: Sequence[Tensor], rest: Tensor) -> Tensor:
        """Compute match scores from precomputed terms. They equal those of `score` up to rounding.

        Args:
            users: (batch, features, dim).
            terms: What `item_terms` returned, (batch, items, width) each.
            rest: (batch, items, features, dim), the items' feature vectors that `item_terms` did not receive.

        Returns:
            (batch, items).
        """
        return self.score(users, torch.cat([terms[0].unflatten(-1, (-1, self.dim)), rest], 2))

    @property
    def pair_dim(self) -> int:
        """Last dimension of what `pair` returns."""
        return 3 * self.dim

    def pair(self, users: Tensor, items: Tensor) -> Tensor:
        """Compute the input of the heads, which predict more than the match score.

        Args:
            users: (batch, dim).
            items: (batch, dim).

        Returns:
            (batch, pair_dim).
        """
        return torch.cat([users, items, users * items], -1)

    def user_vectors(self, users: Tensor) -> Tensor:
        """Map users, (batch, dim), into the space in which dot products are the scores (if `factorised`)."""
        return users

    def item_vectors(self, items: Tensor) -> Tensor:
        """Map items, (items, dim), into the space in which dot products are the scores (if `factorised`)."""
        return items
