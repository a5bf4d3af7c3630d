"""Presets of published data sets as `data` sections of a config."""

from __future__ import annotations

import json
from pathlib import Path

from anyrec.core.errors import DataError, Fault, InputError, did_you_mean
from anyrec.core.types import JsonObject

FOLDER = Path(__file__).parent


def preset_names() -> list[str]:
    """Return the names of all presets."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def about(name: str) -> str:
    """Return what a preset reads, in one or two sentences."""
    return _document(name)["about"]


def load_preset(name: str, folder: Path) -> tuple[JsonObject, list[str]]:
    """Return the `data` section that reads a published data set.

    Args:
        name: The preset.
        folder: The folder with the unpacked files.

    Returns:
        The section, with the folder as the root of its paths, and a note for each table that is not there.

    Raises:
        InputError: If there is no such preset.
        DataError: If the folder does not hold the interactions.
    """
    data, notes = _document(name)["data"], []
    sources = data["sources"]
    for part in list(sources):
        kept = []
        for table in sources[part]:
            patterns = table["path"] if isinstance(table["path"], list) else [table["path"]]
            found = [str(path.relative_to(folder)) for one in patterns for path in sorted(folder.glob(one))]
            if found:
                kept.append({**table, "path": found[0] if len(found) == 1 else found, "missing": "ignore"})
            elif part == "interactions" and table is sources[part][0]:
                raise _not_there(name, folder, " or ".join(patterns))
            else:
                notes.append(f"{folder}: {' and '.join(patterns)} is not there, so it is left out.")
        sources[part] = kept
    sources["root"] = str(folder)
    return data, notes


def _document(name: str) -> JsonObject:
    path = FOLDER / f"{name}.json"
    if name not in preset_names():
        what = f"there is no preset '{name:.60}'."
        raise InputError(Fault("preset", what, did_you_mean(name, preset_names()), "option"))
    return json.loads(path.read_text(encoding="utf-8"))


def _not_there(name: str, folder: Path, pattern: str) -> DataError:
    inside = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) if folder.is_dir() else "no such folder"
    what = f"there is no {pattern}; found {inside or 'nothing'}."
    return DataError(Fault(str(folder), what, f"The preset {name} reads: {about(name)}", "no file"))
