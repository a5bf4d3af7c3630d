"""Config and fitted encoders joined into one nn.Module: two towers, an interaction, heads."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import torch
from torch import Tensor, nn

from anyrec.core.config import Component, Config, Feature
from anyrec.core.contracts import Context, Encoder, Fusion, Head, HistoryEncoder, Interaction, during_request
from anyrec.core.discovery import Registry
from anyrec.core.errors import ConfigError, Fault, did_you_mean
from anyrec.core.ragged import Prepared, move, select
from anyrec.data.dataset import Dataset
from anyrec.data.histories import GROUP as HISTORY
from anyrec.data.ids import Side

SIDES: tuple[Side, Side] = ("user", "item")
IDENTITY = "identity.id"
"""The name of the feature that is the record's own id."""

Columns = dict[str, Prepared]
"""One side's prepared features by name, one row a record each."""

Given = dict[str, tuple[Tensor, Tensor]]
"""Features already made, by name: vectors (batch, dim) and presence (batch,)."""


class Tower(nn.Module):
    """One side's encoders and fusion: rows of prepared features to vectors."""

    def __init__(
        self,
        encoders: dict[str, Encoder],
        together: Sequence[str],
        dim: int,
        id_dropout: float = 0.0,
        feature_dropout: float = 0.0,
        history_dropout: float = 0.0,
    ):
        """Args:
        encoders: By feature name (`group.name`), sorted here.
        together: Groups that are averaged into one vector.
        id_dropout: Fraction of training rows whose id is hidden; 0 if the id is the only feature.
        feature_dropout: Fraction of training rows from which each feature other than id and history is hidden.
        history_dropout: Fraction of training rows whose histories are all hidden; 0 if there are no other features.
        """
        super().__init__()
        self.features = sorted(encoders)
        self.encoders = nn.ModuleList(encoders[name] for name in self.features)
        groups = [_group(name) for name in self.features]
        self.together = sorted(together)
        self.token_of = [
            group if group in together else name for group, name in zip(groups, self.features, strict=True)
        ]
        self.token_names = sorted(set(self.token_of))
        self.dim = dim
        self.id_dropout = id_dropout if len(self.features) > 1 else 0.0
        self.feature_dropout = feature_dropout
        self.history_dropout = history_dropout if len(self.features) > len(self.histories) else 0.0
        self.fusion: Fusion

    def prepare(self, table: pa.Table, side: Side, context: Context | None = None) -> Columns:
        """Every feature's tensors for all rows of `table`; a feature the table lacks is absent in every row.

        Args:
            context: Of the request that `table` came with; by default the model's own.
        """
        columns = {}
        for name, encoder in zip(self.features, self.encoders, strict=True):
            source = f"{side}_id" if name == IDENTITY else name
            assert isinstance(encoder, Encoder)
            if source in table.column_names:
                with during_request(context):
                    columns[name] = encoder.encode_column(table.column(source))
        return columns

    def tokens(self, columns: Columns, rows: Tensor, given: Given | None = None) -> tuple[Tensor, Tensor]:
        """Feature vectors (batch, features, dim) and their presence (batch, features) for `rows: (batch,)`.

        given: features that are made elsewhere. As they tell rows of the same record apart, the others are then made once for each.
        """
        vectors: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in self.token_names}
        distinct, place = (rows, None) if not given else torch.unique(rows, return_inverse=True)
        given = self._some_hidden(given, rows) if given and self.training and self.history_dropout else given
        for name, token, encoder in zip(self.features, self.token_of, self.encoders, strict=True):
            if given and name in given:
                vectors[token].append(given[name])
            elif name in columns:
                values, present = columns[name]
                here = present.index_select(0, distinct)
                hidden = self.id_dropout if name == IDENTITY else self.feature_dropout
                if self.training and hidden:
                    here = here & (torch.rand(distinct.numel(), device=rows.device) >= hidden)
                made = encoder(select(values, distinct))
                if place is not None:
                    made, here = made.index_select(0, place), here.index_select(0, place)
                vectors[token].append((made, here))
            else:
                vectors[token].append(
                    (
                        self.fusion.missing.new_zeros(rows.numel(), self.dim),
                        rows.new_zeros(rows.numel(), dtype=torch.bool),
                    )
                )
        joined = [_mean(vectors[name]) for name in self.token_names]
        if len(joined) == 1:
            return joined[0][0].unsqueeze(1), joined[0][1].unsqueeze(1)
        return torch.stack([vector for vector, _ in joined], 1), torch.stack([mask for _, mask in joined], 1)

    def _some_hidden(self, given: Given, rows: Tensor) -> Given:
        """`given` with all histories absent in a random fraction `history_dropout` of the rows: the other features of a user then
        learn to recommend alone, as they must for new users."""
        shown = torch.rand(rows.numel(), device=rows.device) >= self.history_dropout
        return {name: (vectors, present & shown) for name, (vectors, present) in given.items()}

    def forward(self, columns: Columns, rows: Tensor, given: Given | None = None) -> Tensor:
        """`rows: (batch,)` of `columns` to vectors (batch, output_dim)."""
        return self.fusion(*self.tokens(columns, rows, given))

    def filled_tokens(self, columns: Columns, rows: Tensor, given: Given | None = None) -> Tensor:
        """(batch, features, dim), absent features replaced by their learned stand-ins."""
        return self.fusion.fill(*self.tokens(columns, rows, given))

    @property
    def histories(self) -> dict[str, HistoryEncoder]:
        """The features that are made of item vectors, by name."""
        pairs = zip(self.features, self.encoders, strict=True)
        return {name: encoder for name, encoder in pairs if isinstance(encoder, HistoryEncoder)}


