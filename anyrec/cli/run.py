"""One training run of the command line: read the data, train, print, save and report."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from rich.console import Console
from rich.table import Table

from anyrec.cli.datasets import read_dataset
from anyrec.cli.terminal import log
from anyrec.core.config import Config
from anyrec.core.discovery import Registry, discover
from anyrec.core.errors import AnyrecError, DataError, Fault, OutputError
from anyrec.core.files import exclusive, save_json
from anyrec.core.outputs import check_output
from anyrec.core.processes import processes
from anyrec.core.types import JsonObject
from anyrec.data.dataset import Dataset
from anyrec.data.defaults import resolve_config
from anyrec.data.doctor.examine import as_lines, examine
from anyrec.data.findings import Finding
from anyrec.data.interpretation import interpretation
from anyrec.data.overview import OVERVIEW, overview
from anyrec.evaluation import sampled
from anyrec.model.build import check_with_data
from anyrec.model.check_index import has_vectors
from anyrec.model.fitted import FittedModel
from anyrec.model.model_data import ModelData
from anyrec.pipeline.fit import check_pipeline
from anyrec.recommender import Recommender
from anyrec.report.collect import collect_report_data
from anyrec.report.record import remove_report
from anyrec.report.verdict import verdict
from anyrec.report.write import write_report
from anyrec.retrieval.item_index import remove_other_index
from anyrec.storage.model_card import metric_names
from anyrec.storage.model_directory import check_model_output, model_id, update_metrics, versions
from anyrec.training.tracking import Tracking

T = TypeVar("T")

SHOWN = 8
"""Findings of the data doctor that are printed before training."""
RUN_FILES = {"model", "checkpoints", "metrics.jsonl", "environment.json", "evaluation", "report.html"}
"""The folder of every run that was started contains at least one of these."""


@dataclass(frozen=True)
class RunInputs:
    """What a run is started from.

    Attributes:
        config: The config; keys that it does not set are chosen to fit the data.
        data: File or folder of the data, or several; None or none for the tables of the config's `data.sources`.
        plugins: Folders of plugins, in addition to those of the config.
        notes: Notes on the config that are printed before training.
        resume: Whether to continue from the last checkpoint of the run.
        dataset: The data, if it is read already.
    """

    config: Config
    data: Path | Sequence[Path] | None
    plugins: Sequence[str] = ()
    notes: Sequence[str] = ()
    resume: bool = False
    dataset: Dataset | None = None

    @property
    def run_dir(self) -> Path:
        """Folder of the run."""
        return Path(self.config.output_dir) / self.config.name


@dataclass(frozen=True)
class ResolvedRun:
    """The complete config, the components and the data of a run.

    Attributes:
        reasons: Why keys of the config were chosen.
        notes: What the config names and the data lack, and keys without effect.
    """

    config: Config
    registry: Registry
    dataset: Dataset
    reasons: list[str]
    notes: list[str]


def train_run(inputs: RunInputs, console: Console) -> Recommender:
    """Train a model and write the run's folder: config, environment, metrics, checkpoints, model and report.

    The model is saved as soon as it is trained. A failure of the evaluation or the report after that is a warning.
    Several processes that are joined (`anyrec.core.processes`) train together; the first one does the rest.

    Args:
        inputs: What the run is started from.
        console: Where progress and results are printed.

    Raises:
        OutputError: If the run's folder cannot be written, or another process is training into it.
    """
    if not processes().first:
        return _take_part(inputs)
    check_run(inputs.run_dir)
    with exclusive(inputs.run_dir):
        return _train(inputs, console)


def _take_part(inputs: RunInputs) -> Recommender:
    """Train together with the first process, which prints and writes."""
    log.setLevel(logging.ERROR)
    run = _resolve(inputs)
    return Recommender(run.config, run.registry).fit(
        run.dataset, run_dir=inputs.run_dir, resume=inputs.resume, progress=False
    )


def _train(inputs: RunInputs, console: Console) -> Recommender:
    run, run_dir = _resolve(inputs), inputs.run_dir
    for note in [*inputs.notes, *run.reasons, *run.notes]:
        console.print(f"config: {note}", markup=False)
    findings = examine(run.dataset, run.config, images=False)
    printed = _print_data(run, findings, console)
    recommender = Recommender(run.config, run.registry)

    def started(model: FittedModel) -> None:
        _print_lines(model.describe(), console)

    def report(entry: JsonObject) -> None:
        metric = run.config.training.metric
        value = entry.get("validation", {}).get(metric)
        name = f"{entry['stage']} epoch" if "stage" in entry else "epoch"
        validation = "" if value is None else f"   validation {metric} {value:.4f}"
        console.print(f"{name} {entry['epoch']:>3}   loss {entry['loss']:.4f}   {entry['seconds']:.1f} s{validation}")

    def save() -> None:
        _save(recommender, run_dir, run.dataset.versions)
        console.print(f"saved: {run_dir / 'model'}", markup=False)
        _attempt(console, "older results were not removed", lambda: _remove_older(run_dir))
        _attempt(
            console, "the overview of the data was not saved", lambda: save_overview(recommender, run_dir, findings)
        )

    def hint() -> str:
        if recommender.is_fitted and recommender.model.directory is not None:
            return "The model is saved; `anyrec report` measures it."
        return "`--resume` goes on from the last finished epoch." if (run_dir / "checkpoints").is_dir() else ""

    def warn(text: str) -> None:
        console.print(f"warning: {text}", markup=False, style="bold red")

    tracking = Tracking.of(run.config, run.registry, folder=run_dir, resume=inputs.resume, warn=warn)
    with _hinted(hint), tracking:
        recommender.fit(
            run.dataset,
            run_dir=run_dir,
            resume=inputs.resume,
            report=report,
            trained=save,
            started=started,
            trackers=tracking,
        )
        for note in recommender.notes:
            if f"warning: {note}" not in printed and note not in run.notes:
                console.print(f"note: {note}", markup=False, style="bold red" if note.startswith("LEAK") else None)
        tracking.finish(recommender.tracked_result(run_dir, _evaluate(recommender, run_dir, console)))
    return recommender


def _resolve(inputs: RunInputs) -> ResolvedRun:
    """Read the data, complete the config and check it against the data."""
    plugins = list(dict.fromkeys([*inputs.config.plugins, *inputs.plugins]))
    registry = discover(plugins)
    config = inputs.config.model_copy(update={"plugins": plugins})
    dataset = read_dataset(inputs.data, config) if inputs.dataset is None else inputs.dataset
    _check_same(dataset)
    return resolved(config, registry, dataset)


def _check_same(dataset: Dataset) -> None:
    """Raise DataError if this process has read other data than the first one of a training."""
    if processes().alone:
        return
    own = dataset.fingerprint()
    if processes().agree(own) != own:
        what = "the processes of the training have read different data."
        hint = "Give all the same files. Copy the log of a server that is running before you train on it."
        raise DataError(Fault("--data", what, hint, "other data"))


def resolved(config: Config, registry: Registry, dataset: Dataset) -> ResolvedRun:
    """Complete a config for a dataset, and check both against each other, before any training.

    Raises:
        ConfigError: With all faults.
    """
    complete, reasons = resolve_config(config, dataset, registry)
    notes = check_with_data(complete, registry, dataset, config)
    vectors = has_vectors(complete, registry)
    notes += check_pipeline(ModelData(config=complete, registry=registry, dataset=dataset, has_vectors=vectors))
    return ResolvedRun(complete, registry, dataset, reasons, notes)


def _print_data(run: ResolvedRun, findings: Sequence[Finding], console: Console) -> list[str]:
    """Print the size of the data, how it is interpreted and what the data doctor finds; return the last two."""
    dataset, config = run.dataset, run.config
    console.print(
        f"{len(dataset.users):,} users, {len(dataset.items):,} items, {len(dataset.interactions):,} interactions"
    )
    meaning = interpretation(dataset, config.data)
    others = [one for one in findings if one.level != "note" and one not in meaning]
    printed = [*as_lines(meaning), *as_lines(others, SHOWN)]
    _print_lines(printed, console)
    return printed


def _evaluate(recommender: Recommender, run_dir: Path, console: Console) -> dict[str, dict[str, float]]:
    """Print and save the metrics of the saved model, and write the report; a failure is a warning.

    Returns:
        The metrics by part of the split.
    """
    metrics = recommender.metrics
    if metrics:
        metrics = _attempt(console, "the pipeline was not measured", lambda: _all_metrics(recommender)) or metrics
        _print_metrics(metrics, recommender.config, console)
    _attempt(console, "its metrics were not saved", lambda: update_metrics(recommender.parts, run_dir / "model"))
    if recommender.config.evaluation.report:
        _attempt(console, "there is no report", lambda: report_run(recommender, run_dir, console))
    return metrics


def check_run(run_dir: Path) -> None:
    """Check, before any work, that a run can be written into a folder.

    Raises:
        OutputError: If the folder cannot be written, or contains a config.json but no run.
        ModelError: If its model folder contains other files.
    """
    check_output(run_dir, "inside")
    check_model_output(run_dir / "model")
    names = {path.name for path in run_dir.iterdir()} if run_dir.is_dir() else set()
    if "config.json" in names and not names & RUN_FILES:
        what = "this folder exists, has a config.json, and is not a run."
        raise OutputError(Fault(str(run_dir), what, "Use another name or --output.", "foreign folder"))


def report_run(recommender: Recommender, run_dir: Path, console: Console) -> None:
    """Evaluate a recommender and its baselines, print the verdict and write the report, if anything is held out.

    Args:
        recommender: A fitted recommender with its data.
        run_dir: Folder that the report is written into.
        console: Where the verdict is printed.
    """
    found = collect_report_data(recommender)
    if found is None:
        console.print("Nothing is held out from what the model learned, so there is no report.")
        return
    model = recommender.model.model_id or None  # its id at load time: its folder may contain another model now
    page = write_report(found, run_dir, model)
    console.print(verdict(found).replace("**", ""), markup=False)
    console.print(f"report: {page}", markup=False)


def _save(recommender: Recommender, run_dir: Path, sources: Mapping[str, str]) -> None:
    """Save the model, the config and the environment. sources: What identifies the content of each table."""
    directory = recommender.save(run_dir / "model")
    recommender.saved_in(directory, model_id(directory))
    save_json(run_dir / "config.json", recommender.config.model_dump(mode="json"))
    environment = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        **versions(),
        **({"sources": dict(sources)} if sources else {}),
    }
    save_json(run_dir / "environment.json", environment)


def save_overview(recommender: Recommender, run_dir: Path, findings: Sequence[Finding]) -> None:
    """Write overview.json, what the page of `anyrec serve` shows of the training data, which the model does not keep.

    Args:
        recommender: A saved recommender with its data.
        run_dir: Folder of the run.
        findings: What the data doctor found.
    """
    learned = recommender.model.required_learning().dataset
    save_json(run_dir / OVERVIEW, {"model": model_id(run_dir / "model"), **overview(learned, findings)})


def _remove_older(run_dir: Path) -> None:
    """Remove the report, the evaluation, the split, the baseline and the index of the run's previous model."""
    model = model_id(run_dir / "model")
    remove_report(run_dir, model)
    remove_other_index(run_dir / "index", model)


