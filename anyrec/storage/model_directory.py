"""The model directory: what a fitted recommender leaves on disk (`anyrec.storage.load_model` reads it). No pickle in or out.

model/  manifest.json       sha256 of each file below, hash of the data, versions
        config.json         complete; reruns alone
        model.safetensors   all weights
        preprocessing/      what the encoders and heads learned: state.json and Arrow arrays
        users.arrow items.arrow seen.arrow   the records, and who interacted with what
        known.safetensors   what the interaction reads of each of those users and items
        pipeline/           what its sources and its ranker learned, where the config has one
        index/              of the items, where a pipeline searches one that takes time to build
        README.md           model card
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from safetensors.torch import save_file

from anyrec.core.contracts import Encoder, Head
from anyrec.core.discovery import Registry
from anyrec.core.errors import Fault, ModelError
from anyrec.core.files import atomic_folder, find_folder, sha256_of
from anyrec.core.manifest import MANIFEST, MODEL, Manifest, holds, is_inside
from anyrec.core.outputs import check_output
from anyrec.core.saved_files import AGAIN, damaged, read_table
from anyrec.data.list_columns import flat, offsets_of
from anyrec.model.towers import SIDES, Model

if TYPE_CHECKING:
    from anyrec.recommender import Recommender

FORMAT = 1
HISTORY = "history.arrow"
STATE = "preprocessing/state.json"
ELSEWHERE = ("index", "search")
"""Folders within a model that its manifest does not list: the index has its own, the vectors for searching are a cache."""
CARD = "README.md"


def save_model(recommender: Recommender, directory: Path) -> Path:
    """Write the model directory as one unit: a crash leaves the old model or the new one.

    Raises:
        ModelError: The directory holds something else.
        OutputError: It cannot be written, or another process is writing it.
    """
    from anyrec.retrieval.model_index import save_catalogue

    directory = directory.resolve()
    check_model_output(directory)
    with atomic_folder(directory, MANIFEST) as new:
        (new / "preprocessing").mkdir()
        _write_parts(recommender, new)
        manifest = {
            "format": FORMAT,
            "name": recommender.config.name,
            "data": recommender.dataset.fingerprint(),
            "root": str(Path(recommender.context.root).resolve()),
            "roles": recommender.dataset.roles,
            "counts": {"users": len(recommender.dataset.users), "items": len(recommender.dataset.items)},
            "metrics": recommender.metrics,
            "modules": _module_descriptions(recommender.registry),
            "versions": versions(),
            "files": _hashes(new),
        }
        manifest["id"] = _id_of(manifest["files"], CARD)
        _write_json(new / MANIFEST, manifest)
        save_catalogue(recommender, new, manifest["id"])
    return directory


def update_metrics(recommender: Recommender, directory: Path) -> None:
    """Write the recommender's metrics into the manifest and the card of its saved model, as one unit.

    All other files are linked, not copied, so the time does not grow with the model.
    """
    directory = directory.resolve()
    with atomic_folder(directory, MANIFEST) as new:
        for path in sorted(directory.rglob("*")):
            place = new / path.relative_to(directory)
            if path.is_dir():
                place.mkdir()
            elif place not in (new / CARD, new / MANIFEST):
                _link(path, place)
        _write_card(recommender, new)
        manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        manifest["metrics"] = recommender.metrics
        manifest["files"][CARD] = sha256_of(new / CARD)
        _write_json(new / MANIFEST, manifest)


def check_model_output(directory: Path) -> None:
    """Raises OutputError if a model cannot be written to `directory`, and ModelError if something else is there."""
    check_output(directory, "folder")
    if directory.is_dir() and any(directory.iterdir()) and not holds(directory, MODEL):
        what = "this folder exists and is not a model."
        raise ModelError(Fault(str(directory), what, "Name another one, or empty it.", "foreign folder"))


def find_model(path: Path) -> Path:
    """The model directory that `path` names: itself, its `model` folder, or that of the run that wrote the file.

    If a crash interrupted the replacement of a model, this is the finished copy beside its place.
    """
    path = path.resolve()
    for folder in [path, *path.parents][:3]:
        for place in (folder, folder / "model"):
            found = find_folder(place, MANIFEST)
            if found is not None:
                return found
        if folder == path and path.is_dir() and path.name != "checkpoints":
            break
    state = "no model is here" if path.exists() else "there is no such path"
    raise ModelError(
        Fault(str(path), f"{state} (no {MANIFEST} found).", "Give the folder that train.py wrote.", "no model")
    )


def model_id(path: Path) -> str:
    """Identifies a model: a hash of the hashes of its files without its index, pipeline and card. path: as `find_model` takes it."""
    with Manifest(find_model(path), AGAIN) as manifest, damaged(path):
        return id_of(manifest.document)


def id_of(manifest: dict[str, Any]) -> str:
    """`model_id` of the model with this manifest, computed: what the manifest itself says is not relied on."""
    return _id_of(manifest["files"], *([CARD] if "id" in manifest else []))  # older versions counted the card in


def versions() -> dict[str, str]:
    """Versions of what the model was made with."""
    found = {}
    for package in ("anyrec", "torch", "numpy", "pyarrow", "torchvision", "sentence-transformers"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _write_parts(recommender: Recommender, folder: Path) -> None:
    from anyrec.model.fitted import TOKENS, VECTORS
    from anyrec.pipeline.fit import FOLDER as PIPELINE
    from anyrec.pipeline.fit import save_pipeline

    dataset = recommender.dataset
    (folder / "config.json").write_text(recommender.config.model_dump_json(indent=1) + "\n", encoding="utf-8")
    with recommender._inference():
        known = {side: recommender._known_rows(side) for side in SIDES}
        ranked = recommender.pipeline is not None and recommender.pipeline.ranker is not None
        if ranked and recommender.model.interaction.reads == "vectors":
            known |= {TOKENS[side]: recommender._known_tokens(side) for side in SIDES}
        vectors = recommender._item_vectors()
    if vectors is not None and vectors is not known["item"]:
        known[VECTORS] = vectors
    save_file({name: rows.cpu().contiguous().clone() for name, rows in known.items()}, folder / "known.safetensors")
    if recommender.history is not None:
        _write_table(folder / HISTORY, pa.table(_events_by_part(recommender.history, recommender.history_parts)))
    if recommender.pipeline is not None:
        save_pipeline(recommender.pipeline, folder / PIPELINE)
    _write_table(folder / "users.arrow", dataset.users)
    _write_table(folder / "items.arrow", dataset.items)
    seen = {"user": pa.array(recommender.seen.owners()), "item": pa.array(recommender.seen.items)}
    if recommender.seen_parts is not None:
        seen["parts"] = pa.array(recommender.seen_parts)
    _write_table(folder / "seen.arrow", pa.table(seen))
    recommender.write_parts(folder)
    _write_card(recommender, folder)


def _events_by_part(history: pa.Array, parts: np.ndarray | None) -> dict[str, pa.Array]:
    """The histories, and in lists of the same lengths the part of the split that each event happened in."""
    if parts is None:
        return {"events": history}
    _, owners = flat(history)
    offsets = pa.array(offsets_of(owners, len(history)).astype(np.int32))
    return {"events": history, "parts": pa.ListArray.from_arrays(offsets, pa.array(parts))}


def write_model(model: Model, folder: Path) -> None:
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
    _write_json(folder / "preprocessing" / "state.json", parts)


def _module_descriptions(registry: Registry) -> dict[str, Any]:
    classes = [plugin.load() for plugin in registry.plugins("encoder") if plugin.origin.startswith("add_encoder(")]
    return {cls.type: cls.description for cls in classes}


def _pack(state: dict[str, Any], folder: Path, stem: str) -> dict[str, Any]:
    """`state` as JSON, its Arrow arrays written beside as files."""
    packed = {}
    for key, value in state.items():
        if isinstance(value, pa.ChunkedArray):
            value = value.combine_chunks()
        if isinstance(value, pa.Array):
            file = f"{stem}-{key}.arrow"
            _write_table(folder / file, pa.table({"values": value}))
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


def _write_table(path: Path, table: pa.Table) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def _hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): sha256_of(path) for path in sorted(folder.rglob("*")) if path.is_file()
    }


def _id_of(files: dict[str, str], *left_out: str) -> str:
    own = {name: digest for name, digest in files.items() if not name.startswith(("index/", "pipeline/", *left_out))}
    return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _write_card(recommender: Recommender, folder: Path) -> None:
    from anyrec.storage.model_card import model_card

    (folder / CARD).write_text(model_card(recommender), encoding="utf-8")


def _link(path: Path, place: Path) -> None:
    try:
        os.link(path, place)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, place)
