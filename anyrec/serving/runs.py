"""The training runs of a folder: what they trained, how it went, and their reports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from anyrec.core.config import Config
from anyrec.core.files import json_lines, json_object
from anyrec.core.manifest import MANIFEST
from anyrec.core.types import JsonObject

HISTORY, REPORT, CONFIG, MODEL = "metrics.jsonl", "report.html", "config.json", "model"
MOST_RUNS = 200
"""Runs of a folder that are listed, the latest ones."""


@dataclass(frozen=True)
class Run:
    """A folder that `anyrec train` wrote, or is writing."""

    folder: Path

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.name

    def epochs(self) -> list[JsonObject]:
        """Return the entries of metrics.jsonl, one for each finished epoch; none for a classical model."""
        return json_lines(self.folder / HISTORY)  # not there yet, or no run of ours

    def about(self) -> JsonObject:
        """Return the name, the time, the metrics of the saved model, the settings, and whether there is a report."""
        manifest, config = json_object(self.folder / MODEL / MANIFEST), json_object(self.folder / CONFIG)
        config = config or json_object(self.folder / MODEL / CONFIG)
        return {
            "name": self.name,
            "changed": self.changed,
            "trained": bool(manifest),
            "digest": manifest.get("id"),
            "metrics": manifest.get("metrics", {}),
            "settings": _flat({name: value for name, value in config.items() if name not in ("name", "output_dir")}),
            "metric": config.get("training", {}).get("metric", Config().training.metric),
            "report": (self.folder / REPORT).is_file(),
        }

    @property
    def changed(self) -> float:
        """When the run wrote its model or its last epoch, in seconds since 1970."""
        return max(_time(self.folder / MODEL / MANIFEST), _time(self.folder / HISTORY))

    def report(self) -> str | None:
        """Return the page of the report; None if there is none."""
        try:
            return (self.folder / REPORT).read_text(encoding="utf-8")
        except OSError:
            return None


@dataclass(frozen=True)
class Runs:
    """The runs within a folder.

    Attributes:
        folder: The folder; None if the model is not saved, and there are no runs.
        current: Name of the run that serves or is training.
    """

    folder: Path | None
    current: str = ""

    def all(self) -> list[Run]:
        """Return the runs, the current one first, then the latest ones. The current one may not have begun."""
        if self.folder is None:
            return []
        found = [Run(path) for path in self.folder.iterdir() if _is_run(path)] if self.folder.is_dir() else []
        others = sorted((run for run in found if run.name != self.current), key=lambda run: (-run.changed, run.name))
        return [*([Run(self.folder / self.current)] if self.current else []), *others[:MOST_RUNS]]

    def named(self, name: str) -> Run | None:
        """Return a run by its name; None if there is none. The name is looked up, not opened."""
        return next((run for run in self.all() if run.name == name), None)


def _is_run(path: Path) -> bool:
    return (path / HISTORY).is_file() or (path / MODEL / MANIFEST).is_file()


def _time(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _flat(value: object, name: str = "") -> JsonObject:
    """Return the values of nested objects by dotted key."""
    if not isinstance(value, dict):
        return {name: value}
    found: JsonObject = {}
    for key, inner in value.items():
        found |= _flat(inner, f"{name}.{key}" if name else key)
    return found
