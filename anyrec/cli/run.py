"""One training run as the command line does it: read, fit, print, save."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from anyrec.core.config import Config
from anyrec.core.discovery import discover
from anyrec.core.errors import AnyrecError, Fault, OutputError
from anyrec.core.files import atomic_write, exclusive
from anyrec.core.outputs import check_output
from anyrec.data.dataset import Dataset
from anyrec.data.defaults import resolve_config
from anyrec.data.doctor.examine import as_lines, examine
from anyrec.data.interpretation import interpretation
from anyrec.evaluation import sampled
from anyrec.model.build import check_with_data
from anyrec.model.fitted import FittedModel
from anyrec.recommender import Recommender
from anyrec.report.record import remove_report
from anyrec.retrieval.item_index import remove_other_index
from anyrec.storage.model_card import metric_names
from anyrec.storage.model_directory import check_model_output, model_id, update_metrics, versions

SHOWN = 8
"""Findings of the data doctor that are printed before training."""
RUN_FILES = {"model", "checkpoints", "metrics.jsonl", "environment.json", "evaluation", "report.html"}
"""At least one of these is in the folder of every run that was begun."""


def train_run(
    config: Config,
    data: Path,
    plugins: Sequence[str],
    notes: Sequence[str],
    resume: bool,
    console: Console,
    dataset: Dataset | None = None,
) -> Recommender:
    """Train on `data` (read already as `dataset`) and leave models/<name>/: config, environment, metrics, checkpoints, model.

    The model is saved as soon as it is trained. What follows, measuring and the report, can only fail with a warning.

    Raises:
        OutputError: The run's folder cannot be written, or another process is training into it.
    """
    run_dir = Path(config.output_dir) / config.name
    check_run(run_dir)
    with exclusive(run_dir):
        return _train(config, data, plugins, notes, resume, console, dataset, run_dir)


def _train(
    config: Config,
    data: Path,
    plugins: Sequence[str],
    notes: Sequence[str],
    resume: bool,
    console: Console,
    dataset: Dataset | None,
    run_dir: Path,
) -> Recommender:
    registry = discover([*config.plugins, *plugins])
    config = config.model_copy(update={"plugins": list(dict.fromkeys([*config.plugins, *plugins]))})
    dataset = dataset or read_data(data, config)
    config, chosen = resolve_config(config, dataset, registry)
    for note in [*notes, *chosen]:
        console.print(f"config: {note}", markup=False)
    console.print(
        f"{len(dataset.users):,} users, {len(dataset.items):,} items, {len(dataset.interactions):,} interactions"
    )
    meaning = interpretation(dataset, config.data)
    others = [one for one in examine(dataset, config, images=False) if one.level != "note" and one not in meaning]
    printed = [*as_lines(meaning), *as_lines(others, SHOWN)]
    for line in printed:
        console.print(line, markup=False)
    recommender = Recommender(config, registry)

    def started(model: FittedModel) -> None:
        _print_lines(model.describe(), console)

    def report(entry: dict[str, Any]) -> None:
        measured = entry.get("validation", {}).get(config.training.metric)
        told = "" if measured is None else f"   validation {config.training.metric} {measured:.4f}"
        console.print(f"epoch {entry['epoch']:>3}   loss {entry['loss']:.4f}   {entry['seconds']:.1f} s{told}")

    def save() -> None:
        _save(recommender, run_dir)
        console.print(f"saved: {run_dir / 'model'}", markup=False)
        _attempt(console, "older results were not removed", lambda: _remove_older(run_dir))

    def hint() -> str:
        if recommender.is_fitted and recommender.model.directory is not None:
            return "The model is saved; `anyrec report` measures it."
        return "`--resume` goes on from the last finished epoch." if (run_dir / "checkpoints").is_dir() else ""

    with _hinted(hint):
        recommender.fit(dataset, run_dir=run_dir, resume=resume, report=report, trained=save, started=started)
        for note in recommender.notes:
            if f"warning: {note}" in printed:
                continue
            console.print(f"note: {note}", markup=False, style="bold red" if note.startswith("LEAK") else None)
        if recommender.metrics:
            metrics = _attempt(console, "the pipeline was not measured", lambda: _all_metrics(recommender))
            _print_metrics(metrics or recommender.metrics, recommender.config, console)
        _attempt(console, "its metrics were not saved", lambda: update_metrics(recommender.parts, run_dir / "model"))
        if config.evaluation.report:
            _attempt(console, "there is no report", lambda: report_run(recommender, run_dir, console))
    return recommender


def check_run(run_dir: Path) -> None:
    """Raises OutputError or ModelError if a run cannot be written to `run_dir`: before any work, so that none is lost."""
    check_output(run_dir, "inside")
    check_model_output(run_dir / "model")
    names = {path.name for path in run_dir.iterdir()} if run_dir.is_dir() else set()
    if "config.json" in names and not names & RUN_FILES:
        what = "this folder exists, has a config.json, and is not a run."
        raise OutputError(Fault(str(run_dir), what, "Use another name or --output.", "foreign folder"))


def report_run(recommender: Recommender, run_dir: Path, console: Console) -> None:
    """Measure the recommender beside its baselines, print the verdict and write the report; nothing if nothing was held out."""
    from anyrec.report.collect import collect_report_data
    from anyrec.report.verdict import verdict
    from anyrec.report.write import write_report

    found = collect_report_data(recommender)
    if found is None:
        console.print("Nothing is held out from what the model learned, so there is no report.")
        return
    model = recommender.model.model_id or None  # as it was when it was loaded: its folder may hold another by now
    page = write_report(found, run_dir, model)
    console.print(verdict(found).replace("**", ""), markup=False)
    console.print(f"report: {page}", markup=False)


def _save(recommender: Recommender, run_dir: Path) -> None:
    directory = recommender.save(run_dir / "model")
    recommender.saved_in(directory, model_id(directory))
    _write_json(run_dir / "config.json", recommender.config.model_dump(mode="json"))
    environment = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        **versions(),
    }
    _write_json(run_dir / "environment.json", environment)


def _remove_older(run_dir: Path) -> None:
    """Remove what belongs to the model that was there before: its report, evaluation, split, baseline and index."""
    model = model_id(run_dir / "model")
    remove_report(run_dir, model)
    remove_other_index(run_dir / "index", model)


@contextmanager
def _hinted(hint: Callable[[], str]) -> Iterator[None]:
    """Add what the user can do next to a signal that stops the work, and to an output that cannot be written."""
    try:
        yield
    except BaseException as error:
        if (isinstance(error, OutputError) or not isinstance(error, Exception)) and (text := hint()):
            error.add_note(text)
        raise


def _attempt(console: Console, what: str, program: Callable[[], Any]) -> Any:
    """Run a step after the model is saved: if it fails, that is a warning. Its result, or None."""
    try:
        return program()
    except BrokenPipeError:
        raise
    except Exception as error:
        reason = error if isinstance(error, AnyrecError) else f"{type(error).__name__}: {error}"
        console.print(f"warning: the model is saved, but {what}: {reason}", markup=False, style="bold red")
        return None


def complete_config(config: Config, data: Path, plugins: Sequence[str]) -> tuple[Config, list[str]]:
    """The config that `train_run` would train by, checked against the data, and why keys were chosen. Raises ConfigError."""
    registry = discover([*config.plugins, *plugins])
    dataset = read_data(data, config)
    complete, chosen = resolve_config(config, dataset, registry)
    check_with_data(complete, registry, dataset)
    return complete, chosen


def read_data(data: Path, config: Config) -> Dataset:
    return Dataset.read(data, config.data)


def _print_lines(lines: Sequence[str], console: Console) -> None:
    for line in lines:
        console.print(line, markup=False)


def _all_metrics(recommender: Recommender) -> dict[str, dict[str, float]]:
    """The metrics of each part; of the test also behind all stages of the pipeline."""
    parts = dict(recommender.metrics)
    if recommender.pipeline is not None and "test" in parts:
        parts["test, all stages"] = recommender.evaluate_pipeline("test")
    return parts


def _print_metrics(parts: dict[str, dict[str, float]], config: Config, console: Console) -> None:
    table = Table("metric", *parts, box=None, header_style="bold")
    for name in metric_names(parts):
        table.add_row(name, *(f"{part[name]:.4f}" if name in part else "" for part in parts.values()))
    console.print(table)
    if config.evaluation.candidate_samples is not None:
        console.print(sampled(config.evaluation.candidate_samples))


def _write_json(path: Path, value: Any) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
