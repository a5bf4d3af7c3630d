"""Create the parts of the two-tower network from a config: encoders, towers and heads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa

from anyrec.core.config import Component, Config, Feature
from anyrec.core.contracts import Context, Encoder, Head, HistoryEncoder
from anyrec.core.errors import ConfigError, Fault, did_you_mean
from anyrec.core.registry import Registry
from anyrec.data.checks.config_fits import unread_note
from anyrec.data.dataset import Dataset
from anyrec.data.histories import GROUP as HISTORY
from anyrec.data.ids import SIDES, Side
from anyrec.data.list_columns import one_chunk
from anyrec.model.dim_shares import dim_shares, group_of
from anyrec.model.towers import IDENTITY, EntityTower, ItemTower, UserTower


def make_encoders(
    config: Config, registry: Registry, dataset: Dataset, side: Side, notes: list[str]
) -> tuple[dict[str, Encoder], list[str]]:
    """Create an unfitted encoder for each feature of one side.

    Args:
        config: Complete config.
        registry: The components.
        dataset: The data, for the names of its features.
        side: The side.
        notes: Gets a sentence for each feature that no encoder reads.

    Returns:
        The encoders by name of the feature, and the groups whose features are averaged into one vector.

    Raises:
        ConfigError: With all options that are invalid.
    """
    choices, _ = config.tower(side)
    faults = unknown_choices(choices, registry, dataset, side)
    found = []
    for name, choice, where in _chosen_features(config, dataset, side):
        group, field = name.split(".", 1)
        role = dataset.roles.get(f"{side}.{field}", "") if group == "temporal" else ""
        fits = choice.type and _reads_role(registry, choice.type, role)
        kind = choice.type if fits else registry.encoder_for(group, role)
        if kind is None:
            notes.append(unread_note(name, side))
            continue
        # options for number sequences do not apply to timestamps of the same group
        applies = choice.type == kind or (choice.type is None and role in ("", "numbers"))
        found.append((name, kind, choice.options() if applies else {}, where))
    widths = feature_widths(config, [name for name, *_ in found])
    encoders: dict[str, Encoder] = {}
    for name, kind, options, where in found:
        try:
            params = registry.params("encoder", kind, options, where)
            encoders[name] = registry.get("encoder", kind, where)(params, widths[name])
            encoders[name].where = where
        except ConfigError as error:
            faults += error.faults
    if not encoders and not faults:
        what = f"every feature of the {side}s is switched off."
        faults.append(Fault("/features", what, "Leave at least one on.", "no features"))
    if faults:
        raise ConfigError(list(dict.fromkeys(faults)))
    return encoders, [group for group, choice in choices.items() if choice is not None and choice.pool_group]


def feature_widths(config: Config, names: Iterable[str]) -> dict[str, int]:
    """Return the dimension of the vector that the encoder of each feature of one side returns.

    Args:
        config: The config.
        names: The names of all features of the side that an encoder reads.

    Raises:
        ConfigError: If `dim_ratio` names more groups than there are dimensions.
    """
    names, dim = list(names), config.encoder_dim or config.dim
    shares = dim_shares(names, dim, config.dim_ratio)
    return {name: shares[group_of(name)].width if group_of(name) in shares else dim for name in names}


def _chosen_features(config: Config, dataset: Dataset, side: Side) -> Iterator[tuple[str, Feature, str]]:
    """Yield the name, the options and the JSON pointer of each feature that the config does not switch off."""
    choices, _ = config.tower(side)
    for name in [IDENTITY, *dataset.features(side)]:
        group, field = name.split(".", 1)
        if (side, group, field) == ("user", "temporal", config.data.history):
            continue  # the items in this list are part of the users' histories
        if group in choices and choices[group] is None:
            continue
        own_side = group in (config.user if side == "user" else config.item).features
        where = f"/{side}/features/{group}" if own_side else f"/features/{group}"
        choice = choices.get(group) or Feature.model_validate({})
        if field in choice.fields:
            own = choice.fields[field]
            if own is None:
                continue
            where += f"/fields/{field}"
            choice = own.within(choice)
        yield name, choice, where


def _reads_role(registry: Registry, kind: str, role: str) -> bool:
    """Return True if an encoder reads temporal features of a role, such as numbers or timestamps."""
    return not role or all(p.role in ("", role) for p in registry.plugins("encoder") if p.type == kind)


def unknown_choices(
    choices: dict[str, Feature | None], registry: Registry, dataset: Dataset, side: Side
) -> list[Fault]:
    """Return a fault for each group and field of the config that neither the data nor an encoder has."""
    faults = []
    history = choices.get(HISTORY)
    fields = {"identity": {"id"}, HISTORY: set(history.fields if history else ())}  # the config itself names these
    for other in SIDES:
        for name in dataset.features(other):
            group, field = name.split(".", 1)
            fields.setdefault(group, set()).add(field)
    known = set(registry.groups()) | set(fields)
    for group, choice in choices.items():
        where = f"/features/{group}"
        if group not in known:
            faults.append(Fault(where, "no such feature group.", did_you_mean(group, known), "unknown group"))
        for field in choice.fields if choice else ():
            if field not in fields.get(group, set()):
                what = f"the data has no feature '{field}' in the group '{group}'."
                hint = did_you_mean(field, fields.get(group, {"(none)"}))
                faults.append(Fault(f"{where}/fields/{field}", what, hint, "unknown field"))
    return faults


def unknown_shares(config: Config, registry: Registry, dataset: Dataset) -> list[Fault]:
    """Return a fault for each group of `dim_ratio` that neither the data nor an encoder has."""
    known = {*registry.groups(), *(group_of(name) for side in SIDES for name in dataset.features(side))}
    return [
        Fault(f"/dim_ratio/{group}", "no such feature group.", did_you_mean(group, known), "unknown group")
        for group in config.dim_ratio or ()
        if group not in known
    ]


def fit_encoders(
    encoders: dict[str, Encoder], table: pa.Table, train_rows: pa.Array, side: Side, context: Context
) -> None:
    """Fit each encoder on the training rows of its column.

    Args:
        encoders: Unfitted encoders by name of the feature.
        table: The records of the side.
        train_rows: (rows,) records that occur in the training interactions.
        side: The side.
        context: Folder of files, permissions, seed and device.
    """
    for name, encoder in sorted(encoders.items()):
        encoder.context = context
        column = one_chunk(feature_column(table, name, side))
        encoder.fit(column if len(train_rows) == len(column) else column.take(train_rows))


def feature_column(table: pa.Table, name: str, side: Side) -> pa.ChunkedArray:
    """Return the column of a feature; that of `identity.id` is the record's id."""
    return table.column(f"{side}_id" if name == IDENTITY else name)


