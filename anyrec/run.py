"""One training run as the command line does it: read, fit, print, save."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from anyrec.check_config import config_faults
from anyrec.config import Config
from anyrec.data.check import data_faults
from anyrec.data.dataset import Dataset
from anyrec.data.doctor import as_lines, examine
from anyrec.data.interpretation import interpretation
from anyrec.data.read import read_dataset
from anyrec.data.split import save_split
from anyrec.defaults import resolve_config
from anyrec.errors import ConfigError
from anyrec.evaluation import sampled
from anyrec.files import atomic_write
from anyrec.plugins import discover
from anyrec.recommender import Recommender, make_recommender
from anyrec.storage import versions

SHOWN = 8
"""Findings of the data doctor that are printed before training."""


def train_run(
    config: Config,
    data: Path,
    plugins: Sequence[str],
    notes: Sequence[str],
    resume: bool,
    console: Console,
    dataset: Dataset | None = None,
) -> Recommender:
    """Train on `data` (read already as `dataset`) and leave models/<name>/: config, environment, metrics, checkpoints, model."""
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
    run_dir = Path(config.output_dir) / config.name
    recommender = make_recommender(config, registry)
    header = []

    def report(entry: dict[str, Any]) -> None:
        if not header:
            header.append(True)
            _print_lines(recommender.describe(), console)
        measured = entry.get("validation", {}).get(config.training.metric)
        told = "" if measured is None else f"   validation {config.training.metric} {measured:.4f}"
        console.print(f"epoch {entry['epoch']:>3}   loss {entry['loss']:.4f}   {entry['seconds']:.1f} s{told}")

    recommender.fit(dataset, run_dir=run_dir, resume=resume, report=report)
    for note in recommender.notes:
        if f"warning: {note}" in printed:
            continue
        console.print(f"note: {note}", markup=False, style="bold red" if note.startswith("LEAK") else None)
    if recommender.metrics:
        _print_metrics(_all_metrics(recommender), recommender.config, console)
    place = recommender.save(run_dir / "model")
    _write_json(run_dir / "config.json", recommender.config.model_dump(mode="json"))
    _write_json(
        run_dir / "environment.json",
        {
            "python": platform.python_version(),
            "machine": platform.machine(),
            "threads": torch.get_num_threads(),
            **versions(),
        },
    )
    console.print(f"saved: {run_dir / place.name}")
    if config.evaluation.report:
        report_run(recommender, run_dir, console)
    return recommender


def report_run(recommender: Recommender, run_dir: Path, console: Console) -> None:
    """Measure the recommender beside its baselines, print the verdict and write the report; nothing where nothing was held out."""
    from anyrec.evaluation.report import study, write_report
    from anyrec.evaluation.sections import verdict

    found = study(recommender)
    if found is None:
        console.print("Nothing is held out from what the model learned, so there is no report.")
        return
    if recommender.split is not None:
        save_split(recommender.split, recommender.dataset, run_dir)
    page = write_report(found, run_dir)
    console.print(verdict(found).replace("**", ""), markup=False)
    console.print(f"report: {page}")


def complete_config(config: Config, data: Path, plugins: Sequence[str]) -> tuple[Config, list[str]]:
    """The config that `train_run` would train by, checked against the data, and why keys were chosen. Raises ConfigError."""
    registry = discover([*config.plugins, *plugins])
    dataset = read_data(data, config)
    complete, chosen = resolve_config(config, dataset, registry)
    faults = [*config_faults(complete, registry), *data_faults(complete, dataset)]
    if faults:
        raise ConfigError(faults)
    return complete, chosen


def read_data(data: Path, config: Config) -> Dataset:
    return read_dataset(data, config.data)


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
    for name in next(iter(parts.values())):
        table.add_row(name, *(f"{part[name]:.4f}" if name in part else "" for part in parts.values()))
    console.print(table)
    if config.evaluation.candidate_samples is not None:
        console.print(sampled(config.evaluation.candidate_samples))


def _write_json(path: Path, value: Any) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1) + "\n")
