"""Comparison of the evaluations of several runs: means, paired differences, and the settings that differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.table import Table
from rich.text import Text

from anyrec.core.errors import Fault, InputError, checked_path
from anyrec.core.types import Json, JsonObject
from anyrec.data.ids import rows_of
from anyrec.evaluation.statistics import Comparison, Interval, compare_paired, intervals
from anyrec.report import numbers
from anyrec.report.record import FIGURES, FOLDER, USERS

SAME = ("split", "part", "candidates", "candidate_samples", "repeats")
"""Options that two evaluations must have in common for their metrics to be comparable."""
SHOWN = ("ndcg", "recall", "precision", "hit_rate", "map", "mrr")
NOT_SETTINGS = ("name", "output_dir")


@dataclass(frozen=True)
class Run:
    """An evaluated run.

    Attributes:
        name: Name of the run.
        folder: The run's folder.
        evaluation: Contents of evaluation.json.
        users: Contents of users.parquet: one row per evaluated user.
        config: Values by dotted key.
    """

    name: str
    folder: Path
    evaluation: JsonObject
    users: pa.Table
    config: JsonObject

    def by_user(self, metric: str) -> np.ndarray:
        """Return (users,) values of a metric of the run's model."""
        return self.users[f"model.{metric}"].to_numpy()

    def metrics(self) -> list[str]:
        """Return the names of the metrics of the run's model in users.parquet."""
        return [name.removeprefix("model.") for name in self.users.column_names if name.startswith("model.")]


@dataclass(frozen=True)
class RunResult:
    """Metrics of one run over the users that all runs have in common.

    Attributes:
        name: Name of the run.
        folder: The run's folder.
        main: Interval of the main metric.
        metrics: Means of the other metrics; nan if no user has a value.
        behind: Main metric of the best run minus that of this run; None for the best run.
        own_users: Number of users that the run was evaluated on.
    """

    name: str
    folder: Path
    main: Interval
    metrics: dict[str, float]
    behind: Comparison | None
    own_users: int


@dataclass(frozen=True)
class RunComparison:
    """A comparison of runs.

    Attributes:
        metric: The main metric.
        users: Number of users that all runs have in common.
        runs: Results, the best first.
        settings: By dotted key, then by run: values that differ between runs. Runs without the key are omitted.
        warnings: Caveats.
    """

    metric: str
    users: int
    runs: list[RunResult]
    settings: dict[str, dict[str, Json]]
    warnings: list[str]


def compare_runs(folders: Sequence[Path], force: bool = False) -> RunComparison:
    """Compare evaluated runs over the users that all of them were evaluated on.

    Args:
        folders: Folders of runs or of their models.
        force: Whether to compare evaluations on different splits, parts or candidates too.

    Raises:
        InputError: With every fault: fewer than two runs, a run without evaluation, runs that are not comparable.
    """
    runs = _read_all(folders)
    differing = _incomparable(runs)
    if differing and not force:
        raise InputError(differing)
    warnings = [
        f"compared by force, so the differences mean little; {fault.where} is {fault.what}" for fault in differing
    ]
    if any(run.evaluation["candidate_samples"] is not None for run in runs):
        warnings.append(
            "held-out items were ranked among random items only: sampled metrics are not comparable with others."
        )
    runs, left_out = _common(runs)
    if left_out:
        warnings.append(f"only the {len(runs[0].users):,} users common to all runs are compared; left out: {left_out}.")
    metric = _main_metric(runs, warnings)
    return RunComparison(metric, len(runs[0].users), _measure(runs, metric), _settings(runs), warnings)


def _measure(runs: list[Run], metric: str) -> list[RunResult]:
    """Return the results, the best first by the mean of `metric`; runs with equal means stay in the given order."""
    values = {run.name: run.by_user(metric) for run in runs}
    spans = intervals(values)
    order = sorted(runs, key=lambda run: -spans[run.name].mean)
    best, *rest = order
    behind = compare_paired(values[best.name], {run.name: values[run.name] for run in rest})
    shown = _shown_metrics(runs, metric)
    return [
        RunResult(
            run.name,
            run.folder,
            spans[run.name],
            {name: _mean(run.by_user(name)) for name in shown},
            behind.get(run.name),
            run.evaluation["users"],
        )
        for run in order
    ]


