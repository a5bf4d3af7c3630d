"""Measured runs side by side: whose figures are better, by how much, how surely, and what was set otherwise."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.table import Table
from rich.text import Text

from anyrec.core.errors import Fault, InputError, checked_path
from anyrec.data.ids import rows_of
from anyrec.evaluation.statistics import Comparison, Interval, compare_paired, intervals

SAME = ("split", "part", "candidates", "candidate_samples", "repeats")
"""What two evaluations must have in common for their figures to compare."""
SHOWN = ("ndcg", "recall", "precision", "hit_rate", "map", "mrr")
NOT_SETTINGS = ("name", "output_dir")


class Run(NamedTuple):
    """evaluation: evaluation.json. users: one row a tested user, as users.parquet. config: by dotted key."""

    name: str
    folder: Path
    evaluation: dict[str, Any]
    users: pa.Table
    config: dict[str, Any]

    def by_user(self, metric: str) -> np.ndarray:
        """(users,) the model's figure of each tested user."""
        return self.users[f"model.{metric}"].to_numpy()

    def metrics(self) -> list[str]:
        """Names of the figures that users.parquet has of the model."""
        return [name.removeprefix("model.") for name in self.users.column_names if name.startswith("model.")]


class RunFigures(NamedTuple):
    """One run over the common users. main: of the main metric; metrics: means of the others; behind: the best run less this
    one, None for the best itself; own_users: how many users the run was measured on."""

    name: str
    folder: Path
    main: Interval
    metrics: dict[str, float]
    behind: Comparison | None
    own_users: int


@dataclass
class RunComparison:
    """runs: the best first. settings: {dotted key: {run: value}} of all that is not the same in every run; a run that does not
    have the key is left out. warnings: what to beware of."""

    metric: str
    users: int
    runs: list[RunFigures]
    settings: dict[str, dict[str, Any]]
    warnings: list[str]


def compare_runs(folders: Sequence[Path], force: bool = False) -> RunComparison:
    """Compare measured runs, given by run or model folder, over the users that all of them were measured on.

    force: also compare what was measured on different splits, parts or candidates.
    Raises InputError with every fault: fewer than two runs, one that was not measured, runs that do not compare.
    """
    runs = _read_all(folders)
    differing = _unlike(runs)
    if differing and not force:
        raise InputError(differing)
    warnings = [f"compared by force, so the figures mean little; {fault.where} is {fault.what}" for fault in differing]
    if any(run.evaluation["candidate_samples"] is not None for run in runs):
        warnings.append("held-out items were ranked among random items only: sampled figures compare with no others.")
    runs, left_out = _common(runs)
    if left_out:
        warnings.append(f"only the {len(runs[0].users):,} users common to all runs are compared; left out: {left_out}.")
    metric = _main_metric(runs, warnings)
    return RunComparison(metric, len(runs[0].users), _measure(runs, metric), _settings(runs), warnings)


