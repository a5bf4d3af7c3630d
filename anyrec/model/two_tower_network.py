"""The two-tower network: a tower for each side, an interaction that scores, and heads that predict."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from anyrec.core.contracts import Head, Interaction
from anyrec.core.discovery import discover
from anyrec.core.errors import ConfigError, Fault
from anyrec.core.ragged import select
from anyrec.core.registry import Registry
from anyrec.core.types import JsonObject
from anyrec.data.ids import Side
from anyrec.model.towers import Columns, EntityTower, PrecomputedVectors


class TwoTower(nn.Module):
    """Both towers, the interaction that scores what they return, and the heads.

    Every score is `score` of what `represent` returned for users and items.

    Args:
        user: The tower of the users.
        item: The tower of the items.
        interaction: Scores what the towers return: the component, its name, or an object of `type` and options as in a
            config.
        heads: Predict further targets from a pair of representations, by name.
        registry: The components to choose the interaction from; by default the built-in and the installed ones.

    Attributes:
        user: The tower of the users.
        item: The tower of the items.
        interaction: The interaction.
        heads: The heads by name.

    Raises:
        ConfigError: If an option of the interaction is invalid, or the towers' results differ in size.

    Example:
        >>> users = UserTower({"identity.id": 1000}, dim=32)
        >>> items = ItemTower({"text.title": 384}, dim=32)
        >>> model = TwoTower(users, items, interaction="cosine")
        >>> user_ids, titles = torch.randint(1000, (8,)), torch.randn(8, 384)  # row n of both: a user and a liked item
        >>> scores = model({"identity.id": user_ids}, {"text.title": titles})  # each user with each item
        >>> scores.shape
        torch.Size([8, 8])
        >>> loss = torch.nn.functional.cross_entropy(scores, torch.arange(8))
        >>> loss.backward()
    """

    def __init__(
        self,
        user: EntityTower,
        item: EntityTower,
        interaction: Interaction | str | JsonObject = "dot",
        heads: Mapping[str, Head] | None = None,
        *,
        registry: Registry | None = None,
    ):
        super().__init__()
        self.user = user
        self.item = item
        if not isinstance(interaction, Interaction):
            interaction = make_interaction(interaction, user, item, registry or discover())
        self.interaction = interaction
        self.heads = nn.ModuleDict(heads or {})

    def forward(
        self,
        users: Mapping[str, Tensor],
        items: Mapping[str, Tensor],
        users_present: Mapping[str, Tensor] | None = None,
        items_present: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Score users against items that are at hand as tensors.

        Args:
            users: The values of the users' features, as for `EntityTower.forward`.
            items: The values of the items' features.
            users_present: The masks of the users' features.
            items_present: The masks of the items' features.

        Returns:
            (users, items), each user with each item.

        Raises:
            DataError: If a name is unknown, or the shapes do not fit.
        """
        return self.score(self._read("user", users, users_present), self._read("item", items, items_present))

    def _read(self, side: Side, values: Mapping[str, Tensor], present: Mapping[str, Tensor] | None) -> Tensor:
        """Return what the interaction reads of records; arguments as for `EntityTower.forward`."""
        columns = self.tower(side).columns(values, present)
        first = next(iter(columns.values())).present
        return self.represent(side, columns, torch.arange(len(first), device=first.device))

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

    @property
    def has_history(self) -> bool:
        """Whether a user's vector depends on the user's earlier interactions."""
        return bool(self.user.histories)

    def tower(self, side: Side) -> EntityTower:
        """Return the tower of a side."""
        return self.user if side == "user" else self.item

    def pair_width(self, items: Tensor) -> int:
        """Return how many numbers `score` holds for each user-item pair while it computes.

        Args:
            items: Representations of items, (items, dim) or (items, features, dim).
        """
        if self.interaction.factorised:
            return 1
        # an interaction that is not a dot product keeps several vectors for each pair
        return 4 * self.interaction.dim * (items.shape[1] if items.dim() == 3 else 1)

    def represent(
        self,
        side: Side,
        columns: Columns,
        rows: Tensor,
        items: Tensor | None = None,
        precomputed: PrecomputedVectors | None = None,
    ) -> Tensor:
        """Return what the interaction reads of rows.

        Args:
            side: The side of the rows.
            columns: The prepared features of that side.
            rows: (batch,) int64, rows of `columns`.
            items: (items, dim) vectors of the item tower, which histories are encoded from.
            precomputed: Features that were encoded elsewhere; if given, `items` is not read.

        Returns:
            Vectors (batch, dim), or (batch, features, dim) if the interaction reads the vectors of the features.
        """
        tower = self.tower(side)
        if precomputed is None and items is not None:
            precomputed = self.read_histories(side, columns, rows, items)
        if self.interaction.reads == "tokens":
            return tower.filled_tokens(columns, rows, precomputed)
        return tower.encode(columns, rows, precomputed)

    def read_histories(self, side: Side, columns: Columns, rows: Tensor, items: Tensor) -> PrecomputedVectors:
        """Encode the features that are made of item vectors; arguments as for `represent`."""
        return {
            name: (encoder(select(columns[name].values, rows), items), columns[name].present.index_select(0, rows))
            for name, encoder in self.tower(side).histories.items()
            if name in columns
        }

    def score(self, users: Tensor, items: Tensor) -> Tensor:
        """Return the scores (batch, items) of what `represent` returned; see `Interaction.score`."""
        return self.interaction.score(users, items)

    def sizes(self) -> dict[str, int]:
        """Return the number of parameters of each part."""
        parts = {"user tower": self.user, "item tower": self.item, "interaction": self.interaction, "heads": self.heads}
        return {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}


def make_interaction(choice: str | JsonObject, user: EntityTower, item: EntityTower, registry: Registry) -> Interaction:
    """Create the interaction of two towers.

    Args:
        choice: Its name, or an object of `type` and options.
        user: The tower of the users.
        item: The tower of the items.
        registry: The components.

    Raises:
        ConfigError: If there is no such interaction, an option is invalid, or the towers' results differ in size.
    """
    options = {"type": choice} if isinstance(choice, str) else dict(choice)
    name = options.pop("type", "dot")
    cls = registry.get("interaction", name, "/interaction/type")
    params = registry.params("interaction", name, options, "/interaction")
    sizes = (user.dim, item.dim) if cls.reads == "tokens" else (user.output_dim, item.output_dim)
    if sizes[0] != sizes[1]:
        what = f"the user tower returns {sizes[0]} dimensions, the item tower {sizes[1]}."
        raise ConfigError(Fault("/interaction", what, "Give both the same size.", "shape"))
    return cls(sizes[0], params, *([(user.token_names, item.token_names)] if cls.reads == "tokens" else []))
