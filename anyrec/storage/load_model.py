"""A model directory back as a recommender. The directory is data from anybody: nothing in it is run, and each fault is a ModelError.

docs/security.md has what loading does and does not do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
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
    check_pairs,
    check_parts,
    check_records,
    damaged,
    read_table,
    read_tensors,
)
from anyrec.core.trust import Named, note_of, without_outside
from anyrec.data.dataset import Dataset
from anyrec.data.histories import COLUMN
from anyrec.data.ids import SIDES
from anyrec.data.list_columns import flat
from anyrec.data.pairs import Pairs
from anyrec.model.build import check_model_type, choose_device
from anyrec.model.classical import ClassicalModel
from anyrec.model.custom_modules import encoder_of, rebuild
from anyrec.model.fitted import FittedModel
from anyrec.model.two_tower import TwoTowerModel
from anyrec.pipeline.fit import FOLDER as PIPELINE
from anyrec.pipeline.fit import load_pipeline
from anyrec.retrieval.model_index import load_index, share_index
from anyrec.storage.classical_files import read_classical
from anyrec.storage.model_directory import ELSEWHERE, FORMAT, HISTORY, find_model, id_of
from anyrec.storage.parts import ModelParts
from anyrec.storage.tower_files import STATE, check_vectors, read_towers

KINDS: dict[str, Any] = {
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
ROLES = ("numbers", "timestamps", "items")


def load_model(
    path: Path, trust_plugins: bool, plugins: Sequence[str | Path], image_root: str | Path | None = None
) -> ModelParts:
    """Read one whole version of a model directory, even if a writer replaces it meanwhile. Arguments as of `anyrec.Recommender.load`."""

    def read(manifest: Manifest) -> ModelParts:
        return _read(manifest, trust_plugins, plugins, image_root)

    return read_version(lambda: find_model(path), AGAIN, read)


def _read(
    manifest: Manifest, trusted: bool, plugins: Sequence[str | Path], image_root: str | Path | None
) -> ModelParts:
    directory = manifest.folder
    found = manifest.document.get("format")
    if found != FORMAT:
        what = f"its format is {found!r}; this version reads {FORMAT}."
        raise ModelError(Fault(str(directory), what, "Train again.", "format"))
    document = manifest.check(KINDS, ELSEWHERE)
    _check_details(document, directory)
    config = _read_config(directory / "config.json")
    state = directory / STATE
    parts = read_object(state, AGAIN) if state.is_file() else {}
    named: list[Named] = []
    if not trusted:
        config, named = _restricted(config, parts, document, manifest, plugins)
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
    """The model's config. Raises ModelError with every bad key."""
    with damaged(path):
        document = read_object(path, AGAIN)
        try:
            return Config.model_validate(document)
        except ValidationError as error:
            raise ModelError(faults_of(error, Config, f"{path}#")) from None


