"""The record of a report in a run's folder: which model it belongs to, and which files it consists of."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from anyrec.core.files import json_object
from anyrec.core.types import JsonObject

FOLDER, FIGURES, USERS, FILES = "evaluation", "evaluation.json", "users.parquet", "files.json"
REPORT = "report"
"""Name of the group of files that a report consists of."""
OLDER = ("report.html", "report.md", "split.parquet", "split.json", f"{FOLDER}/{USERS}")
"""Files of a report of an older version, which did not write a list of them."""


def write_files(run: Path, names: list[str], baseline: str | None) -> None:
    """Write the paths of the report's files, relative to the run's folder, and the baseline that was saved with it."""
    text = json.dumps({"files": names, "baseline": baseline}, indent=1) + "\n"
    (run / FOLDER / FILES).write_text(text, encoding="utf-8")


def read_files(run: Path) -> JsonObject:
    """Return what `write_files` wrote: empty without a report, and without `files` for a report of an older version."""
    return json_object(run / FOLDER / FILES)


def remove_files(run: Path, listed: JsonObject, kept: list[str]) -> None:
    """Remove the files of a report, and the folders that are then empty.

    Args:
        run: The run's folder. Paths outside it are ignored.
        listed: As `read_files` returns it.
        kept: Paths, relative to the run's folder, that are not removed.
    """
    names = listed.get("files", OLDER)
    root = run.resolve()
    for name in names if isinstance(names, (list, tuple)) else ():
        path = (root / str(name)).resolve()
        if name not in kept and path.is_relative_to(root) and path.is_file():
            path.unlink()
            if path.parent != root and not any(path.parent.iterdir()):
                path.parent.rmdir()


def remove_report(run: Path, model: str) -> None:
    """Remove the report, the evaluation, the split and the baseline of a run if they belong to another model.

    Args:
        run: The run's folder.
        model: Id of the model whose report stays.
    """
    record, listed = json_object(run / FOLDER / FIGURES), read_files(run)
    if not record or record.get("model") == model:
        return
    (run / FOLDER / FIGURES).unlink()
    remove_files(run, listed, [])
    baselines = run / "baselines"
    baseline = baselines / Path(str(listed.get("baseline"))).name
    if (baseline / "manifest.json").is_file():
        shutil.rmtree(baseline)
        if not any(baselines.iterdir()):
            baselines.rmdir()