class Model(nn.Module):
    """Two towers and what scores their vectors. `represent` then `score` is the only way to a score."""

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

    def pair_width(self, items: Tensor) -> int:
        """Return how many numbers `score` holds for each pair: an interaction without a dot product keeps vectors of pairs."""
        if self.interaction.factorised:
            return 1
        return 4 * self.interaction.dim * (items.shape[1] if items.dim() == 3 else 1)

    def tower(self, side: Side) -> Tower:
        return self.user if side == "user" else self.item

    def represent(
        self, side: Side, columns: Columns, rows: Tensor, items: Tensor | None = None, given: Given | None = None
    ) -> Tensor:
        """What the interaction reads of `rows: (batch,)`: vectors (batch, dim), or tokens (batch, features, dim).

        items: (items, dim) vectors of the item tower, which histories are made of. given: features that are already made.
        """
        tower = self.tower(side)
        if given is None and items is not None:
            given = self.read_histories(side, columns, rows, items)
        if self.interaction.reads == "tokens":
            return tower.filled_tokens(columns, rows, given)
        return tower(columns, rows, given)

    def read_histories(self, side: Side, columns: Columns, rows: Tensor, items: Tensor) -> Given:
        """The features of `rows: (batch,)` that are made of item vectors, and their presence."""
        return {
            name: (encoder(select(columns[name].values, rows), items), columns[name].present.index_select(0, rows))
            for name, encoder in self.tower(side).histories.items()
            if name in columns
        }

    @property
    def has_history(self) -> bool:
        """Whether users' vectors depend on what they did before."""
        return bool(self.user.histories)

    def score(self, users: Tensor, items: Tensor) -> Tensor:
        """Match scores (batch, items) of what `represent` returned; see `Interaction.score`."""
        return self.interaction.score(users, items)

    def sizes(self) -> dict[str, int]:
        """Number of parameters of each part."""
        parts = {"user tower": self.user, "item tower": self.item, "interaction": self.interaction, "heads": self.heads}
        return {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}


def make_encoders(
    config: Config, registry: Registry, dataset: Dataset, side: Side, notes: list[str]
) -> tuple[dict[str, Encoder], list[str]]:
    """An unfitted encoder for each of one side's features, and the groups to be averaged.

    What cannot be used is said in `notes`. Raises ConfigError with every bad option.
    """
    choices, _ = config.tower(side)
    faults = unknown_choices(choices, registry, dataset, side)
    dim = config.encoder_dim or config.dim
    encoders: dict[str, Encoder] = {}
    for name in [IDENTITY, *dataset.features(side)]:
        group, field = name.split(".", 1)
        where = f"/features/{group}"
        if (side, group, field) == ("user", "temporal", config.data.history):
            continue  # what users had before: part of their histories
        if group in choices and choices[group] is None:
            continue
        choice = choices.get(group) or Feature.model_validate({})
        if field in choice.fields:
            own = choice.fields[field]
            if own is None:
                continue
            where += f"/fields/{field}"
            choice = (
                own if own.type else Feature.model_validate({"type": choice.type, **choice.options(), **own.options()})
            )
        role = dataset.roles.get(f"{side}.{field}", "") if group == "temporal" else ""
        kind = choice.type if choice.type and _fits(registry, choice.type, role) else registry.encoder_for(group, role)
        if kind is None:
            notes.append(f"{side} feature '{name}' is not used: no encoder reads the group '{group}'.")
            continue
        try:
            mine = choice.type == kind or (choice.type is None and role in ("", "numbers"))
            options = choice.options() if mine else {}  # options for number sequences leave timestamps alone
            params = registry.params("encoder", kind, options, where)
            encoders[name] = registry.get("encoder", kind, where)(params, dim)
        except ConfigError as error:
            faults += error.faults
    if not encoders and not faults:
        faults.append(
            Fault(
                "/features", f"every feature of the {side}s is switched off.", "Leave at least one on.", "no features"
            )
        )
    if faults:
        raise ConfigError(list(dict.fromkeys(faults)))
    together = [group for group, choice in choices.items() if choice is not None and choice.pool_group]
    return encoders, together


