"""A training and its trackers: calls in their order, failures as warnings, one run for a training that is resumed."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType

from anyrec.core.config import Config
from anyrec.core.files import json_lines, json_object, save_json
from anyrec.core.processes import processes
from anyrec.core.registry import Registry
from anyrec.core.secrets import HIDDEN, SECRET_KEY, SHORTEST, redacted
from anyrec.core.types import JsonObject
from anyrec.training.checkpoints import FOLDER, LAST, REFIT
from anyrec.training.run_origin import flat_settings
from anyrec.training.tracker import TrackedResult, TrackedRun, Tracker

FILE = "tracking.json"
"""File of a run's folder: the run of each tracker, and the epochs that it has recorded."""
LOG = "metrics.jsonl"
RETRY_SECONDS = 60.0
"""Seconds after a failure in which a tracker is not called again, so that a server that is away slows no epoch."""
MOST_CHARACTERS = 300
"""Characters of an error that a warning shows."""


@dataclass
class _Recorder:
    """One tracker.

    Attributes:
        name: Its name in the config.
        tracker: The tracker.
        run: What identifies its run; empty before it is started.
        epochs: The last epoch that it has recorded, by stage.
        pending: Calls that did not succeed yet, in their order.
        failed: Time of the last failure; None if the last call succeeded.
        problem: The last error that was shown.
    """

    name: str
    tracker: Tracker
    run: str = ""
    epochs: dict[str, int] = field(default_factory=dict)
    pending: list[Callable[[], None]] = field(default_factory=list)
    failed: float | None = None
    problem: str = ""


