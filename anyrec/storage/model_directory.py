"""Write a fitted model as a directory, without pickle. `anyrec.storage.load_model` reads it.

model/  manifest.json       sha256 of each file below, hash of the data, metrics, versions
        config.json         the complete config, which trains the same model again
        model.safetensors   all weights
        preprocessing/      states of the encoders and heads: state.json and Arrow arrays
        users.arrow items.arrow   the records
        seen.arrow          the items that each user interacted with
        history.arrow       the histories of the users, if the model or the pipeline reads them
        known.safetensors   representations of the users and items
        blend/              what was chosen on validation, and the files of the classical models in a blend
        pipeline/           states of the sources and the ranker, if the config has a pipeline
        index/              index of the items, if it takes time to build
        README.md           model card
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from itertools import islice
from pathlib import Path

from safetensors.torch import save_file

from anyrec.core.errors import Fault, ModelError, did_you_mean
from anyrec.core.files import atomic_folder, find_folder, sha256_of
from anyrec.core.manifest import MANIFEST, MODEL, Manifest, holds, installed_versions
from anyrec.core.outputs import check_output
from anyrec.core.registry import Registry
from anyrec.core.saved_files import AGAIN, damaged
from anyrec.core.timing import timed
from anyrec.core.types import JsonObject
from anyrec.data.ids import SIDES
from anyrec.model.blended import has_towers, towers_of
from anyrec.model.classical import ClassicalModel
from anyrec.model.fitted import FittedModel
from anyrec.model.two_tower import HISTORY_VECTORS, TOKENS
from anyrec.pipeline.fit import FOLDER as PIPELINE
from anyrec.pipeline.fit import save_pipeline
from anyrec.retrieval.model_index import save_index
from anyrec.storage.blend_files import write_choice
from anyrec.storage.classical_files import write_classical
from anyrec.storage.model_card import model_card
from anyrec.storage.parts import ModelParts
from anyrec.storage.record_files import write_records
from anyrec.storage.tower_files import write_json, write_towers

FORMAT = 1
"""Version of the directory's format."""
WEIGHT_FILES = (".pth", ".pt", ".ckpt", ".bin", ".safetensors")
"""Endings of files of weights, by which a user may name a model."""
MOST_NAMED = 50
"""Most folders that are looked at for a model of a similar name."""
ELSEWHERE = ("index", "search")
"""Folders that the manifest does not list: the index has its own manifest, and the search vectors are a cache."""
CARD = "README.md"


@timed("model saved")
def save_model(parts: ModelParts, directory: Path) -> Path:
    """Write the model directory as one unit: a crash leaves the old model or the new one.

    Args:
        parts: The model with its pipeline, metrics and notes.
        directory: The folder; a model in it is replaced.

    Returns:
        The directory as an absolute path.

    Raises:
        ModelError: The directory has other content.
        OutputError: It cannot be written, or another process is writing it.
    """
    directory, model = directory.resolve(), parts.model
    check_model_output(directory)
    with atomic_folder(directory, MANIFEST) as new:
        (new / "preprocessing").mkdir()
        _write_parts(parts, new)
        manifest = {
            "format": FORMAT,
            "name": model.config.name,
            "data": _data_hash(model),
            "root": str(Path(model.context.root).resolve()),
            "roles": model.dataset.roles,
            "counts": {"users": len(model.dataset.users), "items": len(model.dataset.items)},
            "metrics": parts.metrics,
            "extended": model.extended,
            "modules": _module_descriptions(model.registry),
            "versions": versions(),
            "files": _hashes(new),
        }
        manifest["id"] = _id_of(manifest["files"], CARD)
        write_json(new / MANIFEST, manifest)
        save_index(model, new, manifest["id"])
    return directory


