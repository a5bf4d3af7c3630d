"""Write a model as an export (`anyrec.export.bundle` lists the files), and compare it with the model."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from safetensors.numpy import save_file

from anyrec.core.columns import with_presence
from anyrec.core.context import Context
from anyrec.core.errors import Fault, ModelError
from anyrec.core.files import atomic_folder, sha256_of
from anyrec.core.manifest import MANIFEST, holds, installed_versions
from anyrec.core.outputs import check_output
from anyrec.core.timing import timed
from anyrec.core.types import JsonObject
from anyrec.data.histories import COLUMN
from anyrec.data.ids import SIDES, Side
from anyrec.data.pairs import Pairs
from anyrec.data.preparation.kinds import KINDS
from anyrec.export import bundle
from anyrec.export.check import Exported, exportable, notes_on
from anyrec.export.graphs import OPSET, write_pairs, write_scorer, write_tower
from anyrec.export.inputs import graph_inputs
from anyrec.export.runtime import Runtime, load
from anyrec.export.write_members import write_members
from anyrec.model.blended import BlendedModel, has_towers, towers_of
from anyrec.model.classical import ClassicalModel
from anyrec.model.records import Records
from anyrec.model.towers import IDENTITY
from anyrec.model.two_tower import TwoTowerModel
from anyrec.storage.parts import ModelParts
from anyrec.storage.record_files import write_records
from anyrec.storage.states import pack
from anyrec.storage.tower_files import write_json

PACKAGES = ("anyrec", "torch", "onnx", "onnxscript", "onnxruntime", "numpy", "pyarrow")
"""Packages whose versions the manifest records."""
COMPARED = 32
"""Users and items whose vectors and scores are compared with the model's."""
MOST_DIFFERENCE = 0.05
"""Relative difference from which on the graphs are not those of the model. Rounding makes 1e-6; language models that
torch runs in bfloat16 make up to 0.01."""


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        folder: The folder, as an absolute path.
        files: Bytes of each file by name.
        difference: Largest difference between vectors and scores of the export and of the model, relative to the
            largest value.
        notes: What differs between the model and the export.
    """

    folder: Path
    files: dict[str, int]
    difference: float
    notes: list[str]


@timed("model exported")
def export_model(parts: ModelParts, directory: Path, *, without: Collection[str] = (), users: bool = True) -> Export:
    """Write an export as one unit: a crash leaves the old one or the new one.

    Args:
        parts: The recommender.
        directory: The folder; an export in it is replaced.
        without: Parts of the recommender to leave out, of `anyrec.export.check.PARTS`.
        users: Whether to write the known users, their vectors and their histories.

    Raises:
        NotExportable: With every reason why the model cannot be exported.
        ModelError: The folder has other content.
        OutputError: It cannot be written.
        MissingDependency: If the package onnxscript is not installed.
    """
    model = exportable(parts, without)
    directory = directory.resolve()
    check_export_output(directory)
    with atomic_folder(directory, MANIFEST) as new:
        (new / bundle.PREPROCESSING).mkdir()
        _write(model, new, users)
        manifest = {
            "format": bundle.FORMAT,
            "name": model.config.name,
            "model": parts.model.model_id,
            "opset": OPSET,
            "versions": installed_versions(PACKAGES),
            "counts": {"users": len(model.dataset.users) if users else 0, "items": len(model.dataset.items)},
            "files": {path.relative_to(new).as_posix(): sha256_of(path) for path in _files(new)},
        }
        write_json(new / MANIFEST, manifest)
        difference = compared(model, load(new, backend=None, image_root=model.context.root))
        files = {path.relative_to(new).as_posix(): path.stat().st_size for path in _files(new)}
    return Export(directory, files, difference, notes_on(model, parts))


def check_export_output(directory: Path) -> None:
    """Check that an export can be written to a folder.

    Raises:
        OutputError: It cannot be written.
        ModelError: It has other content.
    """
    check_output(directory, "folder")
    if directory.is_dir() and any(directory.iterdir()) and not holds(directory, bundle.EXPORT):
        what = "this folder exists and is not an export."
        raise ModelError(Fault(str(directory), what, "Name another one, or empty it.", "foreign folder"))


def _write(model: Exported, folder: Path, users: bool) -> None:
    """Write all files except the manifest."""
    document: JsonObject = {}
    if isinstance(model, (BlendedModel, ClassicalModel)):
        document |= write_members(model, users, folder / bundle.MEMBERS)
    reads = replace(model, config=model.config.model_copy(update={"pipeline": None})).reads()
    about: JsonObject = {
        "type": model.config.model.type,
        "has_vectors": model.has_vectors,
        "factorised": model.factorised,
        "pair_width": 1,
        "heads": {name: head.class_names() for name, head in model.heads.items()},
        "reads": {
            "history": reads.history,
            "personal": reads.personal,
            "features_unread_by": reads.features_unread_by,
        },
    }
    features: dict[Side, JsonObject] = {side: {} for side in SIDES}
    if has_towers(model):
        known = _write_towers(towers_of(model), folder, features, about)
    else:
        known = {side: model.embeddings(side) for side in SIDES if model.has_vectors}
    if not users and "user" in known:
        known["user"] = known["user"][:0]
    save_file({name: np.ascontiguousarray(rows) for name, rows in known.items()}, folder / bundle.KNOWN)
    write_records(_records_of(model, users), folder)
    data = model.config.data.model_dump(mode="json")
    document |= {
        "data": {key: data[key] for key in bundle.DATA_KEYS},
        "roles": model.dataset.roles,
        "about": about,
        "features": features,
    }
    write_json(folder / bundle.EXPORT, document)


def _records_of(model: Exported, users: bool) -> Exported:
    """Return the model with the records that are written: no split, histories only if a tower reads them."""
    has_histories = has_towers(model) and towers_of(model).reads_history
    history = model.history if has_histories else None
    model = replace(model, seen_parts=None, history_parts=None, history=history)
    if users:
        return model
    dataset = model.dataset.with_features(users=model.dataset.users.slice(0, 0))
    no_history = None if history is None else pa.array([], COLUMN)
    none = Pairs(np.empty(0, np.int64), np.zeros(1, np.int64))
    return replace(model, dataset=dataset, seen=none, history=no_history)


def _write_towers(
    model: TwoTowerModel, folder: Path, features: dict[Side, JsonObject], about: JsonObject
) -> dict[str, np.ndarray]:
    """Write the graphs, fill in `features` and `about` of export.json, and return the vectors of the known records."""
    network = deepcopy(model.scorer).cpu().float().eval()
    known = {side: _numpy(_vectors(model, side, model.representations(side))) for side in SIDES}
    of_histories = model.history_vectors()
    if of_histories is not None:
        known[bundle.HISTORY] = _numpy(of_histories)
    width = known[bundle.HISTORY].shape[1:] if of_histories is not None else known["item"].shape[1:]
    about["outputs"] = {}
    for side in SIDES:
        shapes: dict[str, np.ndarray] = {}
        for place, (name, encoder) in enumerate(network.tower(side).named_encoders()):
            column = f"{side}_id" if name == IDENTITY else name
            params, state = encoder.saved_params(), encoder.exported_state()
            features[side][name] = {
                "column": column,
                "history": name in network.user.histories and side == "user",
                "type": encoder.type,
                "preparation": encoder.preparation,
                "params": params,
                "state": pack(state, folder / bundle.PREPROCESSING, f"{side}-{place}"),
            }
            table = model.dataset.table(side)
            empty = pa.nulls(2, table.schema.field(column).type if column in table.column_names else COLUMN)
            context = Context(items=model.dataset.items)
            prepared = with_presence(KINDS[encoder.preparation](params, state)(empty, context), empty)
            shapes |= graph_inputs(name, prepared.rows(0, 0), np.zeros((0, *width), np.float32), least=0)
        about["outputs"][side] = write_tower(network, side, shapes, folder / bundle.TOWERS[side])
    if bundle.HISTORY in known and len(about["outputs"]["item"]) == 1:
        del known[bundle.HISTORY]  # histories read what the scorer reads
    about["factorised"] = model.factorised
    about["pair_width"] = network.pair_width(torch.zeros(1, *known["item"].shape[1:]))
    sizes = known["user"].shape[1:], known["item"].shape[1:]
    write_scorer(network.interaction, *sizes, folder / bundle.SCORER)
    if network.heads or not model.factorised:
        write_pairs(network, *sizes, folder / bundle.PAIRS)
    return known


def compared(model: Exported, runtime: Runtime) -> float:
    """Compare the vectors and scores of an export with those of its model, for some records.

    Returns:
        The largest difference, relative to the largest value.

    Raises:
        ModelError: If it is not that of rounding.
    """
    records: dict[Side, Records] = {
        side: _some(model, side, known=bool(len(runtime.dataset.table(side)))) for side in SIDES
    }
    ours = {side: model.represent(some) for side, some in records.items()}
    theirs: dict[Side, np.ndarray] = {}
    if runtime.has_vectors:
        theirs = {side: runtime.represent(some) for side, some in records.items()}
    with torch.inference_mode():
        scores = _numpy(model.scorer.score(ours["user"], ours["item"]))
        pairs = [(scores, runtime.scorer_of(records["user"])(np.arange(len(scores)))[:, : scores.shape[1]])]
        if has_towers(model):
            pairs += _of_towers(towers_of(model), records, runtime, theirs)
    difference = max(_difference(*pair) for pair in pairs)
    if not difference <= MOST_DIFFERENCE:
        what = f"the exported graphs differ from the model by {difference:.2g} of the largest value."
        raise ModelError(Fault("export", what, "Report this, with the config of the model.", "not exportable"))
    return difference


def _of_towers(
    model: TwoTowerModel, records: Mapping[Side, Records], runtime: Runtime, theirs: Mapping[Side, np.ndarray]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return vectors of records, and predictions for pairs of them: of the towers, and of the export.

    Args:
        model: The towers.
        records: The records.
        runtime: The export.
        theirs: What it made of the records.
    """
    ours = {side: model.represent(some) for side, some in records.items()}
    pairs = [(_numpy(_vectors(model, side, ours[side])), theirs[side]) for side in SIDES]
    some = min(len(one) for one in ours.values())
    predicted = model.predict(ours["user"][:some], ours["item"][:some])
    found = runtime.predict(theirs["user"][:some], theirs["item"][:some])
    for name, values in predicted.items():
        head = model.heads.get(name)
        pairs.append((_numpy(values if head is None else head.answer(values.float())), found[name]))
    return pairs


def _some(model: Exported, side: Side, known: bool) -> Records:
    """Return the first records with their features; known: whether as known records, or else as new ones."""
    table = model.dataset.table(side).slice(0, COMPARED).combine_chunks()
    rows = np.arange(len(table)) if known else np.full(len(table), -1)
    context = model.request_context(strict=False)
    return Records(side, table.column(f"{side}_id").combine_chunks(), rows, table, context)


def _difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the largest absolute difference, relative to the largest value of `ours`."""
    if not ours.size:
        return 0.0
    return float(np.abs(ours - theirs).max() / max(1.0, np.abs(ours).max()))


def _vectors(model: TwoTowerModel, side: Side, represented: torch.Tensor) -> torch.Tensor:
    """Return what the scorer of an export reads of representations: vectors of dot products if there are any."""
    return model.vectors(side, represented) if model.factorised else represented


def _numpy(values: torch.Tensor) -> np.ndarray:
    return values.detach().float().cpu().numpy()


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]
