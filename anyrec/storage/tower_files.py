"""The files of a two-tower model in its directory: weights, and the states of encoders and heads."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
from safetensors.torch import save_file
from torch import Tensor

from anyrec.core.config import Config
from anyrec.core.contracts import Context, Encoder, Head
from anyrec.core.manifest import read_object
from anyrec.core.registry import Registry
from anyrec.core.saved_files import AGAIN, bounded_by, damaged, read_tensors, require_finite
from anyrec.core.types import Json, JsonObject
from anyrec.data.ids import SIDES
from anyrec.model.make_towers import feature_widths, make_head, make_tower
from anyrec.model.towers import EntityTower
from anyrec.model.two_tower import HISTORY_VECTORS, TOKENS, TwoTowerModel
from anyrec.model.two_tower_network import TwoTower, make_interaction
from anyrec.storage.states import pack, unpack

STATE = "preprocessing/state.json"
POOL_GROUPS = "together"
"""Key of a tower's `pool_groups` in the state file, after the side: part of the file format."""


def write_towers(scorer: TwoTower, folder: Path) -> None:
    """Write the weights and the states of the encoders and heads."""
    weights = {name: value.detach().cpu().contiguous() for name, value in scorer.state_dict().items()}
    save_file(weights, folder / "model.safetensors")
    preprocessing = folder / STATE
    states: JsonObject = {}
    for side in SIDES:
        tower = scorer.tower(side)
        states[side] = {
            name: {
                "type": encoder.type,
                "params": encoder.saved_params(),
                "input_dim": encoder.input_dim,
                "state": pack(encoder.state(), preprocessing.parent, f"{side}-{index}"),
            }
            for index, (name, encoder) in enumerate(tower.named_encoders())
        }
        states[f"{side}_{POOL_GROUPS}"] = tower.pool_groups
    states["heads"] = {
        name: pack(head.state(), preprocessing.parent, f"head-{index}")
        for index, (name, head) in enumerate(scorer.heads.items())
        if isinstance(head, Head)
    }
    write_json(preprocessing, states)


def read_towers(directory: Path, config: Config, registry: Registry, context: Context) -> TwoTower:
    """Read what `write_towers` wrote: restore the encoders, create the layers of the config, load the weights.

    Args:
        directory: The model directory.
        config: The model's config.
        registry: The components.
        context: Folder of files, permissions, seed and device.

    Raises:
        ModelError: If a file is damaged, the files do not fit each other, or a weight is not finite.
    """
    states, weights = read_object(directory / STATE, AGAIN), directory / "model.safetensors"
    with damaged(directory, "its parts do not fit each other"):
        with bounded_by(weights):
            scorer = _made(states, directory, config, registry, context)
        hint = "Use the versions in manifest.json."
        with damaged(weights, "the weights do not fit the components installed here", hint):
            tensors = read_tensors(weights, finite=False)
            scorer.load_state_dict(tensors)
            require_finite({name: value.detach() for name, value in scorer.named_parameters()})
            for name, buffer in scorer.named_buffers():  # a buffer can be infinite, as a limit of a bin is
                if buffer.is_floating_point() and bool(buffer.isnan().any()):
                    raise ValueError(f"'{name}' holds NaN")
    return scorer


def _made(states: JsonObject, directory: Path, config: Config, registry: Registry, context: Context) -> TwoTower:
    """Create the network of a config around restored encoders and heads, with random weights."""
    folder = (directory / STATE).parent
    towers: dict[str, EntityTower] = {}
    for side in SIDES:
        encoders, widths = {}, feature_widths(config, states[side])
        for name, saved in states[side].items():
            where = f"/features/{name}"
            params = registry.params("encoder", saved["type"], saved["params"], where)
            encoder: Encoder = registry.get("encoder", saved["type"], where)(params, widths[name])
            encoder.context = context
            encoder.input_dim = saved["input_dim"]
            encoder.restore(unpack(saved["state"], folder))
            encoders[name] = encoder
        towers[side] = make_tower(config, registry, encoders, states[f"{side}_{POOL_GROUPS}"], side)
    interaction = make_interaction(config.interaction.model_dump(), towers["user"], towers["item"], registry)
    heads = {}
    for name, component in sorted(config.heads.items()):
        head = make_head(registry, name, component, interaction.pair_dim)
        head.restore(unpack(states["heads"][name], folder))
        head.build()
        heads[name] = head
    return TwoTower(towers["user"], towers["item"], interaction, heads)


def check_vectors(model: TwoTowerModel, known: dict[str, Tensor], directory: Path) -> None:
    """Check the saved vectors against the records and the layers, and encode an empty record of each side.

    Args:
        model: The loaded model.
        known: Its saved vectors by name, as `known.safetensors` holds them.
        directory: The model directory, for the errors.

    Raises:
        ModelError: If the vectors do not fit, or a new record cannot be encoded.
    """
    with damaged(directory / "known.safetensors", "these vectors do not fit the model"):
        unknown = set(known) - {*SIDES, *TOKENS.values(), HISTORY_VECTORS}
        missing = set(SIDES) - set(known)
        if unknown or missing:
            raise ValueError(f"found {sorted(known)}")
        for name, rows in known.items():
            side = "user" if name.startswith("user") else "item"
            wanted = len(model.dataset.table(side))
            if not rows.is_floating_point() or len(rows) != wanted:
                shape = f"{rows.dtype} {tuple(rows.shape)}"
                raise ValueError(f"'{name}' is {shape}; {wanted} rows of numbers were expected")
    with damaged(directory, "a new record cannot be encoded"):
        for side in SIDES:
            record = model.read_records(side, _empty_records(model.dataset.table(side), f"{side}_id"))
            made = {side: model.represent(record)}
            if TOKENS[side] in known:
                made[TOKENS[side]] = model.tokens(record)
            for name, rows in made.items():
                if rows.shape[1:] != known[name].shape[1:] or not bool(rows.isfinite().all()):
                    shapes = tuple(rows.shape[1:]), tuple(known[name].shape[1:])
                    raise ValueError(f"it has the shape {shapes[0]}, '{name}' {shapes[1]}")


def _empty_records(table: pa.Table, key: str) -> pa.Table:
    """Return two records whose features are all missing, which every encoder must be able to encode."""
    columns = {name: pa.nulls(2, table.schema.field(name).type) for name in table.column_names}
    kind = table.schema.field(key).type
    return pa.table({**columns, key: pa.array([0, 1] if pa.types.is_integer(kind) else ["new-1", "new-2"], kind)})


def write_json(path: Path, value: Json) -> None:
    """Write JSON with sorted keys, which makes the file and its hash reproducible."""
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")