class Tracking:
    """The trackers of one training. As a context manager, it ends their runs if the block raises.

    Args:
        trackers: The trackers by name.
        folder: The run's folder, for `tracking.json`; None for none.
        resume: Go on with the runs that this file names.
        group: Name of the study that the run is a trial of; empty for none.
        warn: Shows a warning.

    Raises:
        MissingDependency: If the package of a tracker is not installed.

    Example:
        with Tracking({"mlflow": MLflow()}) as tracking:
            recommender.fit(dataset, trackers=tracking)
            recommender.save("models/shop")
            tracking.finish(recommender.tracked_result())
    """

    def __init__(
        self,
        trackers: Mapping[str, Tracker],
        *,
        folder: Path | None = None,
        resume: bool = False,
        group: str = "",
        warn: Callable[[str], object] | None = None,
    ):
        trackers = trackers if processes().first else {}  # of several processes that train together, one records
        for tracker in trackers.values():
            tracker.check()
        self._folder, self._group = folder, group
        self._warn = warn or logging.getLogger(__name__).warning
        self._recorders = [_Recorder(name, tracker) for name, tracker in trackers.items()]
        self._resume, self._ended = resume, False
        state = json_object(folder / FILE) if folder is not None and resume and self._recorders else {}
        for one in self._recorders:
            known = state.get(one.name)
            if isinstance(known, dict) and isinstance(known.get("epochs"), dict):
                one.run, one.epochs = str(known.get("run", "")), dict(known["epochs"])

    @classmethod
    def of(
        cls,
        config: Config,
        registry: Registry,
        more: Sequence[Tracker] = (),
        *,
        folder: Path | None = None,
        resume: bool = False,
        group: str = "",
        warn: Callable[[str], object] | None = None,
    ) -> Tracking:
        """Return the trackers of a config.

        Args:
            config: The config.
            registry: The components.
            more: Further trackers.
            folder: As for the class, and so are the other arguments.
            resume: See there.
            group: See there.
            warn: See there.
        """
        trackers: dict[str, Tracker] = {}
        for name, choice in config.tracking.items():
            params = registry.params("tracker", choice.type, choice.options(), f"/tracking/{name}")
            trackers[name] = registry.get("tracker", choice.type)(params)
        for number, tracker in enumerate(more, 1):
            trackers[f"{tracker.type or type(tracker).__name__} ({number})"] = tracker
        return cls(trackers, folder=folder, resume=resume, group=group, warn=warn)

    def __enter__(self) -> Tracking:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None or self._ended:
            return
        self._ended = True
        for one in self._recorders:
            self._call(one, one.tracker.fail, last=True)

    def start(self, config: Config) -> None:
        """Start the runs. config: The complete config."""
        parameters = {name: _parameter(value) for name, value in flat_settings(config.model_dump(mode="json")).items()}
        for one in self._recorders:
            former, epoch = one.run or None, one.epochs.get("", 0)
            run = TrackedRun(config.name, self._folder, parameters, former, epoch, self._group)
            self._call(one, partial(_start, one, run))
        if self._resume and self._folder is not None:
            for stage in ("", REFIT):
                going_on = (self._folder / stage / FOLDER / LAST).is_file()
                for line in json_lines(self._folder / stage / LOG) if going_on else ():
                    self.epoch({"stage": stage, **line})

    def epoch(self, entry: JsonObject) -> None:
        """Record an epoch that is not recorded yet.

        Args:
            entry: Its entry of metrics.jsonl, with `stage`, the folder of a second training, if it is of one.
        """
        stage, step = entry.get("stage", ""), entry["epoch"]
        prefix = f"{stage}/" if stage else ""
        metrics = {f"{prefix}{name}": value for name, value in entry.items() if name not in ("epoch", "stage")}
        validation = metrics.pop(f"{prefix}validation", {})
        metrics |= {f"{prefix}validation/{name}": value for name, value in validation.items()}
        for one in self._recorders:
            if step > one.epochs.get(stage, 0):
                self._call(one, partial(_epoch, one, stage, step, metrics))

    def reporting(self, report: Callable[[JsonObject], None] | None) -> Callable[[JsonObject], None]:
        """Return a function that records an epoch and then passes it to `report`."""

        def both(entry: JsonObject) -> None:
            self.epoch(entry)
            if report is not None:
                report(entry)

        return both

    def finish(self, result: TrackedResult) -> None:
        """Record the result, and end the runs."""
        self._ended = True
        for one in self._recorders:
            self._call(one, partial(one.tracker.finish, result), last=True)
            if one.pending:
                self._warn(f"tracking: {one.name} did not record all of this training. metrics.jsonl has every epoch.")

    def _call(self, one: _Recorder, call: Callable[[], None], last: bool = False) -> None:
        """Call a tracker, after the calls that failed before. last: Also shortly after a failure."""
        one.pending.append(call)
        if one.failed is not None and not last and time.monotonic() < one.failed + RETRY_SECONDS:
            return
        one.failed = None
        while one.pending:
            try:
                one.pending[0]()
            except Exception as error:  # any error of another program: the training must not be lost by it
                one.failed = time.monotonic()
                problem = without_secrets(f"{type(error).__name__}: {error}")
                if problem != one.problem:
                    self._warn(f"tracking: {one.name} failed, and the training goes on: {problem}")
                one.problem = problem
                return
            one.pending.pop(0)
            self._write()

    def _write(self) -> None:
        """Write which epochs are recorded, so that a training that is resumed goes on with the same runs."""
        if self._folder is None:
            return
        state = {one.name: {"run": one.run, "epochs": one.epochs} for one in self._recorders}
        save_json(self._folder / FILE, state)


def _start(one: _Recorder, run: TrackedRun) -> None:
    one.run = one.tracker.start(run)


def _epoch(one: _Recorder, stage: str, step: int, metrics: Mapping[str, float]) -> None:
    one.tracker.epoch(step, metrics)
    one.epochs[stage] = step


def without_secrets(text: str) -> str:
    """Return the first characters of a text without passwords: of addresses, and of the environment's variables."""
    text = " ".join(redacted(text).split())
    for name, value in os.environ.items():
        if SECRET_KEY.search(name) and len(value) > SHORTEST:
            text = text.replace(value, HIDDEN)
    return text[:MOST_CHARACTERS]


def _parameter(value: object) -> str | int | float | bool:
    """Return a value of the config as a scalar, without secrets."""
    if isinstance(value, (bool, int, float)):
        return value
    return redacted(value if isinstance(value, str) else json.dumps(value))