def _measure(runs: list[Run], metric: str) -> list[RunFigures]:
    """The best first, by the mean of `metric`; equally good ones as they were given."""
    values = {run.name: run.by_user(metric) for run in runs}
    spans = intervals(values)
    order = sorted(runs, key=lambda run: -spans[run.name].mean)
    best, *rest = order
    behind = compare_paired(values[best.name], {run.name: values[run.name] for run in rest})
    shown = _shown_metrics(runs, metric)
    return [
        RunFigures(
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
    places = [_run_folder(checked_path(folder, "runs")) for folder in folders]
    faults = []
    if len(folders) < 2:
        faults.append(Fault("runs", "there is nothing to compare with.", "Name two run folders or more.", "option"))
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
    return [run if names.count(run.name) == 1 else run._replace(name=str(run.folder)) for run in runs]


def _run_folder(folder: Path) -> Path:
    """The run's folder, also where its model folder was named."""
    run = folder.resolve().parent
    return run if (folder / "manifest.json").is_file() and (run / "evaluation").is_dir() else folder


def _read(folder: Path) -> Run:
    """Raises InputError where the folder holds no run, or one that was not measured."""
    if not folder.is_dir():
        raise InputError(Fault(str(folder), "there is no such folder.", "Name a run's folder.", "no run"))
    place = folder / "evaluation"
    if not (place / "evaluation.json").is_file() or not (place / "users.parquet").is_file():
        what = "this run has not been measured (it has no evaluation)."
        raise InputError(Fault(str(folder), what, "Run `anyrec report` first.", "no evaluation"))
    evaluation = _read_json(place / "evaluation.json")
    evaluation.setdefault("repeats", None)  # of a version that ranked items that a user had before
    missing = [key for key in ("name", "metric", "users", *SAME) if key not in evaluation]
    if missing:
        what = f"it does not say its {', '.join(missing)}."
        raise InputError(Fault(str(place / "evaluation.json"), what, "Run `anyrec report` again.", "damaged"))
    try:
        users = pq.read_table(place / "users.parquet")
        users["user_id"]
    except (OSError, KeyError, pa.ArrowInvalid) as error:
        what = f"this cannot be read ({error})."
        raise InputError(Fault(str(place / "users.parquet"), what, "Run `anyrec report` again.", "damaged")) from None
    _check_model(folder, evaluation, users)
    configs = [path for path in (folder / "model" / "config.json", folder / "config.json") if path.is_file()]
    if not configs:
        raise InputError(Fault(str(folder), "this run has no config.json.", "Copy the whole run folder.", "no config"))
    return Run(evaluation["name"], folder, evaluation, users, dict(_flat(_read_json(configs[0]))))


def _check_model(folder: Path, evaluation: dict[str, Any], users: pa.Table) -> None:
    """Raises InputError if the figures of means, of users, and the model that is in the folder are not of one model."""
    manifest = folder / "model" / "manifest.json"
    models = {
        _read_json(manifest).get("id") if manifest.is_file() else None,
        evaluation.get("model"),
        (users.schema.metadata or {}).get(b"model", b"").decode() or None,
    }
    if len(models - {None}) > 1:
        what = "its figures are of another model than the one that is here now."
        raise InputError(Fault(str(folder), what, "Run `anyrec report` again.", "another model"))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(Fault(str(path), f"this cannot be read ({error}).", "Copy it again.", "damaged")) from None
    if not isinstance(found, dict):
        raise InputError(Fault(str(path), "expected a JSON object.", "Copy it again.", "damaged"))
    return found


def _flat(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values, lists and empty objects whole."""
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _unlike(runs: list[Run]) -> list[Fault]:
    """Why the runs' figures do not compare."""
    faults = []
    for key in SAME:
        told = {run.name: run.evaluation[key] for run in runs}
        if len(set(map(str, told.values()))) > 1:
            found = ", ".join(f"{name} has {'none' if value is None else value}" for name, value in told.items())
            hint = "Such figures cannot be compared: measure alike (split.file follows another run's split), or use --force."
            faults.append(Fault(key, f"not the same in all runs: {found}.", hint, "incomparable"))
    return faults


def _common(runs: list[Run]) -> tuple[list[Run], str]:
    """The runs with the users alone that all of them have, in one order; and who was left out."""
    ids = runs[0].users["user_id"].combine_chunks()
    places = np.stack([rows_of(ids, run.users["user_id"].combine_chunks()) for run in runs])
    kept = places[:, (places >= 0).all(0)]
    if not kept.shape[1]:
        fault = Fault("users", "no user is common to all these runs.", "Compare runs on the same data.", "incomparable")
        raise InputError(fault)
    left_out = [f"{len(run.users) - kept.shape[1]:,} of {run.name}" for run in runs if len(run.users) > kept.shape[1]]
    common = [run._replace(users=run.users.take(pa.array(rows))) for run, rows in zip(runs, kept, strict=True)]
    return common, ", ".join(left_out)


def _main_metric(runs: list[Run], warnings: list[str]) -> str:
    """What the first run was chosen by, or else another run, if all have it."""
    wanted = list(dict.fromkeys(run.evaluation["metric"] for run in runs))
    shared = [name for name in wanted if all(name in run.metrics() for run in runs)]
    if not shared:
        what = f"the runs have none of {', '.join(wanted)} in common."
        raise InputError(Fault("metric", what, "Measure them at the same evaluation.k.", "incomparable"))
    if len(wanted) > 1:
        warnings.append(f"the runs were chosen by different metrics ({', '.join(wanted)}); compared by {shared[0]}.")
    return shared[0]


def _shown_metrics(runs: list[Run], metric: str) -> list[str]:
    """The other measures of accuracy at the main metric's k, and auc, as far as all runs have them."""
    k = metric.split("@")[-1]
    names = [name for name in (*(f"{name}@{k}" for name in SHOWN), "auc") if name != metric]
    return [name for name in names if all(name in run.metrics() for run in runs)]


def _settings(runs: list[Run]) -> dict[str, dict[str, Any]]:
    keys = sorted(set().union(*(run.config for run in runs)) - set(NOT_SETTINGS))
    found = {key: {run.name: run.config[key] for run in runs if key in run.config} for key in keys}
    return {
        key: values
        for key, values in found.items()
        if len(values) < len(runs) or len({json.dumps(value, sort_keys=True) for value in values.values()}) > 1
    }


def _mean(values: np.ndarray) -> float:
    """Of what is a number; not a number where nothing is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def as_json(found: RunComparison) -> dict[str, Any]:
    """All of the comparison; a figure that is not a number is null."""
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
                "best_less_it": None if run.behind is None else asdict(run.behind),
            }
            for run in found.runs
        ],
        "settings": found.settings,
        "warnings": found.warnings,
    }


def tables(found: RunComparison) -> list[Table]:
    """The figures, a row a run; and what was set otherwise, a column a run, where anything was."""
    others = list(found.runs[0].metrics)
    header = ["run", f"{found.metric} [95%]", "best less it [95%]", "p (Holm)", *others]
    rows = [
        [run.name, _span(run.main), *_told(run.behind), *(f"{run.metrics[name]:.4f}" for name in others)]
        for run in found.runs
    ]
    made = [_table(header, rows, f"{found.users:,} users, the best run first")]
    if found.settings:
        names = [run.name for run in found.runs]
        settings = [
            [key, *(json.dumps(values[name]) if name in values else "" for name in names)]
            for key, values in found.settings.items()
        ]
        made.append(_table(["set otherwise", *names], settings))
    return made


def _table(header: list[str], rows: list[list[str]], title: str | None = None) -> Table:
    """Cells are plain text: nothing in them is taken for markup."""
    table = Table(title=title, title_justify="left", box=None, header_style="bold")
    for place, name in enumerate(header):
        table.add_column(Text(name), overflow="fold", no_wrap=place == 0)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _span(one: Interval) -> str:
    return f"{one.mean:.4f} [{one.low:.4f}, {one.high:.4f}]"


def _told(gap: Comparison | None) -> tuple[str, str]:
    if gap is None:
        return "", ""
    p = f"{gap.corrected:.3f}" if gap.corrected >= 0.001 else "< 0.001"
    return f"{gap.difference:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]", p
