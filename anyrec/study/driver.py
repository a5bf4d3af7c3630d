"""The course of a study: starts trials, answers their epochs, and keeps the record of them."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

from anyrec.core.config import TWO_TOWER, Config
from anyrec.core.config.tune import COSTS, seconds_of
from anyrec.core.errors import AnyrecError, ConfigError, Fault, OutputError
from anyrec.core.files import json_lines, json_object, save_json
from anyrec.core.types import JsonObject
from anyrec.study.journal import JOURNAL, Journal
from anyrec.study.result import Trial
from anyrec.study.space import Searched, baseline
from anyrec.study.trials import Outcome, Task, TrialRunner
from anyrec.training.checkpoints import FOLDER

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

RECORD = "study.json"
"""File of a study's folder: what the study depends on, and the seconds that it took."""
LINE = 79
"""Columns of a line that shows a trial."""
TIME, PRUNED = "the time was over", "pruned"
"""Why a trial was ended early."""


class StudyDriver:
    """Runs a study that is new or resumed; the caller has the lock of its folder.

    Args:
        runner: Makes the configs of trials.
        space: The searched keys.
        resume: Go on with the study of the folder.
        echo: Shows a line.

    Raises:
        ConfigError: If the study cannot be run with this config, or the one in the folder is another one.
        OutputError: If the folder has a study and `resume` is False.
    """

    def __init__(self, runner: TrialRunner, space: Sequence[Searched], resume: bool, echo: Callable[[str], object]):
        self.setup, self.space = runner.setup, space
        self._runner, self._echo = runner, echo
        config, folder = self.setup.base, self.setup.folder
        self.objectives = list(config.tune.objectives) or [config.training.metric]
        _check(config, self.objectives)
        record = self._identity()
        _check_record(folder, record, resume)
        self._record = {**record, **{key: json_object(folder / RECORD).get(key, 0) for key in ("seconds", "tests")}}
        folder.mkdir(parents=True, exist_ok=True)
        save_json(folder / RECORD, self._record)
        self.start = baseline(space, runner.configs)
        epochs = max([config.training.epochs, *(int(one.high) for one in space if one.key == "training.epochs")])
        self.journal = Journal(
            folder, config.name, space, self.objectives, config.tune, config.seed, epochs, self.start
        )
        self._interrupted = self.journal.interrupted()
        self._limit = math.inf if config.tune.timeout is None else seconds_of(config.tune.timeout)
        self._before, self._started = float(self._record["seconds"]), time.monotonic()
        self._ended: float | None = None
        self._why: dict[int, str] = {}
        self._said_over = False

    # What workers call

    def next_task(self) -> Task | None:
        """As for `Driver`."""
        if self._interrupted:
            number, values = self.journal.next(self._interrupted.pop(0))
            self._sync(number)
            return Task(number, values)
        if len(self.journal.trials()) >= self.setup.base.tune.trials or self._over():
            return None
        return Task(*self.journal.next())

    def on_epoch(self, number: int, entry: JsonObject) -> bool:
        """As for `Driver`."""
        self._report(number, entry)
        self._write_record()
        if self._over():
            self._why[number] = TIME
        elif self.journal.should_stop(number):
            self._why[number] = PRUNED
        return number in self._why

    def on_done(self, number: int, outcome: Outcome) -> None:
        """As for `Driver`."""
        facts = {"metrics": dict(outcome.metrics), "epochs": outcome.epochs, "seconds": outcome.seconds}
        facts |= {"problem": outcome.problem, "idle": outcome.idle}
        values = None
        if outcome.state != "failed":
            found = {**outcome.metrics, "seconds": outcome.seconds, "parameters": outcome.parameters}
            values = [float(found[name]) for name in self.objectives]
            if any(math.isnan(value) for value in values):
                values, facts["problem"] = None, "its metric is not a number"
        if outcome.state == "stopped":  # Optuna keeps no objectives of such a trial
            facts |= {"objectives": values or [], "why": self._why.pop(number, PRUNED)}
            values = None
        self.journal.note(number, **{key: value for key, value in facts.items() if value not in ("", [])})
        self.journal.finish(number, values, stopped=outcome.state == "stopped")
        self._write_record()
        self._clear(number)
        trial = self.trials()[number]
        self._echo(self._line(trial))

    # The record of the study

    def trials(self) -> list[Trial]:
        """Return all trials in their order."""
        return [self._trial(one) for one in self.journal.trials()]

    def best(self) -> Trial:
        """Return the complete trial with the best first objective; without one, the best that the time ended.

        Raises:
            AnyrecError: If there is neither.
        """
        trials = self.trials()
        sign = -1.0 if self.objectives[0] in COSTS else 1.0
        for state in ("complete", "stopped", "pruned"):
            able = [one for one in trials if one.state == state and one.objectives]
            if able:
                return max(able, key=lambda one: (sign * one.objectives[0], -one.number))
        problems = list(dict.fromkeys(one.problem for one in trials if one.problem))
        limit = self.setup.base.tune.timeout
        time_over = f" Give it more time than {limit}: --timeout." if limit else ""
        why = f" Why: {'; '.join(problems[:3])}" if problems else time_over
        raise AnyrecError(f"no trial of the study has a validation metric.{why}")

    @property
    def seconds(self) -> float:
        """Seconds of the search so far, those of earlier sessions included."""
        now = time.monotonic() if self._ended is None else self._ended
        return self._before + now - self._started

    def end(self) -> None:
        """End the search: what follows, such as the measurement of the test part, does not count as its time."""
        self._ended = time.monotonic()
        self._write_record()

    def count_test(self) -> int:
        """Count an evaluation of the test part, and return how many there were."""
        self._record["tests"] = int(self._record["tests"]) + 1
        self._write_record()
        return int(self._record["tests"])

    # Helpers

    def _over(self) -> bool:
        over = self.seconds >= self._limit
        if over and not self._said_over:
            self._said_over = True
            self._echo(f"The time of the search is over ({self.setup.base.tune.timeout}).")
        return over

    def _report(self, number: int, entry: JsonObject) -> None:
        value = entry.get("validation", {}).get(self.objectives[0])
        if value is not None and not math.isnan(value):
            self.journal.report(number, entry["epoch"], value)

    def _sync(self, number: int) -> None:
        """Report epochs of an interrupted trial that it finished, but whose report did not reach the journal."""
        for entry in json_lines(self.setup.trial_folder(number) / "metrics.jsonl"):
            self._report(number, entry)

    def _trial(self, one: FrozenTrial) -> Trial:
        states = {"COMPLETE": "complete", "FAIL": "failed", "RUNNING": "interrupted"}
        facts = one.user_attrs
        state = states.get(one.state.name) or ("stopped" if facts.get("why") == TIME else "pruned")
        values = {
            key.key: one.params[key.key] if key.choices is None else json.loads(one.params[key.key])
            for key in self.space
            if key.key in one.params
        }
        objectives = list(one.values or []) if state == "complete" else list(facts.get("objectives", []))
        if not objectives and one.intermediate_values:  # an interrupted trial
            objectives = [max(one.intermediate_values.values())]
        epochs, seconds = int(facts.get("epochs", 0)), float(facts.get("seconds", 0.0))
        return Trial(
            one.number, state, values, objectives, facts.get("metrics", {}), epochs, seconds, facts.get("problem", "")
        )

    def _line(self, trial: Trial) -> str:
        """Return what became of a trial; values that do not fit in the line follow it."""
        found = trial.found(self.objectives)
        best = ""
        if trial.state == "complete" and self.best().number == trial.number:
            best = "   best so far"
        problem = f": {trial.problem}" if trial.problem else ""
        facts = f"trial {trial.number:>3}   {trial.state}   {found}{best}{problem}"
        return trial_text(facts, trial.described())

    def _clear(self, number: int) -> None:
        """Remove the checkpoints of trials that are not needed: neither the best one nor running."""
        trials = self.trials()
        finished = [one.number for one in trials if one.state != "interrupted"]
        has_best = any(one.objectives for one in trials if one.state in ("complete", "stopped", "pruned"))
        kept = self.best().number if has_best else -1
        for one in finished:
            checkpoints = self.setup.trial_folder(one) / FOLDER
            if one != kept and checkpoints.is_dir():
                shutil.rmtree(checkpoints)

    def _identity(self) -> JsonObject:
        """Return what the trials depend on."""
        config = self.setup.base
        ignored = {"name", "output_dir", "tune", "tracking", "cluster", "serving", "index", "update", "card", "feast"}
        options = config.tune
        return {
            "config": config.model_dump(mode="json", exclude=ignored),
            "data": self.setup.dataset.fingerprint(),
            "search": [one.as_json() for one in self.space],
            "objectives": self.objectives,
            "sampler": [options.sampler, options.startup_trials],
            "pruner": [options.pruner, options.warmup_epochs],
        }

    def _write_record(self) -> None:
        self._record["seconds"] = self.seconds
        save_json(self.setup.folder / RECORD, self._record)


