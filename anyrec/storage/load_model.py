"""Read a model directory, which can come from anyone: none of its code is run, and every fault is a ModelError.

docs/security.md describes what loading does and does not do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from pydantic import ValidationError

from anyrec.core.config import TWO_TOWER, Config
from anyrec.core.contracts import Context
from anyrec.core.discovery import discover
from anyrec.core.errors import Fault, ModelError
from anyrec.core.manifest import Manifest, read_object, read_version
from anyrec.core.once import Once
from anyrec.core.outside import ALLOW, Outside
from anyrec.core.param_faults import faults_of
from anyrec.core.registry import Registry
from anyrec.core.saved_files import (
    AGAIN,
    damaged,
    read_tensors,
)
from anyrec.core.trust import Named, note_of, without_outside
from anyrec.core.types import JsonObject
from anyrec.data.dataset import Dataset
from anyrec.data.formats.parts import no_records
from anyrec.model.build import check_model_type, choose_device, training_context
from anyrec.model.check_index import has_vectors
from anyrec.model.classical import ClassicalModel
from anyrec.model.custom_modules import encoder_of, rebuild
from anyrec.model.fitted import FittedModel
from anyrec.model.model_data import ModelData
from anyrec.model.two_tower import TwoTowerModel
from anyrec.pipeline.fit import FOLDER as PIPELINE
from anyrec.pipeline.fit import load_pipeline
from anyrec.retrieval.model_index import load_index, share_index
from anyrec.storage.blend_files import has_members, read_choice
from anyrec.storage.classical_files import read_classical
from anyrec.storage.model_directory import ELSEWHERE, FORMAT, find_model, id_of
from anyrec.storage.parts import ModelParts
from anyrec.storage.record_files import HISTORY, SEEN, read_history, read_seen, read_tables
from anyrec.storage.tower_files import STATE, check_vectors, read_towers

KINDS: dict[str, type] = {
    "format": int,
    "name": str,
    "data": str,
    "root": str,
    "roles": dict,
    "counts": dict,
    "metrics": dict,
    "modules": dict,
    "versions": dict,
}
"""The type of each key of the manifest."""
ROLES = ("numbers", "timestamps", "items")
"""The roles that a temporal feature can have."""


def load_model(
    path: Path, trust_plugins: bool, plugins: Sequence[str | Path], image_root: str | Path | None = None
) -> ModelParts:
    """Read one whole version of a model directory, even if a writer replaces it meanwhile.

    Args:
        path: The directory, its run's folder, or a file in either.
        trust_plugins: Allow references to things outside the folder.
        plugins: Folders of plugins that the model may use.
        image_root: Folder that relative names of images start from; by default that of the training data.

    Raises:
        ModelError: With all faults.
    """

    def read(manifest: Manifest) -> ModelParts:
        return _read(manifest, trust_plugins, plugins, image_root)

    return read_version(lambda: find_model(path), AGAIN, read)


def _read(
    manifest: Manifest, trusted: bool, plugins: Sequence[str | Path], image_root: str | Path | None
) -> ModelParts:
    """Check the manifest and the config, and read the model. Arguments as for `load_model`."""
    directory = manifest.folder
    version = manifest.document.get("format")
    if version != FORMAT:
        what = f"its format is {version!r}; this version reads {FORMAT}."
        raise ModelError(Fault(str(directory), what, "Train again.", "format"))
    document = manifest.check(KINDS, ELSEWHERE)
    _check_details(document, directory)
    config = _read_config(directory / "config.json")
    state = directory / STATE
    states = read_object(state, AGAIN) if state.is_file() else {}
    named: list[Named] = []
    if not trusted:
        config, named = _restricted(config, states, document, manifest, plugins)
    registry = discover([*config.plugins, *plugins], drop_in=trusted or not _is_within_run(manifest.place))
    try:
        with damaged(directory):
            _add_modules(registry, document["modules"])
            return _restore(manifest, config, registry, trusted, named, image_root)
    except ModelError as error:
        folders = [one.value for one in named if one.where == "/plugins"]
        if not folders or "unknown plugin" not in error.counts:
            raise
        what = f"the folders of plugins that the model names were left out: {', '.join(folders)}."
        hint = f"Name them with plugins=[...] (--plugins). {ALLOW}"
        raise ModelError([*error.faults, Fault(str(directory), what, hint, "untrusted")]) from None


def _read_config(path: Path) -> Config:
    """Read the model's config. Raises ModelError with all invalid keys."""
    with damaged(path):
        document = read_object(path, AGAIN)
        try:
            return Config.model_validate(document)
        except ValidationError as error:
            raise ModelError(faults_of(error, Config, f"{path}#")) from None


def _restricted(
    config: Config, states: JsonObject, document: JsonObject, manifest: Manifest, plugins: Iterable[str | Path]
) -> tuple[Config, list[Named]]:
    """Remove what a model that is not trusted may not have.

    Args:
        config: The model's config.
        states: The states of its encoders and heads.
        document: Its manifest.
        manifest: The manifest's file.
        plugins: Folders of plugins that the caller allows.

    Returns:
        The config, and what was left out of it.

    Raises:
        ModelError: With everything that is refused.
    """
    faults, directory = [], manifest.folder
    if document["modules"]:
        names = ", ".join(f"'{name}'" for name in document["modules"])
        what = f"the encoder {names} is a module of the user's own, named by import path, which loading would run."
        faults.append(Fault(str(directory), what, ALLOW, "untrusted"))
    callers = ["plugins", *plugins]
    registry = discover(plugins, drop_in=not _is_within_run(manifest.place))
    config, refused, left_out = without_outside(config, registry, states, callers)
    faults += [Fault(f"{directory}/config.json#{one.where}", one.what, one.hint, one.kind) for one in refused]
    if faults:
        raise ModelError(faults)
    return config, left_out