@contextmanager
def _hinted(hint: Callable[[], str]) -> Iterator[None]:
    """Add what the user can do next to an interruption, and to an error of writing the output."""
    try:
        yield
    except BaseException as error:
        if (isinstance(error, OutputError) or not isinstance(error, Exception)) and (text := hint()):
            error.add_note(text)
        raise


def _attempt(console: Console, what: str, step: Callable[[], T]) -> T | None:
    """Run a step after the model is saved. If it fails, print a warning and return None."""
    try:
        return step()
    except BrokenPipeError:
        raise
    except Exception as error:
        reason = error if isinstance(error, AnyrecError) else f"{type(error).__name__}: {error}"
        console.print(f"warning: the model is saved, but {what}: {reason}", markup=False, style="bold red")
        return None


def complete_config(inputs: RunInputs) -> tuple[Config, list[str]]:
    """Return the config that `train_run` would train with, checked against the data, and why keys were chosen.

    Raises:
        ConfigError: If the config does not fit the data.
    """
    run = _resolve(inputs)
    return run.config.model_copy(update={"plugins": inputs.config.plugins}), run.reasons


def _print_lines(lines: Sequence[str], console: Console) -> None:
    for line in lines:
        console.print(line, markup=False)


def _all_metrics(recommender: Recommender) -> dict[str, dict[str, float]]:
    """Return the metrics of each split part, and of the test part after all stages of the pipeline."""
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
