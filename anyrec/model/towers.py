"""The towers: each encodes the features of users or items and joins them into one vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from anyrec.core.contracts import Encoder, Fusion, HistoryEncoder
from anyrec.core.discovery import discover
from anyrec.core.errors import ConfigError, DataError, Fault, did_you_mean
from anyrec.core.ragged import Prepared, move, select
from anyrec.core.registry import Registry
from anyrec.core.row_masks import among, drawn
from anyrec.core.types import JsonObject
from anyrec.core.values import show
from anyrec.model.dim_shares import dim_shares, group_of

IDENTITY = "identity.id"
"""Name of the feature that is the record's own id."""
ID_GROUPS = ("identity", "categorical")
"""Groups whose features are integers that a table is looked up by, if a tower is given their number."""

Columns: TypeAlias = dict[str, Prepared]
"""The prepared features of one side by name, with one row for each record."""

PrecomputedVectors: TypeAlias = dict[str, tuple[Tensor, Tensor]]
"""Features that were encoded elsewhere, by name: vectors (batch, width) and presence (batch,) bool."""


class EntityTower(nn.Module):
    """Encodes the features of records and joins them into one vector for each record.

    The frame's own towers are `UserTower` and `ItemTower` with the encoders of the config. With sizes instead of
    encoders, a tower is a plain module over vectors and ids that your program has already.

    Args:
        features: By name (`group.name`), the module that encodes the feature's values, or a size. A module returns
            (batch, width), where the width is `dim`, or the share of its group if there is a `dim_ratio`. A size is a
            number of ids for the groups `identity` and `categorical`, which are looked up in a table, and the length of
            the vectors for all other groups, which pass a linear layer.
        dim: Size of the vector of each feature.
        output_dim: Size of the result; by default `dim`.
        fusion: The component that joins the vectors: its name, or an object of `type` and options as in a config.
        dim_ratio: Shares `dim` between groups of features, such as `{"text": 7, "categorical": 2, "continuous": 1}`:
            the vectors of a group are zero outside of its part. Groups that are not named have all of it.
        pool_groups: Groups whose features are averaged into one vector.
        id_dropout: Fraction of training rows whose id is masked. 0 is used if the id is the only feature.
        feature_dropout: Fraction of training rows in which each feature except ids and histories is masked.
        registry: The components to choose the fusion from; by default the built-in and the installed ones.

    Attributes:
        features: Names of the features, sorted.
        encoders: The module of each feature, in the order of `features`.
        token_of: For each feature, the name of the vector that it contributes to: its group if that is pooled.
        token_names: The distinct names of `token_of`, sorted; the fusion reads one vector for each.
        shares: The share of each group in `dim_ratio`.
        fusion: The component that joins the vectors.

    Raises:
        ConfigError: If an option of the fusion is invalid, or `dim` cannot be shared in this ratio.

    Example:
        >>> sizes = {"text.title": 384, "image.photo": 512, "categorical.brand": 100}
        >>> tower = EntityTower(sizes, dim=64, dim_ratio={"text": 7, "image": 2, "categorical": 1})
        >>> titles, photos, brands = torch.randn(8, 384), torch.randn(8, 512), torch.randint(100, (8,))
        >>> tower({"text.title": titles, "image.photo": photos, "categorical.brand": brands}).shape
        torch.Size([8, 64])
    """

    fusion: Fusion

    def __init__(
        self,
        features: Mapping[str, nn.Module | int],
        dim: int = 64,
        output_dim: int | None = None,
        *,
        fusion: str | JsonObject = "simple",
        dim_ratio: Mapping[str, float] | None = None,
        pool_groups: Sequence[str] = (),
        id_dropout: float = 0.0,
        feature_dropout: float = 0.0,
        registry: Registry | None = None,
    ):
        super().__init__()
        check_sizes(features, dim, output_dim)
        self.features = sorted(features)
        self.dim = dim
        self.shares = dim_shares(self.features, dim, dim_ratio)
        strange = [group for group in dim_ratio or () if group not in self.shares]
        if strange:
            groups = sorted({group_of(name) for name in features})
            what = "no feature is of this group."
            raise ConfigError([Fault(f"/dim_ratio/{one}", what, did_you_mean(one, groups)) for one in strange])
        self.encoders = nn.ModuleList(
            self._of_size(name, part) if isinstance(part, int) else part for name, part in sorted(features.items())
        )
        self.pool_groups = sorted(pool_groups)
        groups = [group_of(name) for name in self.features]
        self.token_of = [
            group if group in pool_groups else name for group, name in zip(groups, self.features, strict=True)
        ]
        self.token_names = sorted(set(self.token_of))
        self.id_dropout = id_dropout if len(self.features) > 1 else 0.0
        self.feature_dropout = feature_dropout
        self.fusion = make_fusion(fusion, self.token_names, dim, output_dim or dim, registry or discover())

    @property
    def output_dim(self) -> int:
        """Size of the result."""
        return self.fusion.output_dim

    def width(self, name: str) -> int:
        """Return the size of the vector that the module of a feature returns."""
        share = self.shares.get(group_of(name))
        return self.dim if share is None else share.width

    def named_encoders(self) -> list[tuple[str, Encoder]]:
        """Return the name and the encoder of each feature."""
        return [(name, cast(Encoder, encoder)) for name, encoder in zip(self.features, self.encoders, strict=True)]

    @property
    def histories(self) -> dict[str, HistoryEncoder]:
        """The encoders of features that are made of item vectors, by name of the feature."""
        return {name: encoder for name, encoder in self.named_encoders() if isinstance(encoder, HistoryEncoder)}

    def forward(self, values: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None) -> Tensor:
        """Encode records that are at hand as tensors.

        Args:
            values: The values of the features by name: (batch,) int64 ids, (batch, size) float vectors, or what the
                feature's own module reads. A feature that is left out is missing in all rows.
            present: By name, (batch,) bool whether a row has the feature; without a mask all rows have it. The values
                of a missing feature have no effect.

        Returns:
            (batch, output_dim).

        Raises:
            DataError: If a name is unknown, or the shapes do not fit.
        """
        columns = self.columns(values, present)
        first = next(iter(columns.values())).present
        return self.encode(columns, torch.arange(len(first), device=first.device))

    def encode(self, columns: Columns, rows: Tensor, precomputed: PrecomputedVectors | None = None) -> Tensor:
        """Return the vectors (batch, output_dim) of rows; arguments as for `tokens`."""
        return self.fusion(*self.tokens(columns, rows, precomputed))

    def filled_tokens(self, columns: Columns, rows: Tensor, precomputed: PrecomputedVectors | None = None) -> Tensor:
        """Return the vectors (batch, features, dim) before fusion; a missing feature has its learned default vector.

        Arguments as for `tokens`.
        """
        return self.fusion.fill(*self.tokens(columns, rows, precomputed))

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
        encoded: PrecomputedVectors = {}
        distinct, place = (rows, None) if not precomputed else torch.unique(rows, return_inverse=True)
        for name, encoder in self.named_encoders():
            if precomputed and name in precomputed:
                vector, present = precomputed[name]
            elif name in columns:
                with among(distinct) if place is not None else nullcontext():
                    vector, present = self._encode(name, encoder, columns[name], distinct)
                if place is not None:
                    vector, present = vector.index_select(0, place), present.index_select(0, place)
            else:
                vector = self.fusion.missing.new_zeros(rows.numel(), self.width(name))
                present = rows.new_zeros(rows.numel(), dtype=torch.bool)
            encoded[name] = vector, present
        return self.joined(encoded)

    def joined(self, encoded: PrecomputedVectors) -> tuple[Tensor, Tensor]:
        """Put the vectors of all features in their places.

        Args:
            encoded: The vectors of each feature and their presence, in the order of `features`.

        Returns:
            As of `tokens`.
        """
        vectors: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in self.token_names}
        for (name, (vector, present)), token in zip(encoded.items(), self.token_of, strict=True):
            vectors[token].append((self._placed(name, vector), present))
        pooled = [_masked_mean(vectors[name]) for name in self.token_names]
        if len(pooled) == 1:
            return pooled[0][0].unsqueeze(1), pooled[0][1].unsqueeze(1)
        return torch.stack([vector for vector, _ in pooled], 1), torch.stack([mask for _, mask in pooled], 1)

    def _encode(self, name: str, encoder: nn.Module, column: Prepared, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Encode one feature of `rows: (rows,)`. In training, mask a random fraction of the rows."""
        values, presence = column
        present = presence.index_select(0, rows)
        dropout = self.id_dropout if name == IDENTITY else self.feature_dropout
        if self.training and dropout:
            present = present & (drawn(rows.shape, partial(torch.rand, device=rows.device)) >= dropout)
        return encoder(select(values, rows)), present

    def _placed(self, name: str, vector: Tensor) -> Tensor:
        """Return a feature's vector (batch, width) as (batch, dim): zero outside of the share of its group."""
        if vector.shape[-1] != self.width(name):
            what = f"its module returns {tuple(vector.shape)}; expected (batch, {self.width(name)})."
            hint = "The width is `dim`, or the share of its group in `dim_ratio`."
            raise ConfigError(Fault(name, what, hint, "shape"))
        share = self.shares.get(group_of(name))
        if share is None:
            return vector
        return functional.pad(vector, (share.start, self.dim - share.start - share.width))

    def _of_size(self, name: str, size: int) -> nn.Module:
        """Return the module of a feature of which only the size is given."""
        return (nn.Embedding if group_of(name) in ID_GROUPS else nn.Linear)(size, self.width(name))

    def columns(self, values: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None) -> Columns:
        """Check tensors, and return them as prepared features; arguments and errors as for `forward`.

        The values of missing features become zero, so that they have no effect on gradients either.
        """
        present = present or {}
        faults = [
            Fault(str(name), f"expected a tensor (rows, ...); found a {type(value).__name__}.", kind="shape")
            for part in (values, present)
            for name, value in part.items()
            if not isinstance(value, Tensor) or not value.dim()
        ]
        if faults:
            raise DataError(faults)
        faults = [
            Fault(name, "the tower has no such feature.", did_you_mean(name, self.features), "unknown feature")
            for name in dict.fromkeys([*values, *present])
            if name not in self.features
        ]
        faults += [Fault(name, "this mask has no values.", kind="shape") for name in present if name not in values]
        rows = [value.shape[:1] for value in values.values()]
        if not rows or len(set(rows)) > 1:
            found = ", ".join(f"{name} {tuple(value.shape)}" for name, value in values.items()) or "no feature"
            faults.append(Fault("values", f"expected the same number of rows in all features; found {found}."))
        if faults:
            raise DataError(faults)
        columns, encoders = {}, dict(zip(self.features, self.encoders, strict=True))
        for name, value in values.items():
            mask = present.get(name)
            if mask is None:
                mask = torch.ones(len(value), dtype=torch.bool, device=value.device)
            found = _shape_faults(name, value, mask, encoders[name])
            if not found and name in present:
                value = torch.where(mask.view(-1, *[1] * (value.dim() - 1)), value, torch.zeros_like(value))
            faults += found or _id_faults(name, value, encoders[name])
            columns[name] = Prepared(value, mask)
        if faults:
            raise DataError(faults)
        return columns


class UserTower(EntityTower):
    """The tower of users. It also reads histories: features that are made of the vectors of the item tower.

    Attributes:
        history_dropout: Fraction of training rows whose histories are all masked. No effect if users have no other
            features.

    Example:
        >>> tower = UserTower({"identity.id": 1000, "continuous.profile": 5}, dim=32)
        >>> tower({"identity.id": torch.tensor([3, 999]), "continuous.profile": torch.randn(2, 5)}).shape
        torch.Size([2, 32])
    """

    history_dropout: float = 0.0

    def tokens(
        self, columns: Columns, rows: Tensor, precomputed: PrecomputedVectors | None = None
    ) -> tuple[Tensor, Tensor]:
        if precomputed and self.training and self.history_dropout and len(self.features) > len(self.histories):
            precomputed = self._mask_histories(precomputed, rows)
        return super().tokens(columns, rows, precomputed)

    def _mask_histories(self, precomputed: PrecomputedVectors, rows: Tensor) -> PrecomputedVectors:
        """Mask all histories of a random fraction `history_dropout` of the rows.

        The tower thereby also learns to rank from the other features alone, as it must for users without a history.
        """
        shown = drawn(rows.shape, partial(torch.rand, device=rows.device)) >= self.history_dropout
        return {name: (vectors, present & shown) for name, (vectors, present) in precomputed.items()}


class ItemTower(EntityTower):
    """The tower of items. Its vectors are those that histories of users are made of and that indexes search.

    Example:
        >>> tower = ItemTower({"text.title": 384, "categorical.brand": 100}, dim=32, fusion="gated")
        >>> known = {"categorical.brand": torch.tensor([True, False])}
        >>> tower({"text.title": torch.randn(2, 384), "categorical.brand": torch.tensor([7, 0])}, known).shape
        torch.Size([2, 32])
    """


def check_sizes(features: Mapping[str, nn.Module | int], dim: int, output_dim: int | None) -> None:
    """Check the sizes and modules of a tower. Raises ConfigError with all faults."""
    sizes = {"dim": dim, **({} if output_dim is None else {"output_dim": output_dim})}
    sizes |= {name: one for name, one in features.items() if not isinstance(one, nn.Module)}
    faults = [
        Fault(name, f"expected a size of at least 1; found {show(size)}.", kind="bad value")
        for name, size in sizes.items()
        if not isinstance(size, int) or isinstance(size, bool) or size < 1
    ]
    if not features:
        faults.append(Fault("features", "expected at least one feature; found none.", kind="bad value"))
    if faults:
        raise ConfigError(faults)


def make_fusion(
    choice: str | JsonObject, names: Sequence[str], dim: int, output_dim: int, registry: Registry
) -> Fusion:
    """Create a fusion.

    Args:
        choice: Its name, or an object of `type` and options.
        names: Names of the vectors that it joins.
        dim: Size of each vector.
        output_dim: Size of the result.
        registry: The components.

    Raises:
        ConfigError: If there is no such fusion, or an option is invalid.
    """
    options = {"type": choice} if isinstance(choice, str) else dict(choice)
    name = options.pop("type", "simple")
    return registry.get("fusion", name, "/fusion/type")(
        names, dim, output_dim, registry.params("fusion", name, options, "/fusion")
    )


def move_columns(columns: Columns, device: torch.device | str) -> Columns:
    """Return prepared features on a device."""
    return {name: Prepared(move(values, device), present.to(device)) for name, (values, present) in columns.items()}


def _shape_faults(name: str, value: Tensor, mask: Tensor, encoder: nn.Module) -> list[Fault]:
    """Return the faults of the shapes and types of a feature's values and mask."""
    rows, faults = len(value), []
    if mask.dtype != torch.bool or mask.shape != (rows,):
        found = f"{mask.dtype} {tuple(mask.shape)}"
        faults.append(Fault(name, f"expected a mask of bool ({rows},); found {found}.", kind="shape"))
    wanted = None
    if isinstance(encoder, nn.Embedding) and (value.shape != (rows,) or value.dtype not in (torch.int32, torch.int64)):
        wanted = f"int64 ids ({rows},)"
    if isinstance(encoder, nn.Linear) and (value.shape != (rows, encoder.in_features) or not value.is_floating_point()):
        wanted = f"float vectors ({rows}, {encoder.in_features})"
    if wanted:
        faults.append(Fault(name, f"expected {wanted}; found {value.dtype} {tuple(value.shape)}.", kind="shape"))
    return faults


def _id_faults(name: str, ids: Tensor, encoder: nn.Module) -> list[Fault]:
    """Return the fault of ids that the table of a feature does not have. On a GPU they are not compared: it waits."""
    if not isinstance(encoder, nn.Embedding) or ids.is_cuda or not ids.numel():
        return []
    low, high = int(ids.min()), int(ids.max())
    if low >= 0 and high < encoder.num_embeddings:
        return []
    what = f"expected ids from 0 to {encoder.num_embeddings - 1}; found {low} to {high}."
    return [Fault(name, what, "Mask the rows without a known id.", "unknown id")]


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