def _read_all(folders: Sequence[Path]) -> list[Run]:
    """Read the runs; runs of the same name are named by their folder."""
    places = [_run_folder(checked_path(folder, "runs")) for folder in folders]
    faults = []
    if len(folders) < 2:
        faults.append(Fault("runs", "there is nothing to compare with.", "Name at least two run folders.", "option"))
    for number, place in enumerate(places):
        if place.resolve() in [other.resolve() for other in places[:number]]:
            faults.append(Fault(str(folders[number]), "this run is named twice.", "Name each once.", "option"))
    runs = []
    for place in places:
        try:
            runs.append(_read(place))
        except InputError as error:
            faults += error.faults
    if faults:
        raise InputError(list(dict.fromkeys(faults)))
    names = [run.name for run in runs]
    return [run if names.count(run.name) == 1 else replace(run, name=str(run.folder)) for run in runs]


def _run_folder(folder: Path) -> Path:
    """Return the run's folder if its model folder was named."""
    run = folder.resolve().parent
    return run if (folder / "manifest.json").is_file() and (run / FOLDER).is_dir() else folder


def _read(folder: Path) -> Run:
    """Read a run.

    Raises:
        InputError: If the folder does not contain a run with an evaluation.
    """
    if not folder.is_dir():
        raise InputError(Fault(str(folder), "there is no such folder.", "Name a run's folder.", "no run"))
    place = folder / FOLDER
    if not (place / FIGURES).is_file() or not (place / USERS).is_file():
        what = "this run has not been measured (it has no evaluation)."
        raise InputError(Fault(str(folder), what, "Run `anyrec report` first.", "no evaluation"))
    evaluation = _read_json(place / FIGURES)
    evaluation.setdefault("repeats", None)  # written by a version without this option
    missing = [key for key in ("name", "metric", "users", *SAME) if key not in evaluation]
    if missing:
        what = f"it does not say its {', '.join(missing)}."
        raise InputError(Fault(str(place / FIGURES), what, "Run `anyrec report` again.", "damaged"))
    try:
        users = pq.read_table(place / USERS)
        users["user_id"]
    except (OSError, KeyError, pa.ArrowInvalid) as error:
        what = f"this cannot be read ({error})."
        raise InputError(Fault(str(place / USERS), what, "Run `anyrec report` again.", "damaged")) from None
    _check_model(folder, evaluation, users)
    configs = [path for path in (folder / "model" / "config.json", folder / "config.json") if path.is_file()]
    if not configs:
        raise InputError(Fault(str(folder), "this run has no config.json.", "Copy the whole run folder.", "no config"))
    return Run(evaluation["name"], folder, evaluation, users, dict(_flat(_read_json(configs[0]))))


def _check_model(folder: Path, evaluation: JsonObject, users: pa.Table) -> None:
    """Check that evaluation.json, users.parquet and the model in the folder belong to one model.

    Raises:
        InputError: If they do not.
    """
    manifest = folder / "model" / "manifest.json"
    models = {
        _read_json(manifest).get("id") if manifest.is_file() else None,
        evaluation.get("model"),
        (users.schema.metadata or {}).get(b"model", b"").decode() or None,
    }
    if len(models - {None}) > 1:
        what = "its evaluation belongs to another model than the one in this folder."
        raise InputError(Fault(str(folder), what, "Run `anyrec report` again.", "another model"))


def _read_json(path: Path) -> JsonObject:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(Fault(str(path), f"this cannot be read ({error}).", "Copy it again.", "damaged")) from None
    if not isinstance(found, dict):
        raise InputError(Fault(str(path), "expected a JSON object.", "Copy it again.", "damaged"))
    return found


def _flat(config: JsonObject, prefix: str = "") -> Iterator[tuple[str, Json]]:
    """Yield dotted keys and values; lists and empty objects are not divided."""
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _incomparable(runs: list[Run]) -> list[Fault]:
    """Return why the runs' metrics are not comparable."""
    faults = []
    for key in SAME:
        values = {run.name: run.evaluation[key] for run in runs}
        if len(set(map(str, values.values()))) > 1:
            found = ", ".join(f"{name} has {'none' if value is None else value}" for name, value in values.items())
            hint = "Evaluate all runs in the same way (split.file follows another run's split), or use --force."
            faults.append(Fault(key, f"not the same in all runs: {found}.", hint, "incomparable"))
    return faults


