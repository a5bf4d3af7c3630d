"""The files of an export.

export/  manifest.json       format, name, id of the model, versions, opset, counts, sha256 of each file below
         export.json         features with the options and states of their preparation, outputs of the graphs, `data`
         preprocessing/      the arrays of these states: Arrow, or safetensors
         user_tower.onnx     features and history of users -> vectors
         item_tower.onnx     features of items -> vectors
         scorer.onnx         vectors of users and items -> scores
         pairs.onnx          vectors of pairs -> scores, and what the heads predict
         known.safetensors   vectors of the known users and items
         users.arrow items.arrow seen.arrow history.arrow   the records, as in a model directory (docs/files.md)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anyrec.core.config import Config
from anyrec.core.errors import Fault, ModelError
from anyrec.core.files import find_folder
from anyrec.core.manifest import MANIFEST, Manifest, read_object
from anyrec.core.saved_files import damaged, read_arrays
from anyrec.core.types import JsonObject
from anyrec.data.ids import SIDES, Side
from anyrec.data.preparation.kinds import KINDS, Preparation
from anyrec.export.backends import Backend, Graph
from anyrec.storage.states import unpack

FORMAT = 1
"""Version of the format of an export."""
EXPORT = "export.json"
"""The file that only an export has."""
KNOWN, SCORER, PAIRS, PREPROCESSING = "known.safetensors", "scorer.onnx", "pairs.onnx", "preprocessing"
TOWERS: dict[Side, str] = {"user": "user_tower.onnx", "item": "item_tower.onnx"}
HISTORY, NEW_USER = "history", "new_user"
"""Arrays of KNOWN besides those of users and items: what histories read of the items, if it is not what the scorer
reads; and the vector (1, dim) of new users, if there is no user tower."""
AGAIN = "Copy the whole folder again, or export again."
DATA_KEYS = ("strict", "roles", "history", "positive_types", "min_rating")
"""Keys of the config's `data` that say how a request is read. None of them names a place outside the folder."""
MANIFEST_KEYS: dict[str, type] = {"format": int, "name": str, "model": str, "counts": dict, "versions": dict}
"""The type of each key of the manifest."""


@dataclass(frozen=True)
class Feature:
    """One feature of a tower.

    Attributes:
        column: The column of the records that it is made of.
        kind: The name of its preparation in `KINDS`.
        prepare: The preparation.
    """

    column: str
    kind: str
    prepare: Preparation


@dataclass(frozen=True)
class Bundle:
    """The contents of an export besides its records.

    Attributes:
        config: A config with the `data` section that requests are read by.
        roles: What each temporal feature holds.
        about: What export.json says besides: `reads`, `pair_width`, `factorised`, `outputs`.
        features: The features of each tower by name, in the order of the graph.
        histories: Names of the users' features that are made of histories.
        known: (users, ...) and (items, ...) arrays by name.
        towers: The graphs of the towers.
        scorer: The graph that scores; None if scores are dot products.
        pairs: The graph that scores pairs and runs the heads; None if scores are dot products and there are no heads.
    """

    config: Config
    roles: dict[str, str]
    about: JsonObject
    features: dict[Side, dict[str, Feature]]
    histories: list[str]
    known: dict[str, np.ndarray]
    towers: dict[Side, Graph]
    scorer: Graph | None
    pairs: Graph | None


def find_export(path: Path) -> Path:
    """Return the folder of an export, or the complete copy in it if a crash interrupted its replacement.

    Raises:
        ModelError: There is none.
    """
    folder = find_folder(path.resolve(), MANIFEST)
    if folder is None or not (folder / EXPORT).is_file():
        hint = "Give the folder that `anyrec export` wrote."
        raise ModelError(Fault(str(path), f"no export is here (no {EXPORT} found).", hint, "no model"))
    return folder


def read_bundle(manifest: Manifest, backend: Backend) -> Bundle:
    """Read an export whose manifest is open.

    Args:
        manifest: The manifest. All files are checked against it.
        backend: What runs the graphs.

    Raises:
        ModelError: With all faults of the files.
        MissingDependency: If what runs the graphs is not installed.
    """
    folder = manifest.folder
    version = manifest.document.get("format")
    if version != FORMAT:
        what = f"its format is {version!r}; this version reads {FORMAT}."
        raise ModelError(Fault(str(folder), what, "Export the model again.", "format"))
    manifest.check(MANIFEST_KEYS)
    document = read_object(folder / EXPORT, AGAIN)
    with damaged(folder / EXPORT, "this is not a description of an export", AGAIN):
        data = {key: document["data"][key] for key in DATA_KEYS if key in document["data"]}
        config = Config.model_validate({"name": manifest.document["name"], "data": data})
        features: dict[Side, dict[str, Feature]] = {
            side: _features(document["features"][side], folder / PREPROCESSING) for side in SIDES
        }
        known = read_arrays(folder / KNOWN)
        return Bundle(
            config=config,
            roles=dict(document["roles"]),
            about=document["about"],
            features=features,
            histories=[name for name, one in document["features"]["user"].items() if one["history"]],
            known=known,
            towers={side: backend(folder / name) for side, name in TOWERS.items() if (folder / name).is_file()},
            scorer=None if document["about"]["factorised"] else backend(folder / SCORER),
            pairs=backend(folder / PAIRS) if (folder / PAIRS).is_file() else None,
        )


def _features(saved: JsonObject, folder: Path) -> dict[str, Feature]:
    """Return the features of a tower, of what export.json says."""
    made = {}
    for name, one in saved.items():
        if one["preparation"] not in KINDS:
            what = f"'{name}' is prepared by '{one['preparation']}', which this version does not know."
            raise ModelError(Fault(str(folder), what, "Use the version in manifest.json.", "format"))
        state = unpack(one["state"], folder)
        prepare = KINDS[one["preparation"]](one["params"], state)
        made[name] = Feature(one["column"], one["preparation"], prepare)
    return made
