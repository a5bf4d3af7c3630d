"""The files of a two-tower model in its directory: weights, and what encoders and heads learned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
from safetensors.torch import save_file
from torch import Tensor

from anyrec.core.config import Config
from anyrec.core.contracts import Context, Encoder, Head
from anyrec.core.discovery import Registry
from anyrec.core.errors import Fault, ModelError
from anyrec.core.manifest import is_inside, read_object
from anyrec.core.saved_files import AGAIN, bounded_by, damaged, read_table, read_tensors, require_finite
from anyrec.model.towers import SIDES, Model, make_head, make_interaction, make_tower
from anyrec.model.two_tower import HISTORY_VECTORS, TOKENS, TwoTowerModel

STATE = "preprocessing/state.json"


def write_towers(model: Model, folder: Path) -> None:
    """The weights, and what the encoders and heads learned."""
    save_file(
        {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()},
        folder / "model.safetensors",
    )
    parts: dict[str, Any] = {}
    for side in SIDES:
        tower = model.tower(side)
        parts[side] = {
            name: {
                "type": encoder.type,
                "params": encoder.saved_params(),
                "input_dim": encoder.input_dim,
            }
            | {"state": _pack(encoder.state(), folder / "preprocessing", f"{side}-{index}")}
            for index, (name, encoder) in enumerate(zip(tower.features, tower.encoders, strict=True))
            if isinstance(encoder, Encoder)
        }
        parts[f"{side}_together"] = tower.together
    parts["heads"] = {
        name: _pack(head.state(), folder / "preprocessing", f"head-{index}")
        for index, (name, head) in enumerate(model.heads.items())
        if isinstance(head, Head)
    }
    write_json(folder / "preprocessing" / "state.json", parts)


def read_towers(directory: Path, config: Config, registry: Registry, context: Context) -> Model:
    """The two-tower model of a directory: encoders from their state, layers of the config, weights. Raises ModelError."""
    parts, weights = read_object(directory / STATE, AGAIN), directory / "model.safetensors"
    with damaged(directory, "its parts do not fit each other"):
        with bounded_by(weights):
            model = _made(parts, directory, config, registry, context)
        with damaged(
            weights, "the weights do not fit the components installed here", "Use the versions in manifest.json."
        ):
            tensors = read_tensors(weights, finite=False)
            model.load_state_dict(tensors)
            require_finite({name: value.detach() for name, value in model.named_parameters()})
            for name, buffer in model.named_buffers():
                if buffer.is_floating_point() and bool(buffer.isnan().any()):
                    raise ValueError(f"'{name}' holds NaN")
    return model


def _made(parts: dict[str, Any], directory: Path, config: Config, registry: Registry, context: Context) -> Model:
    folder = (directory / STATE).parent
    towers = {}
    for side in SIDES:
        encoders = {}
        for name, saved in parts[side].items():
            params = registry.params("encoder", saved["type"], saved["params"], f"/features/{name}")
            encoder: Encoder = registry.get("encoder", saved["type"], f"/features/{name}")(
                params, config.encoder_dim or config.dim
            )
            encoder.context = context
            encoder.input_dim = saved["input_dim"]
            encoder.restore(unpack(saved["state"], folder))
            encoders[name] = encoder
        towers[side] = make_tower(config, registry, encoders, parts[f"{side}_together"], side)
    interaction = make_interaction(config, registry, towers["user"], towers["item"])
    heads = {}
    for name, component in sorted(config.heads.items()):
        head = make_head(config, registry, name, component, interaction.pair_dim)
        head.restore(unpack(parts["heads"][name], folder))
        head.build()
        heads[name] = head
    return Model(towers["user"], towers["item"], interaction, heads)


def check_vectors(model: TwoTowerModel, known: dict[str, Tensor], directory: Path) -> None:
    """Raise ModelError if the saved vectors do not fit the records and the layers, or a new record cannot be encoded."""
    with damaged(directory / "known.safetensors", "these vectors do not fit the model"):
        unknown = set(known) - {*SIDES, *TOKENS.values(), HISTORY_VECTORS}
        missing = set(SIDES) - set(known)
        if unknown or missing:
            raise ValueError(f"found {sorted(known)}")
        for name, rows in known.items():
            side = "user" if name.startswith("user") else "item"
            wanted = len(model.dataset.table(side))
            if not rows.is_floating_point() or len(rows) != wanted:
                raise ValueError(
                    f"'{name}' is {rows.dtype} {tuple(rows.shape)}; {wanted} rows of numbers were expected"
                )
    with damaged(directory, "a new record cannot be encoded"):
        for side in SIDES:
            record = model.read_records(side, _empty_records(model.dataset.table(side), f"{side}_id"))
            made = {side: model.represent(record)}
            if TOKENS[side] in known:
                made[TOKENS[side]] = model.tokens(record)
            for name, rows in made.items():
                if rows.shape[1:] != known[name].shape[1:] or not bool(rows.isfinite().all()):
                    raise ValueError(
                        f"it has the shape {tuple(rows.shape[1:])}, '{name}' {tuple(known[name].shape[1:])}"
                    )


def _empty_records(table: pa.Table, key: str) -> pa.Table:
    """Two records with every feature missing: the least that an encoder must take."""
    columns = {name: pa.nulls(2, table.schema.field(name).type) for name in table.column_names}
    kind = table.schema.field(key).type
    return pa.table({**columns, key: pa.array([0, 1] if pa.types.is_integer(kind) else ["new-1", "new-2"], kind)})


def _pack(state: dict[str, Any], folder: Path, stem: str) -> dict[str, Any]:
    """`state` as JSON, its Arrow arrays written beside as files."""
    packed = {}
    for key, value in state.items():
        if isinstance(value, pa.ChunkedArray):
            value = value.combine_chunks()
        if isinstance(value, pa.Array):
            file = f"{stem}-{key}.arrow"
            write_table(folder / file, pa.table({"values": value}))
            value = {"$arrow": file}
        packed[key] = value
    return packed


def unpack(state: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What `_pack` was given. Raises ModelError for a name of a file that is not within `folder`."""
    for value in state.values():
        if isinstance(value, dict) and set(value) == {"$arrow"} and not is_inside(value["$arrow"]):
            raise ModelError(Fault(str(folder), f"{value['$arrow']!r} is not a file of this folder.", AGAIN, "damaged"))
    return {
        key: read_table(folder / value["$arrow"]).column("values").combine_chunks()
        if isinstance(value, dict) and set(value) == {"$arrow"}
        else value
        for key, value in state.items()
    }


def write_table(path: Path, table: pa.Table) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")