def _restore(
    manifest: Manifest,
    config: Config,
    registry: Registry,
    trusted: bool,
    named: Sequence[Named],
    image_root: str | Path | None,
) -> ModelParts:
    """Create the model from the files of a checked manifest.

    Args:
        manifest: The manifest.
        config: The model's config, without the entries that need trust.
        registry: The components.
        trusted: Whether the model may name things outside its folder.
        named: What was left out of the config.
        image_root: Folder that relative names of images start from; None for that of the training data.
    """
    directory, document = manifest.folder, manifest.document
    tables = read_tables(directory)
    config = config.model_copy(update={"training": config.training.model_copy(update={"device": "auto"})})
    check_model_type(config, registry)
    own_root = not trusted and image_root is None
    groups = registry.file_groups()
    if own_root and any(name.split(".")[0] in groups for side in tables for name in tables[side].column_names):
        named = [*named, Named("/root", document["root"], Outside("a folder", "leave out"))]
    root = Path() if own_root else Path(image_root or document["root"])
    dataset = Dataset(tables["user"], tables["item"], no_records("interactions"), root, document["roles"])
    device = choose_device(config)
    context = replace(training_context(config, dataset, device, trusted), root=root, strict=False, shard_rows=None)
    data = ModelData(config=config, registry=registry, dataset=dataset, has_vectors=has_vectors(config, registry))
    model = _read_model(manifest, data, replace(context, open_files=not own_root), device)
    pipeline = load_pipeline(model, directory / PIPELINE)
    index, notes = load_index(model, directory, manifest.place.parent)
    share_index(model, index)
    return ModelParts(model, pipeline, document["metrics"], [*([note_of(named)] if named else []), *notes])


def _read_model(manifest: Manifest, data: ModelData, context: Context, device: torch.device) -> FittedModel:
    """Read the weights, the users' interactions and the saved representations."""
    directory, document, config = manifest.folder, manifest.document, data.config
    users, items = len(data.dataset.users), len(data.dataset.items)
    history, history_parts = read_history(directory / HISTORY, users, items)
    seen, seen_parts = read_seen(directory / SEEN, users, items)
    known = {name: rows.to(device) for name, rows in read_tensors(directory / "known.safetensors").items()}
    shared: JsonObject = {
        "config": config,
        "registry": data.registry,
        "dataset": data.dataset,
        "context": context,
        "seen": seen,
        "seen_parts": seen_parts,
        "history": history,
        "history_parts": history_parts,
        "before_refit": document["metrics"].get("validation") if _is_refitted(config, directory) else None,
        "fingerprint": document["data"],
        "extended": document.get("extended", False),
        "model_id": id_of(document),
        "directory": manifest.place,
    }
    if config.model.type == TWO_TOWER:
        scorer = read_towers(directory, config, data.registry, context).to(device).eval()
        model = TwoTowerModel(scorer=scorer, computed=Once(known), **shared)
        check_vectors(model, known, directory)
        return read_choice(model, directory)
    refitted = config.training.refit
    scorer, matrix_parts, past = read_classical(directory, config, data.registry, users, items, refitted)
    with damaged(directory, "its parts do not fit each other"):
        if len(scorer.popularity) != items:
            raise ValueError(f"scores of {len(scorer.popularity)} items, of {items}")
    return ClassicalModel(scorer=scorer, matrix_parts=matrix_parts, past=past, has_vectors=data.has_vectors, **shared)


def _is_refitted(config: Config, directory: Path) -> bool:
    """Whether a part of the model learned from the validation part as well."""
    return config.training.refit or (config.blend is not None and config.blend.refit and has_members(directory))


def _check_details(document: JsonObject, directory: Path) -> None:
    """Check the values within the manifest. Raises ModelError with all that are invalid."""
    wrong = [f"roles/{name}" for name, role in document["roles"].items() if role not in ROLES]
    wrong += [
        f"metrics/{part}"
        for part, values in document["metrics"].items()
        if not isinstance(values, dict) or not all(isinstance(one, (int, float)) for one in values.values())
    ]
    wrong += [] if "\0" not in document["root"] else ["root"]
    wrong += [] if isinstance(document.get("extended", False), bool) else ["extended"]
    if wrong:
        raise ModelError(
            [Fault(f"{directory}/manifest.json#/{one}", "this is of another type.", AGAIN, "damaged") for one in wrong]
        )


def _add_modules(registry: Registry, modules: JsonObject) -> None:
    """Register the modules of `add_encoder`, which are rebuilt from their descriptions."""
    for name, description in modules.items():
        registry.add_class("encoder", encoder_of(name, rebuild(description)), f"add_encoder('{name}')")


def _is_within_run(directory: Path) -> bool:
    """Whether the `plugins` folder of the current directory is in the model's folder or in that of its run.

    It then came with the model, so it is not used without trust.
    """
    return Path("plugins").resolve().is_relative_to(directory.parent)
