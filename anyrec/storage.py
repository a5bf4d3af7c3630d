"""The model directory: what a fitted recommender leaves on disk, and how it comes back. No pickle in or out.

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
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from anyrec.config import Config
from anyrec.contracts import Context, Encoder, Head
from anyrec.data.dataset import Dataset
from anyrec.data.lists import flat, offsets_of
from anyrec.errors import Fault, ModelError
from anyrec.evaluation.ranking import Pairs
from anyrec.files import atomic_folder, find_folder, sha256_of
from anyrec.model import SIDES, Model, make_head, make_interaction, make_tower
from anyrec.outputs import check_output
from anyrec.plugins import Registry, discover

if TYPE_CHECKING:
    from anyrec.recommender import Recommender

FORMAT = 1
MANIFEST = "manifest.json"
HISTORY = "history.arrow"
CARD = "README.md"


def save_model(recommender: Recommender, directory: Path) -> Path:
    """Write the model directory as one unit: a crash leaves the old model or the new one.

    Raises:
        ModelError: The directory holds something else.
        OutputError: It cannot be written, or another process is writing it.
    """
    from anyrec.pipeline.nearest_items import save_catalogue

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
    if directory.is_dir() and any(directory.iterdir()) and not (directory / MANIFEST).is_file():
        what = "this folder exists and is not a model."
        raise ModelError(Fault(str(directory), what, "Name another one, or empty it.", "foreign folder"))


def load_model(path: Path, trust_plugins: bool, plugins: Sequence[str | Path]) -> Recommender:
    from anyrec.pipeline.fit import FOLDER as PIPELINE
    from anyrec.pipeline.fit import load_pipeline
    from anyrec.pipeline.nearest_items import load_catalogue
    from anyrec.recommender import make_recommender

    directory = find_model(path)
    manifest = _checked_manifest(directory)
    config = Config.model_validate_json((directory / "config.json").read_text(encoding="utf-8"))
    registry = discover([*config.plugins, *plugins])
    if manifest["modules"]:
        _add_modules(registry, manifest["modules"], directory, trust_plugins)
    recommender = make_recommender(
        config.model_copy(update={"training": config.training.model_copy(update={"device": "auto"})}), registry
    )
    seen = _read_table(directory / "seen.arrow")
    recommender.dataset = Dataset(
        _read_table(directory / "users.arrow"),
        _read_table(directory / "items.arrow"),
        pa.table({"user_id": pa.array([], pa.string()), "item_id": pa.array([], pa.string())}),
        Path(manifest["root"]),
        manifest["roles"],
    )
    recommender.context = Context(
        root=recommender.dataset.root,
        allow_urls=config.data.allow_urls,
        allow_outside_root=config.data.allow_outside_root,
        seed=config.seed,
        device=str(recommender.device),
        items=recommender.dataset.items,
    )
    recommender.read_parts(directory)
    if (directory / HISTORY).is_file():
        events = _read_table(directory / HISTORY)
        recommender.history = events.column("events").combine_chunks()
        if "parts" in events.column_names:
            recommender.history_parts = flat(events.column("parts").combine_chunks())[0].to_numpy()
    recommender.metrics = manifest["metrics"]
    recommender.refitted = config.training.refit and "validation" in manifest["metrics"]
    recommender.fingerprint = manifest["data"]
    recommender._known = dict(load_file(directory / "known.safetensors", device=str(recommender.device)).items())  # type: ignore[arg-type]
    counts = np.bincount(seen["user"].to_numpy(), minlength=len(recommender.dataset.users))
    recommender.seen = Pairs(seen["item"].to_numpy(), np.concatenate([[0], np.cumsum(counts)]))
    if "parts" in seen.column_names:
        recommender.seen_parts = seen["parts"].to_numpy()
    recommender.model.eval()
    recommender.pipeline = load_pipeline(recommender, directory / PIPELINE)
    if recommender.pipeline is not None:
        recommender.catalogue = load_catalogue(recommender, directory, model_id(directory))
    recommender.directory = directory
    return recommender


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
    manifest = json.loads((find_model(path) / MANIFEST).read_text(encoding="utf-8"))
    return manifest.get("id") or _id_of(manifest["files"])  # models of older versions have no id of their own


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
    from anyrec.known import TOKENS, VECTORS
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
                "params": encoder.params.model_dump(mode="json"),
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


def read_model(directory: Path, config: Config, registry: Registry, context: Context) -> Model:
    parts = json.loads((directory / "preprocessing" / "state.json").read_text(encoding="utf-8"))
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
            encoder.restore(_unpack(saved["state"], directory / "preprocessing"))
            encoders[name] = encoder
        towers[side] = make_tower(config, registry, encoders, parts[f"{side}_together"], side)
    interaction = make_interaction(config, registry, towers["user"], towers["item"])
    heads = {}
    for name, component in sorted(config.heads.items()):
        head = make_head(config, registry, name, component, interaction.pair_dim)
        head.restore(_unpack(parts["heads"][name], directory / "preprocessing"))
        head.build()
        heads[name] = head
    model = Model(towers["user"], towers["item"], interaction, heads)
    try:
        model.load_state_dict(load_file(directory / "model.safetensors"))
    except (RuntimeError, SafetensorError) as error:
        raise ModelError(
            Fault(
                str(directory),
                f"the weights do not fit the components installed here: {error}.",
                "Use the versions in manifest.json.",
            )
        ) from None
    return model


def _checked_manifest(directory: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise ModelError(
            Fault(f"{directory / MANIFEST}", "this manifest is not valid JSON.", "Train again.", "damaged")
        ) from None
    if manifest.get("format") != FORMAT:
        raise ModelError(
            Fault(
                str(directory),
                f"its format is {manifest.get('format')!r}; this version reads {FORMAT}.",
                "Train again.",
                "format",
            )
        )
    faults = []
    for name, digest in manifest["files"].items():
        path = directory / name
        if not path.is_file():
            faults.append(
                Fault(str(path), "this file is missing.", "Copy the whole directory, or train again.", "damaged")
            )
        elif sha256_of(path) != digest:
            faults.append(
                Fault(
                    str(path), "this file is not the one that was saved.", "Copy it again, or train again.", "damaged"
                )
            )
    if faults:
        raise ModelError(faults)
    return manifest


def _module_descriptions(registry: Registry) -> dict[str, Any]:
    classes = [plugin.load() for plugin in registry.plugins("encoder") if plugin.origin.startswith("add_encoder(")]
    return {cls.type: cls.description for cls in classes}


def _add_modules(registry: Registry, modules: dict[str, Any], directory: Path, trust: bool) -> None:
    from anyrec.modules import encoder_of, rebuild

    if not trust:
        names = ", ".join(f"'{name}'" for name in modules)
        raise ModelError(
            Fault(
                str(directory),
                f"the encoder {names} is a module of the user's own, named by import path, which loading would run.",
                "Load with trust_plugins=True (--trust-plugins) if you trust where the model comes from.",
                "untrusted module",
            )
        )
    for name, description in modules.items():
        registry.add_class("encoder", encoder_of(name, rebuild(description)), f"add_encoder('{name}')")


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


def _unpack(state: dict[str, Any], folder: Path) -> dict[str, Any]:
    return {
        key: _read_table(folder / value["$arrow"]).column("values").combine_chunks()
        if isinstance(value, dict) and set(value) == {"$arrow"}
        else value
        for key, value in state.items()
    }


def _write_table(path: Path, table: pa.Table) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def _read_table(path: Path) -> pa.Table:
    with pa.OSFile(str(path), "rb") as source:
        return pa.ipc.open_file(source).read_all().combine_chunks()


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
    from anyrec.card import model_card

    (folder / CARD).write_text(model_card(recommender), encoding="utf-8")


def _link(path: Path, place: Path) -> None:
    try:
        os.link(path, place)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, place)
