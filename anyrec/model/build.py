"""Build an untrained two-tower network from a config and training rows, and check the config against the data."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from anyrec.core.check_config import config_faults
from anyrec.core.config import TWO_TOWER, Config
from anyrec.core.contracts import Context, Encoder, Head
from anyrec.core.effects import chosen_by_user, idle_keys
from anyrec.core.errors import ConfigError, Fault, did_you_mean
from anyrec.core.registry import Registry
from anyrec.data.checks.config_fits import data_faults, data_notes, idle_with_data
from anyrec.data.dataset import Dataset
from anyrec.data.ids import SIDES, Side
from anyrec.data.images import image_place
from anyrec.model.check_index import index_faults
from anyrec.model.graph import join_graph
from anyrec.model.make_towers import (
    feature_column,
    fit_encoders,
    make_encoders,
    make_head,
    make_tower,
    unknown_choices,
    unknown_shares,
)
from anyrec.model.prepare_histories import prepare_column
from anyrec.model.towers import Columns, EntityTower, move_columns
from anyrec.model.two_tower_network import TwoTower, make_interaction


def check_model_type(config: Config, registry: Registry) -> None:
    """Check the model type of a config and its options.

    Raises:
        ConfigError: If there is no such type, or if `two_tower` is given options under `model`.
    """
    if config.model.type == TWO_TOWER:
        if config.model.options():
            hint = "Its options are keys of the config itself."
            raise ConfigError(Fault("/model", "two_tower takes no options here.", hint))
        return
    known = [TWO_TOWER, *registry.names("classical")]
    if config.model.type not in known:
        what = f"there is no model '{config.model.type}'."
        raise ConfigError(Fault("/model/type", what, did_you_mean(config.model.type, known), "unknown plugin"))


def choose_device(config: Config) -> torch.device:
    """Return the device of the config; always the CPU for a classical model.

    Raises:
        ConfigError: If the device is not available.
    """
    name = config.training.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        what = f"there is no device '{name}' here ({error})."
        raise ConfigError(Fault("/training/device", what, "Use 'auto' or 'cpu'.")) from None
    return device if config.model.type == TWO_TOWER else torch.device("cpu")


def training_context(config: Config, dataset: Dataset, device: torch.device, trusted: bool) -> Context:
    """Return the context in which encoders are fitted.

    Args:
        config: Complete config.
        dataset: The data.
        device: The device of the model.
        trusted: Whether the config may name files and addresses outside a model's folder.
    """
    return Context(
        root=Path(config.data.image_root) if config.data.image_root else dataset.root,
        allow_urls=config.data.allow_urls,
        allow_outside_root=config.data.allow_outside_root,
        strict=config.data.strict,
        seed=config.seed,
        device=str(device),
        items=dataset.items,
        trusted=trusted,
        locate=partial(image_place, dataset),
        shard_rows=config.cluster.shard_rows,
    )


def check_with_data(config: Config, registry: Registry, dataset: Dataset, asked: Config | None = None) -> list[str]:
    """Check a complete config against the data, before training.

    Args:
        config: The complete config.
        registry: The components.
        dataset: The data.
        asked: The config as the user wrote it; by default the complete one.

    Returns:
        Notes for the user, among them keys without effect.

    Raises:
        ConfigError: With all faults.
    """
    idle = chosen_by_user([*idle_keys(config, registry), *idle_with_data(config, dataset)], config, asked)
    faults = config_faults(config, registry) or index_faults(config, registry)
    faults += [*data_faults(config, dataset, registry), *(one.fault for one in idle if one.is_fault)]
    if config.model.type == TWO_TOWER:
        for side in SIDES:
            faults += unknown_choices(config.tower(side)[0], registry, dataset, side)
        faults += unknown_shares(config, registry, dataset)
        for name, component in config.heads.items():
            target = registry.get("head", component.type).target if not faults else None
            if target is not None and dataset.column(target) is None:
                faults.append(_no_target(name, target))
    if faults:
        raise ConfigError(list(dict.fromkeys(faults)))
    return [*data_notes(config.data, dataset), *(one.note for one in idle)]


def _no_target(head: str, target: str) -> Fault:
    return Fault(f"/heads/{head}", f"no interaction has '{target}', which this head learns.", "Leave the head out.")


def assemble(
    config: Config,
    registry: Registry,
    dataset: Dataset,
    train: np.ndarray,
    positives: np.ndarray,
    context: Context,
    notes: list[str],
) -> tuple[TwoTower, dict[Side, Columns]]:
    """Fit the encoders, prepare the features of all records, and create the untrained network.

    Args:
        config: Complete config.
        registry: The components.
        dataset: Users and items with their features.
        train: (rows,) training interactions. Encoders are fitted on the users and items that occur in them.
        positives: (rows,) those of `train` that are positive; the edges of the graph of `graph_layers`.
        context: Folder of files, permissions, seed and device.
        notes: Gets a sentence for each feature that is not used.

    Returns:
        The network and the prepared features of each side, on the context's device.

    Raises:
        ConfigError: With all invalid options of both sides.
    """
    towers: dict[Side, EntityTower] = {}
    columns: dict[Side, Columns] = {}
    for side, (encoders, pool_groups) in _encoders_of_sides(config, registry, dataset, notes).items():
        table, rows = dataset.table(side), dataset.user_rows if side == "user" else dataset.item_rows
        there = np.bincount(rows[train], minlength=len(table)) > 0
        fit_encoders(encoders, table, pa.array(np.flatnonzero(there)), side, context)
        prepared = {
            name: prepare_column(encoders[name], feature_column(table, name, side), dataset.scratch)
            for name in sorted(encoders)
        }
        notes += _unread(prepared, encoders, table, side)
        columns[side] = move_columns(prepared, context.device)
        towers[side] = make_tower(config, registry, encoders, pool_groups, side)
    join_graph(config, towers, dataset, positives)
    interaction = make_interaction(config.interaction.model_dump(), towers["user"], towers["item"], registry)
    heads = fit_heads(config, registry, dataset, train, interaction.pair_dim)
    return TwoTower(towers["user"], towers["item"], interaction, heads).to(context.device), columns


def _unread(prepared: Columns, encoders: dict[str, Encoder], table: pa.Table, side: Side) -> list[str]:
    """Return a note for each feature whose values its encoder can read in no record."""
    notes = []
    for name, (_, present) in prepared.items():
        column = feature_column(table, name, side)
        values = len(column) - column.null_count
        if values and not bool(present.any()):
            kind = encoders[name].type
            notes.append(
                f"The {side} feature '{name}' has no effect: the encoder '{kind}' reads none of its {values:,} values."
            )
    return notes


def _encoders_of_sides(
    config: Config, registry: Registry, dataset: Dataset, notes: list[str]
) -> dict[Side, tuple[dict[str, Encoder], list[str]]]:
    """Return what `make_encoders` returns for each side. Raises ConfigError with the faults of both."""
    made: dict[Side, tuple[dict[str, Encoder], list[str]]] = {}
    faults: list[Fault] = []
    for side in SIDES:
        try:
            made[side] = make_encoders(config, registry, dataset, side, notes)
        except ConfigError as error:
            faults += error.faults
    if faults:
        raise ConfigError(list(dict.fromkeys(faults)))
    return made


def fit_heads(config: Config, registry: Registry, dataset: Dataset, train: np.ndarray, dim: int) -> dict[str, Head]:
    """Create the heads of the config and fit each on its target.

    Args:
        config: Complete config.
        registry: The components.
        dataset: The data, with the columns that heads predict.
        train: (rows,) training interactions.
        dim: Size of the vector of a pair that heads read.

    Returns:
        The heads by name.

    Raises:
        ConfigError: If the data does not have a target.
    """
    heads = {}
    for name, component in sorted(config.heads.items()):
        head = make_head(registry, name, component, dim)
        column = dataset.column(head.target)
        if column is None:
            raise ConfigError(_no_target(name, head.target))
        head.fit(column.take(pa.array(train)))
        head.build()
        heads[name] = head
    return heads
