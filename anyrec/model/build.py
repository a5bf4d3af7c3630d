"""From config and training rows to a model that is ready to train: encoders fitted, all rows prepared, layers made."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch

from anyrec.core.check_config import config_faults
from anyrec.core.config import TWO_TOWER, Config
from anyrec.core.contracts import Context, Head
from anyrec.core.discovery import Registry
from anyrec.core.errors import ConfigError, Fault, did_you_mean
from anyrec.data.checks.config_fits import data_faults
from anyrec.data.dataset import Dataset
from anyrec.data.ids import Side
from anyrec.model.graph import join_graph
from anyrec.model.towers import (
    IDENTITY,
    SIDES,
    Columns,
    Model,
    Tower,
    fit_encoders,
    make_encoders,
    make_head,
    make_interaction,
    make_tower,
    move_columns,
    unknown_choices,
)


def check_model_type(config: Config, registry: Registry) -> None:
    """Raise ConfigError if there is no model of the type that the config names, or it takes no such options."""
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
    """Return the device that the config names; a classical model computes on the CPU. Raises ConfigError if it is not there."""
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


def check_with_data(config: Config, registry: Registry, dataset: Dataset) -> None:
    """Check a resolved config against the data, before anything is learned. Raises ConfigError with every fault."""
    faults = [*config_faults(config, registry), *data_faults(config, dataset)]
    if config.model.type == TWO_TOWER:
        for side in SIDES:
            faults += unknown_choices(config.tower(side)[0], registry, dataset, side)
        for name, component in config.heads.items():
            target = getattr(registry.get("head", component.type), "target", None) if not faults else None
            if target is not None and dataset.column(target) is None:
                faults.append(_no_target(name, target))
    if faults:
        raise ConfigError(list(dict.fromkeys(faults)))


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
) -> tuple[Model, dict[Side, Columns]]:
    """Return the untrained model and each side's prepared features, on the context's device.

    Args:
        config: Complete config.
        registry: The components.
        dataset: Users and items with their features.
        train: (rows,) interactions whose users and items the encoders may learn from.
        positives: (rows,) those of `train` that are positive; encoders that propagate along a graph learn from these.
        context: Folder of files, seed and device.
        notes: Gets a sentence for each feature that cannot be used.

    Raises:
        ConfigError: With every bad option of both sides.
    """
    made, faults = {}, []
    for side in SIDES:
        try:
            made[side] = make_encoders(config, registry, dataset, side, notes)
        except ConfigError as error:
            faults += error.faults
    if faults:
        raise ConfigError(list(dict.fromkeys(faults)))
    towers: dict[Side, Tower] = {}
    columns: dict[Side, Columns] = {}
    for side in SIDES:
        encoders, together = made[side]
        table, rows = dataset.table(side), dataset.user_rows if side == "user" else dataset.item_rows
        fit_encoders(encoders, table, pa.array(np.unique(rows[train])), side, context)
        prepared = {
            name: encoders[name].encode_column(table.column(f"{side}_id" if name == IDENTITY else name))
            for name in sorted(encoders)
        }
        columns[side] = move_columns(prepared, context.device)
        towers[side] = make_tower(config, registry, encoders, together, side)
    join_graph(config, towers, dataset, positives)
    interaction = make_interaction(config, registry, towers["user"], towers["item"])
    heads = fit_heads(config, registry, dataset, train, interaction.pair_dim)
    return Model(towers["user"], towers["item"], interaction, heads).to(context.device), columns


def fit_heads(config: Config, registry: Registry, dataset: Dataset, train: np.ndarray, dim: int) -> dict[str, Head]:
    """The heads of the config, each fitted on its target of the training rows."""
    heads = {}
    for name, component in sorted(config.heads.items()):
        head = make_head(config, registry, name, component, dim)
        column = dataset.column(head.target)
        if column is None:
            raise ConfigError(_no_target(name, head.target))
        head.fit(column.take(pa.array(train)))
        head.build()
        heads[name] = head
    return heads