def fit_encoders(
    encoders: dict[str, Encoder], table: pa.Table, train_rows: pa.Array, side: Side, context: Context
) -> None:
    """Fit each encoder on the training rows of its column."""
    for name, encoder in sorted(encoders.items()):
        encoder.context = context
        column = table.column(f"{side}_id" if name == IDENTITY else name)
        encoder.fit(column.combine_chunks().take(train_rows))


def make_tower(
    config: Config, registry: Registry, encoders: dict[str, Encoder], together: Sequence[str], side: Side
) -> Tower:
    """The tower around fitted (or restored) encoders whose layers are built here, with its fusion."""
    dim = config.encoder_dim or config.dim
    for name in sorted(encoders):
        encoder = encoders[name]
        if isinstance(encoder, HistoryEncoder):
            encoder.item_dim = config.dim
        encoder.build()
    dropouts = config.id_dropout, getattr(config, side).feature_dropout, config.history_dropout
    tower = Tower(encoders, together, dim, *dropouts)
    _, fusion = config.tower(side)
    where = f"/{side}/fusion" if getattr(config, side).fusion else "/fusion"
    params = registry.params("fusion", fusion.type, fusion.options(), where)
    tower.fusion = registry.get("fusion", fusion.type, where)(tower.token_names, dim, config.dim, params)
    return tower


def make_interaction(config: Config, registry: Registry, user: Tower, item: Tower) -> Interaction:
    cls = registry.get("interaction", config.interaction.type, "/interaction/type")
    params = registry.params("interaction", config.interaction.type, config.interaction.options(), "/interaction")
    if cls.reads == "tokens":
        return cls(config.encoder_dim or config.dim, params, (user.token_names, item.token_names))
    return cls(config.dim, params)


def make_head(config: Config, registry: Registry, name: str, component: Component, dim: int) -> Head:
    params = registry.params("head", component.type, component.options(), f"/heads/{name}")
    return registry.get("head", component.type, f"/heads/{name}/type")(dim, params)


def move_columns(columns: Columns, device: torch.device | str) -> Columns:
    return {name: Prepared(move(values, device), present.to(device)) for name, (values, present) in columns.items()}


def _group(name: str) -> str:
    return name.split(".", 1)[0]


def _mean(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """The mean over those present of vectors (batch, dim), and whether any is."""
    if len(parts) == 1:
        return parts[0]
    vectors = torch.stack([vector for vector, _ in parts], 1)
    present = torch.stack([mask for _, mask in parts], 1)
    total = torch.where(present.unsqueeze(-1), vectors, 0.0).sum(1)
    return total / present.sum(1, keepdim=True).clamp(min=1), present.any(1)


def _fits(registry: Registry, kind: str, role: str) -> bool:
    """Whether the encoder reads what a temporal feature holds; a choice for number sequences leaves timestamps alone."""
    return all(plugin.role in ("", role) for plugin in registry.plugins("encoder") if plugin.type == kind) or not role


def unknown_choices(
    choices: dict[str, Feature | None], registry: Registry, dataset: Dataset, side: Side
) -> list[Fault]:
    """Faults for groups and fields that neither the data nor any encoder knows."""
    faults = []
    history = choices.get(HISTORY)
    fields = {"identity": {"id"}, HISTORY: set(history.fields if history else ())}  # those the config itself names
    for other in SIDES:
        for name in dataset.features(other):
            group, field = name.split(".", 1)
            fields.setdefault(group, set()).add(field)
    known = set(registry.groups()) | set(fields)
    for group, choice in choices.items():
        if group not in known:
            faults.append(
                Fault(f"/features/{group}", "no such feature group.", did_you_mean(group, known), "unknown group")
            )
        for field in choice.fields if choice else ():
            if field not in fields.get(group, set()):
                faults.append(
                    Fault(
                        f"/features/{group}/fields/{field}",
                        f"the data has no feature '{field}' in the group '{group}'.",
                        did_you_mean(field, fields.get(group, {"(none)"})),
                        "unknown field",
                    )
                )
    return faults