def _restricted(
    config: Config, parts: dict[str, Any], document: dict[str, Any], manifest: Manifest, plugins: Iterable[str | Path]
) -> tuple[Config, list[Named]]:
    """The config of a model that is not trusted, and what was left out of it. Raises ModelError with everything that is refused."""
    faults, directory = [], manifest.folder
    if document["modules"]:
        names = ", ".join(f"'{name}'" for name in document["modules"])
        what = f"the encoder {names} is a module of the user's own, named by import path, which loading would run."
        faults.append(Fault(str(directory), what, ALLOW, "untrusted"))
    callers = ["plugins", *plugins]
    registry = discover(plugins, drop_in=not _is_within_run(manifest.place))
    config, refused, left_out = without_outside(config, registry, parts, callers)
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
    directory, document = manifest.folder, manifest.document
    tables = {side: read_table(directory / f"{side}s.arrow") for side in SIDES}
    config = config.model_copy(update={"training": config.training.model_copy(update={"device": "auto"})})
    check_model_type(config, registry)
    own_root = not trusted and image_root is None
    if own_root and any(name.startswith(("image.", "audio.")) for side in tables for name in tables[side].column_names):
        named = [*named, Named("/root", document["root"], Outside("a folder", "leave out"))]
    for side, table in tables.items():
        check_records(table, side, directory / f"{side}s.arrow")
    nothing = pa.table({"user_id": pa.array([], pa.string()), "item_id": pa.array([], pa.string())})
    root = Path() if own_root else Path(image_root or document["root"])
    dataset = Dataset(tables["user"], tables["item"], nothing, root, document["roles"])
    device = choose_device(config)
    context = Context(
        root=root,
        allow_urls=config.data.allow_urls,
        allow_outside_root=config.data.allow_outside_root,
        seed=config.seed,
        device=str(device),
        items=dataset.items,
        trusted=trusted,
        open_files=not own_root,
    )
    users, items = len(tables["user"]), len(tables["item"])
    history = history_parts = None
    if (directory / HISTORY).is_file():
        history, history_parts = _read_history(directory / HISTORY, users, items)
    pairs = read_table(directory / "seen.arrow")
    owners, seen = check_pairs(pairs, users, items, directory / "seen.arrow")
    seen_parts = None
    if "parts" in pairs.column_names:
        with damaged(directory / "seen.arrow"):
            seen_parts = check_parts(pairs.column("parts").to_numpy(), len(seen))
    metrics = document["metrics"]
    known = {name: rows.to(device) for name, rows in read_tensors(directory / "known.safetensors").items()}
    shared: dict[str, Any] = {
        "config": config,
        "registry": registry,
        "dataset": dataset,
        "context": context,
        "seen": Pairs(seen, np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=users))])),
        "seen_parts": seen_parts,
        "history": history,
        "history_parts": history_parts,
        "before_refit": metrics.get("validation") if config.training.refit else None,
        "fingerprint": document["data"],
        "model_id": id_of(document),
        "directory": manifest.place,
    }
    if config.model.type == TWO_TOWER:
        scorer = read_towers(directory, config, registry, context).to(device).eval()
        model: FittedModel = TwoTowerModel(scorer=scorer, computed=Once(known), **shared)
        check_vectors(model, known, directory)
    else:
        classical, matrix_parts = read_classical(directory, config, registry, users, items)
        model = ClassicalModel(scorer=classical, matrix_parts=matrix_parts, **shared)
    pipeline = load_pipeline(model, directory / PIPELINE)
    if pipeline is not None:
        share_index(model, load_index(model, directory, manifest.place.parent))
    return ModelParts(model, pipeline, metrics, [note_of(named)] if named else [])


def _read_history(path: Path, users: int, items: int) -> tuple[pa.Array, np.ndarray | None]:
    """(users,) the events of each user, and (events,) the part of the split of each, if saved. Raises ModelError."""
    with damaged(path, "this is not a column of histories"):
        table = read_table(path)
        history = table.column("events").combine_chunks()
        if history.type != COLUMN or len(history) != users:
            raise ValueError(f"{users} rows of {COLUMN} were expected")
        found = history.flatten().field("item").to_numpy(zero_copy_only=False)
        if len(found) and not 0 <= found.min() <= found.max() < items:  # a null is NaN, which compares as False
            raise ValueError(f"an item is not within 0 and {items - 1}")
        if "parts" not in table.column_names:
            return history, None
        parts = table.column("parts").combine_chunks()
        lengths, wanted = (pc.fill_null(pc.list_value_length(one), 0) for one in (parts, history))
        if not lengths.equals(wanted) or parts.flatten().null_count:
            raise ValueError("the parts are not those of the events")
        return history, check_parts(flat(parts)[0].to_numpy(), len(found))


def _check_details(document: dict[str, Any], directory: Path) -> None:
    """Raises ModelError for values within the manifest that are not of their kind."""
    wrong = [f"roles/{name}" for name, role in document["roles"].items() if role not in ROLES]
    wrong += [
        f"metrics/{part}"
        for part, values in document["metrics"].items()
        if not isinstance(values, dict) or not all(isinstance(one, (int, float)) for one in values.values())
    ]
    wrong += [] if "\0" not in document["root"] else ["root"]
    if wrong:
        raise ModelError(
            [Fault(f"{directory}/manifest.json#/{one}", "this is of another type.", AGAIN, "damaged") for one in wrong]
        )


def _add_modules(registry: Registry, modules: dict[str, Any]) -> None:
    for name, description in modules.items():
        registry.add_class("encoder", encoder_of(name, rebuild(description)), f"add_encoder('{name}')")


def _is_within_run(directory: Path) -> bool:
    """Whether the `plugins` folder of the current directory came with the model: within it, or in its run's folder."""
    return Path("plugins").resolve().is_relative_to(directory.parent)