def update_metrics(parts: ModelParts, directory: Path) -> None:
    """Write a model's metrics into the manifest and the card of its directory, as one unit.

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
        _write_card(parts, new)
        manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        manifest["metrics"] = parts.metrics
        manifest["files"][CARD] = sha256_of(new / CARD)
        write_json(new / MANIFEST, manifest)


def check_model_output(directory: Path) -> None:
    """Check that a model can be written to a directory.

    Raises:
        OutputError: It cannot be written.
        ModelError: It has other content.
    """
    check_output(directory, "folder")
    if directory.is_dir() and any(directory.iterdir()) and not holds(directory, MODEL):
        what = "this folder exists and is not a model."
        raise ModelError(Fault(str(directory), what, "Name another one, or empty it.", "foreign folder"))


def find_model(path: Path) -> Path:
    """Find the model directory that a path belongs to.

    If a crash interrupted the replacement of a model, the result is the complete copy.

    Args:
        path: A model directory, its run's folder, or a file in either. `models/NAME.pth`, as other programs name the
            file of a model, is `models/NAME`.

    Raises:
        ModelError: There is none.
    """
    path = path.resolve()
    by_name = [path.with_suffix("")] if path.suffix in WEIGHT_FILES and not path.exists() else []
    for folder in [*by_name, *[path, *path.parents][:3]]:
        complete = _model_in(folder)
        if complete is not None:
            return complete
        if folder == path and path.is_dir() and path.name != "checkpoints":
            break
    state = "no model is here" if path.exists() else "there is no such path"
    others = [place.name for place in _folders_of(path.parent) if _model_in(place) is not None]
    hint = f"{did_you_mean(path.stem, others)} Give the folder that train.py wrote.".strip()
    raise ModelError(Fault(str(path), f"{state} (no {MANIFEST} found).", hint, "no model"))


def _model_in(folder: Path) -> Path | None:
    """Return the model directory that a folder is, or that it contains as a run's folder; None if there is none."""
    return find_folder(folder, MANIFEST) or find_folder(folder / "model", MANIFEST)


def _folders_of(folder: Path) -> list[Path]:
    """Return the folders in a folder, at most `MOST_NAMED` of them; none if it cannot be read."""
    try:
        return [place for place in islice(folder.iterdir(), MOST_NAMED) if place.is_dir()]
    except OSError:
        return []


def model_id(path: Path) -> str:
    """Return the identifier of a model: a hash of its files' hashes, without its index, pipeline and card.

    Args:
        path: As for `find_model`.

    Raises:
        ModelError: There is no model, or its manifest is damaged.
    """
    with Manifest(find_model(path), AGAIN) as manifest, damaged(path):
        return id_of(manifest.document)


def id_of(manifest: JsonObject) -> str:
    """Return the `model_id` for a manifest. It is computed; the value in the manifest is not trusted."""
    return _id_of(manifest["files"], *([CARD] if "id" in manifest else []))  # older versions included the card


def versions() -> dict[str, str]:
    """Return the installed versions of the packages that a model depends on."""
    return installed_versions(("anyrec", "torch", "numpy", "pyarrow", "torchvision", "sentence-transformers"))


def _write_parts(parts: ModelParts, folder: Path) -> None:
    """Write all files except the manifest and the index."""
    model, pipeline = parts.model, parts.pipeline
    (folder / "config.json").write_text(model.config.model_dump_json(indent=1) + "\n", encoding="utf-8")
    represented = towers_of(model) if has_towers(model) else model
    known = {side: represented.representations(side) for side in SIDES}
    if pipeline is not None and pipeline.ranker is not None and not model.reads_tokens:
        known |= {TOKENS[side]: model.token_embeddings(side) for side in SIDES}
    if has_towers(model):
        vectors = towers_of(model).history_vectors()
        if vectors is not None and vectors is not known["item"]:
            known[HISTORY_VECTORS] = vectors
        write_towers(towers_of(model).scorer, folder)
        write_choice(model, folder)
    elif isinstance(model, ClassicalModel):
        write_classical(model, folder)
    save_file({name: rows.cpu().contiguous().clone() for name, rows in known.items()}, folder / "known.safetensors")
    write_records(model, folder)
    if pipeline is not None:
        save_pipeline(pipeline, folder / PIPELINE)
    _write_card(parts, folder)


def _data_hash(model: FittedModel) -> str:
    """Return the hash of the training data, which a model that was loaded without it keeps."""
    data = model.dataset if model.learning is None else model.learning.dataset
    return model.fingerprint or data.fingerprint()


def _module_descriptions(registry: Registry) -> JsonObject:
    """Return the descriptions of the modules of `add_encoder` by name (`anyrec.model.custom_modules`)."""
    classes = [plugin.load() for plugin in registry.plugins("encoder") if plugin.origin.startswith("add_encoder(")]
    return {cls.type: cls.description for cls in classes}


def _hashes(folder: Path) -> dict[str, str]:
    """Return the sha256 of all files below a folder, by relative name."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}


def _id_of(files: dict[str, str], *left_out: str) -> str:
    """Return a hash of the files' hashes, without the index, the pipeline, and names that start with `left_out`."""
    own = {name: digest for name, digest in files.items() if not name.startswith(("index/", "pipeline/", *left_out))}
    return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()


def _write_card(parts: ModelParts, folder: Path) -> None:
    (folder / CARD).write_text(model_card(parts, _data_hash(parts.model)), encoding="utf-8")


def _link(path: Path, place: Path) -> None:
    try:
        os.link(path, place)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, place)