def make_tower(
    config: Config, registry: Registry, encoders: dict[str, Encoder], pool_groups: Iterable[str], side: Side
) -> EntityTower:
    """Create the tower of one side and the layers of its encoders.

    Args:
        config: Complete config.
        registry: The components.
        encoders: Fitted or restored encoders by name of the feature.
        pool_groups: Groups whose features are averaged into one vector.
        side: The side.
    """
    for name in sorted(encoders):  # the order of creation decides the initial weights
        encoder = encoders[name]
        if isinstance(encoder, HistoryEncoder):
            encoder.item_dim = config.dim
        encoder.build()
    options = config.user if side == "user" else config.item
    _, fusion = config.tower(side)
    groups = {group_of(name) for name in encoders}
    ratio = {group: part for group, part in (config.dim_ratio or {}).items() if group in groups}
    tower = (UserTower if side == "user" else ItemTower)(
        encoders,
        config.encoder_dim or config.dim,
        config.dim,
        fusion=fusion.model_dump(),
        dim_ratio=ratio,
        pool_groups=list(pool_groups),
        id_dropout=config.id_dropout,
        feature_dropout=options.feature_dropout,
        registry=registry,
    )
    if isinstance(tower, UserTower):
        tower.history_dropout = config.history_dropout
    return tower


def make_head(registry: Registry, name: str, component: Component, dim: int) -> Head:
    """Create an unfitted head.

    Args:
        registry: The components.
        name: Key of the head in the config.
        component: Its type and options.
        dim: Size of the vector of a pair that it reads (`Interaction.pair_dim`).
    """
    params = registry.params("head", component.type, component.options(), f"/heads/{name}")
    return registry.get("head", component.type, f"/heads/{name}/type")(dim, params)
