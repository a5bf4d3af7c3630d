"""The two-tower network: encoders and a fusion on each side, an interaction that scores, and heads that predict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, cast

import pyarrow as pa
import torch
from torch import Tensor, nn

from anyrec.core.contracts import Context, Encoder, Fusion, Head, HistoryEncoder, Interaction, during_request
from anyrec.core.ragged import Prepared, move, select
from anyrec.data.ids import Side

IDENTITY = "identity.id"
"""Name of the feature that is the record's own id."""

Columns: TypeAlias = dict[str, Prepared]
"""The prepared features of one side by name, with one row for each record."""

PrecomputedVectors: TypeAlias = dict[str, tuple[Tensor, Tensor]]
"""Features that were encoded elsewhere, by name: vectors (batch, dim) and presence (batch,) bool."""


class Tower(nn.Module):
    """The encoders and the fusion of one side. Turns rows of prepared features into vectors.

    Attributes:
        features: Names of the features (`group.name`), sorted.
        encoders: The encoder of each feature, in the order of `features`.
        pool_groups: Groups whose features are averaged into one vector, sorted.
        token_of: For each feature, the name of the vector that it contributes to: its group if that is pooled.
        token_names: The distinct names of `token_of`, sorted; the fusion reads one vector for each.
        dim: Size of the vector of each feature.
        fusion: Joins the vectors of the features. It is assigned after creation, since it needs `token_names`.
    """

    fusion: Fusion

    def __init__(
        self,
        encoders: dict[str, Encoder],
        pool_groups: Sequence[str],
        dim: int,
        id_dropout: float = 0.0,
        feature_dropout: float = 0.0,
        history_dropout: float = 0.0,
    ):
        """
        Args:
            encoders: The encoder of each feature, by name.
            pool_groups: Groups whose features are averaged into one vector.
            dim: Size of the vector of each feature.
            id_dropout: Fraction of training rows whose id is masked. 0 is used if the id is the only feature.
            feature_dropout: Fraction of training rows in which each feature except ids and histories is masked.
            history_dropout: Fraction of training rows whose histories are all masked. 0 is used if there are no other
                features.
        """
        super().__init__()
        self.features = sorted(encoders)
        self.encoders = nn.ModuleList(encoders[name] for name in self.features)
        self.pool_groups = sorted(pool_groups)
        groups = [name.split(".", 1)[0] for name in self.features]
        self.token_of = [
            group if group in pool_groups else name for group, name in zip(groups, self.features, strict=True)
        ]
        self.token_names = sorted(set(self.token_of))
        self.dim = dim
        self.id_dropout = id_dropout if len(self.features) > 1 else 0.0
        self.feature_dropout = feature_dropout
        self.history_dropout = history_dropout if len(self.features) > len(self.histories) else 0.0

    def named_encoders(self) -> list[tuple[str, Encoder]]:
        """Return the name and the encoder of each feature."""
        return [(name, cast(Encoder, encoder)) for name, encoder in zip(self.features, self.encoders, strict=True)]

    @property
    def histories(self) -> dict[str, HistoryEncoder]:
        """The encoders of features that are made of item vectors, by name of the feature."""
        return {name: encoder for name, encoder in self.named_encoders() if isinstance(encoder, HistoryEncoder)}

    def prepare(self, table: pa.Table, side: Side, context: Context | None = None) -> Columns:
        """Prepare the features of all rows of a table.

        Args:
            table: The records of one side.
            side: The side that the tower encodes.
            context: Context of the request that `table` belongs to; by default that of the model.

        Returns:
            The prepared features. A feature without a column in `table` is left out and counts as missing in all rows.
        """
        columns = {}
        for name, encoder in self.named_encoders():
            source = f"{side}_id" if name == IDENTITY else name
            if source in table.column_names:
                with during_request(context):
                    columns[name] = encoder.encode_column(table.column(source))
        return columns

    def tokens(
        self, columns: Columns, rows: Tensor, precomputed: PrecomputedVectors | None = None
    ) -> tuple[Tensor, Tensor]:
        """Encode the features of rows.

        Args:
            columns: The prepared features.
            rows: (batch,) int64, rows of `columns`; repeats are allowed.
            precomputed: Features that were encoded elsewhere. They can differ between repeats of a row. All other
                features are then encoded once for each distinct row.

        Returns:
            The vectors of the features (batch, features, dim) and their presence (batch, features) bool.
        """
        vectors: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in self.token_names}
        distinct, place = (rows, None) if not precomputed else torch.unique(rows, return_inverse=True)
        if precomputed and self.training and self.history_dropout:
            precomputed = self._mask_histories(precomputed, rows)
        for (name, encoder), token in zip(self.named_encoders(), self.token_of, strict=True):
            if precomputed and name in precomputed:
                vectors[token].append(precomputed[name])
            elif name in columns:
                vector, present = self._encode(name, encoder, columns[name], distinct)
                if place is not None:
                    vector, present = vector.index_select(0, place), present.index_select(0, place)
                vectors[token].append((vector, present))
            else:
                missing = self.fusion.missing.new_zeros(rows.numel(), self.dim)
                vectors[token].append((missing, rows.new_zeros(rows.numel(), dtype=torch.bool)))
        pooled = [_masked_mean(vectors[name]) for name in self.token_names]
        if len(pooled) == 1:
            return pooled[0][0].unsqueeze(1), pooled[0][1].unsqueeze(1)
        return torch.stack([vector for vector, _ in pooled], 1), torch.stack([mask for _, mask in pooled], 1)

    def _encode(self, name: str, encoder: Encoder, column: Prepared, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Encode one feature of `rows: (rows,)`. In training, mask a random fraction of the rows."""
        values, presence = column
        present = presence.index_select(0, rows)
        dropout = self.id_dropout if name == IDENTITY else self.feature_dropout
        if self.training and dropout:
            present = present & (torch.rand(rows.numel(), device=rows.device) >= dropout)
        return encoder(select(values, rows)), present

    def _mask_histories(self, precomputed: PrecomputedVectors, rows: Tensor) -> PrecomputedVectors:
        """Mask all histories of a random fraction `history_dropout` of the rows.

        The tower thereby also learns to rank from the other features alone, as it must for users without a history.
        """
        shown = torch.rand(rows.numel(), device=rows.device) >= self.history_dropout
        return {name: (vectors, present & shown) for name, (vectors, present) in precomputed.items()}

    def forward(self, columns: Columns, rows: Tensor, precomputed: PrecomputedVectors | None = None) -> Tensor:
        """Return the vectors (batch, output_dim) of rows; arguments as for `tokens`."""
        return self.fusion(*self.tokens(columns, rows, precomputed))

    def filled_tokens(self, columns: Columns, rows: Tensor, precomputed: PrecomputedVectors | None = None) -> Tensor:
        """Return the vectors (batch, features, dim) before fusion; a missing feature has its learned default vector.

        Arguments as for `tokens`.
        """
        return self.fusion.fill(*self.tokens(columns, rows, precomputed))


class TowerScorer(nn.Module):
    """Both towers, the interaction that scores what they return, and the heads.

    Every score is `score` of what `represent` returned for users and items.

    Attributes:
        user: The tower of the users.
        item: The tower of the items.
        interaction: Scores representations of users and items.
        heads: Predict further targets from a pair of representations, by name.
    """

    def __init__(self, user: Tower, item: Tower, interaction: Interaction, heads: dict[str, Head]):
        super().__init__()
        self.user = user
        self.item = item
        self.interaction = interaction
        self.heads = nn.ModuleDict(heads)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

    @property
    def has_history(self) -> bool:
        """Whether a user's vector depends on the user's earlier interactions."""
        return bool(self.user.histories)

    def tower(self, side: Side) -> Tower:
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
        return tower(columns, rows, precomputed)

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


def move_columns(columns: Columns, device: torch.device | str) -> Columns:
    """Return prepared features on a device."""
    return {name: Prepared(move(values, device), present.to(device)) for name, (values, present) in columns.items()}


def _masked_mean(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return the mean (batch, dim) of the vectors that are present, and (batch,) whether any of them is.

    Args:
        parts: Vectors (batch, dim) and presence (batch,) of each feature.
    """
    if len(parts) == 1:
        return parts[0]
    vectors = torch.stack([vector for vector, _ in parts], 1)  # (batch, features, dim)
    present = torch.stack([mask for _, mask in parts], 1)  # (batch, features)
    total = torch.where(present.unsqueeze(-1), vectors, 0.0).sum(1)
    return total / present.sum(1, keepdim=True).clamp(min=1), present.any(1)