def trial_text(facts: str, values: str) -> str:
    """Return the facts of a trial and its values in one line, or the values in lines of their own if it is too long."""
    if len(facts) + len(values) + 3 <= LINE:
        return f"{facts}   {values}"
    indent = " " * 12
    joined = values.replace(", ", "\n").replace(" ", "\xa0").replace("\n", ", ")  # a key stays with its value
    lines = wrap(joined, LINE, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
    return "\n".join([facts, *lines]).replace("\xa0", " ")


def _check(config: Config, objectives: Sequence[str]) -> None:
    """Check that a study with these objectives can be run."""
    faults = []
    known = config.evaluation.k
    for number, name in enumerate(objectives):
        where = f"/tune/objectives/{number}"
        if "@" in name and int(name.split("@")[1]) not in known:
            what = f"'{name}' is not measured: evaluation.k is {known}."
            faults.append(Fault(where, what, "Use one of those k, or add this one there.", "objective"))
        if name == "parameters" and config.model.type != TWO_TOWER:
            faults.append(
                Fault(where, f"'{config.model.type}' has no parameters to count.", "Use seconds.", "objective")
            )
        if objectives.index(name) != number:
            faults.append(Fault(where, f"'{name}' is listed twice.", "Leave it out.", "objective"))
    if len(objectives) > 1 and config.tune.pruner in ("median", "hyperband"):
        what = f"'{config.tune.pruner}' compares one metric, and there are several objectives."
        faults.append(Fault("/tune/pruner", what, "Set it to auto or none.", "objective"))
    if faults:
        raise ConfigError(faults)


def _check_record(folder: Path, record: JsonObject, resume: bool) -> None:
    """Check that the folder has the study that is to be resumed, or none."""
    there = (folder / JOURNAL).is_file() or (folder / RECORD).is_file()
    if there and not resume:
        hint = "Go on with it by --resume, use another name, or remove the folder."
        raise OutputError(Fault(str(folder), "this folder has a study.", hint, "foreign folder"))
    if resume and there:
        then = json_object(folder / RECORD)
        differing = [key for key, value in record.items() if then.get(key) != value]
        if differing:
            what = f"this study is another one. What differs: {', '.join(differing)}."
            hint = "Restore what differs, or start a study of another name."
            raise ConfigError(Fault(str(folder), what, hint, "foreign"))