def _common(runs: list[Run]) -> tuple[list[Run], str]:
    """Return the runs restricted to their common users, in one order, and the numbers of omitted users as text."""
    ids = runs[0].users["user_id"].combine_chunks()
    places = np.stack([rows_of(ids, run.users["user_id"].combine_chunks()) for run in runs])
    kept = places[:, (places >= 0).all(0)]
    if not kept.shape[1]:
        fault = Fault("users", "no user is common to all these runs.", "Compare runs on the same data.", "incomparable")
        raise InputError(fault)
    left_out = [f"{len(run.users) - kept.shape[1]:,} of {run.name}" for run in runs if len(run.users) > kept.shape[1]]
    common = [replace(run, users=run.users.take(pa.array(rows))) for run, rows in zip(runs, kept, strict=True)]
    return common, ", ".join(left_out)


def _main_metric(runs: list[Run], warnings: list[str]) -> str:
    """Return the main metric of the first run that all runs have."""
    wanted = list(dict.fromkeys(run.evaluation["metric"] for run in runs))
    shared = [name for name in wanted if all(name in run.metrics() for run in runs)]
    if not shared:
        what = f"the runs have none of {', '.join(wanted)} in common."
        raise InputError(Fault("metric", what, "Evaluate them at the same evaluation.k.", "incomparable"))
    if len(wanted) > 1:
        warnings.append(f"the runs were chosen by different metrics ({', '.join(wanted)}); compared by {shared[0]}.")
    return shared[0]


def _shown_metrics(runs: list[Run], metric: str) -> list[str]:
    """Return the other accuracy metrics at the main metric's k, and auc, if all runs have them."""
    k = metric.split("@")[-1]
    names = [name for name in (*(f"{name}@{k}" for name in SHOWN), "auc") if name != metric]
    return [name for name in names if all(name in run.metrics() for run in runs)]


def _settings(runs: list[Run]) -> dict[str, dict[str, Json]]:
    """Return the config values that differ, by dotted key and run."""
    keys = sorted(set().union(*(run.config for run in runs)) - set(NOT_SETTINGS))
    found = {key: {run.name: run.config[key] for run in runs if key in run.config} for key in keys}
    return {
        key: values
        for key, values in found.items()
        if len(values) < len(runs) or len({json.dumps(value, sort_keys=True) for value in values.values()}) > 1
    }


def _mean(values: np.ndarray) -> float:
    """Return the mean of the values that are not nan; nan if there are none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


def as_json(found: RunComparison) -> JsonObject:
    """Return the comparison as a JSON object; nan is null."""
    return {
        "metric": found.metric,
        "users": found.users,
        "runs": [
            {
                "name": run.name,
                "folder": str(run.folder),
                "own_users": run.own_users,
                "main": asdict(run.main),
                "metrics": {name: None if np.isnan(value) else value for name, value in run.metrics.items()},
                "best_minus_run": None if run.behind is None else asdict(run.behind),
            }
            for run in found.runs
        ],
        "settings": found.settings,
        "warnings": found.warnings,
    }


def tables(found: RunComparison) -> list[Table]:
    """Return a table of metrics, one row per run, and a table of the settings that differ, one column per run."""
    others = list(found.runs[0].metrics)
    header = ["run", f"{found.metric} [95%]", "delta (best - run) [95%]", "p (Holm)", *others]
    rows = [
        [run.name, numbers.interval(run.main), *_behind(run.behind), *(f"{run.metrics[name]:.4f}" for name in others)]
        for run in found.runs
    ]
    made = [_table(header, rows, f"{found.users:,} users, the best run first")]
    if found.settings:
        names = [run.name for run in found.runs]
        settings = [
            [key, *(json.dumps(values[name]) if name in values else "" for name in names)]
            for key, values in found.settings.items()
        ]
        made.append(_table(["differing setting", *names], settings))
    return made


def _table(header: list[str], rows: list[list[str]], title: str | None = None) -> Table:
    """Return a table whose cells are plain text, without markup."""
    table = Table(title=title, title_justify="left", box=None, header_style="bold")
    for place, name in enumerate(header):
        table.add_column(Text(name), overflow="fold", no_wrap=place == 0)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _behind(delta: Comparison | None) -> tuple[str, str]:
    """Return the difference and p of a run; nothing for the best run."""
    return ("", "") if delta is None else (numbers.difference(delta), numbers.p_value(delta.corrected))
