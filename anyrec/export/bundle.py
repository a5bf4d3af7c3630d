"""The files of an export.

export/  manifest.json       format, name, id of the model, versions, opset, counts, sha256 of each file below
         export.json         features with the options and states of their preparation, outputs of the graphs, `data`
         preprocessing/      the arrays of these states: Arrow, or safetensors
         user_tower.onnx     features and history of users -> vectors
         item_tower.onnx     features of items -> vectors
         scorer.onnx         vectors of users and items -> scores
         pairs.onnx          vectors of pairs -> scores, and what the heads predict
         known.safetensors   vectors of the known users and items
         members/            the arrays of classical models and of a blend
         users.arrow items.arrow seen.arrow history.arrow   the records, as in a model directory (docs/files.md)
"""

from __future__ import annotations

from collections.abc import Mapping
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
from anyrec.data.pairs import Pairs
from anyrec.data.preparation.kinds import KINDS, Preparation
from anyrec.data.scoring.kinds import SCORINGS
from anyrec.export.backends import Backend, Graph
from anyrec.export.members import Blend, Member
from anyrec.storage.states import unpack

FORMAT = 1
"""Version of the format of an export."""
EXPORT = "export.json"
"""The file that only an export has."""
KNOWN, SCORER, PAIRS = "known.safetensors", "scorer.onnx", "pairs.onnx"
PREPROCESSING, MEMBERS = "preprocessing", "members"
TOWERS: dict[Side, str] = {"user": "user_tower.onnx", "item": "item_tower.onnx"}
HISTORY = "history"
"""The array of KNOWN besides those of users and items: what histories read of the items, if it is not what the scorer
reads."""
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
        known: (users, ...) and (items, ...) arrays by name; empty for a classical model without vectors.
        towers: The graphs of the towers.
        scorer: The graph that scores; None if scores are dot products.
        pairs: The graph that scores pairs and runs the heads; None if scores are dot products and there are no heads.
        members: The classical models by name.
        blend: Adds their scores to those of the towers; None if there is no blend.
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
    members: Mapping[str, Member]
    blend: Blend | None

    @property
    def member(self) -> Member | None:
        """The classical model that scores instead of towers; None if there are towers."""
        return next(iter(self.members.values()), None) if self.blend is None else None


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
        towers: dict[Side, Graph] = {
            side: backend(folder / name) for side, name in TOWERS.items() if (folder / name).is_file()
        }
        members = _members(document, folder / MEMBERS)
        blend = None
        if "blend" in document:
            own = unpack(document["blend"], folder / MEMBERS)
            blend = Blend(members, own["weights"], own["mean"], own["covariance"], own["least_deviation"])
        return Bundle(
            config=config,
            roles=dict(document["roles"]),
            about=document["about"],
            features=features,
            histories=[name for name, one in document["features"]["user"].items() if one["history"]],
            known=known,
            towers=towers,
            scorer=None if document["about"]["factorised"] or not towers else backend(folder / SCORER),
            pairs=backend(folder / PAIRS) if (folder / PAIRS).is_file() else None,
            members=members,
            blend=blend,
        )


def _members(document: JsonObject, folder: Path) -> dict[str, Member]:
    """Return the classical models by name, of what export.json says."""
    histories = [Pairs(**unpack(one, folder)) for one in document.get("histories", [])]
    made = {}
    for name, saved in document.get("members", {}).items():
        if saved["scoring"] not in SCORINGS:
            raise _unknown(folder, f"'{name}' scores by '{saved['scoring']}'")
        made[name] = Member.of(unpack(saved, folder), histories[saved["histories"]])
    return made


def _features(saved: JsonObject, folder: Path) -> dict[str, Feature]:
    """Return the features of a tower, of what export.json says."""
    made = {}
    for name, one in saved.items():
        if one["preparation"] not in KINDS:
            raise _unknown(folder, f"'{name}' is prepared by '{one['preparation']}'")
        state = unpack(one["state"], folder)
        prepare = KINDS[one["preparation"]](one["params"], state)
        made[name] = Feature(one["column"], one["preparation"], prepare)
    return made


def _unknown(folder: Path, what: str) -> ModelError:
    """Return the error for a program that this version does not have."""
    hint = "Use the version in manifest.json."
    return ModelError(Fault(str(folder), f"{what}, which this version does not know.", hint, "format"))
