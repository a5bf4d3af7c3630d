"""The report of a run: what was measured, against what, and what it means, for a person and for a sceptic."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from anyrec.core.files import atomic_files
from anyrec.data.dataset import Side
from anyrec.data.doctor.examine import Finding, examine
from anyrec.data.split import Part, save_split
from anyrec.evaluation.held_out import held_out
from anyrec.evaluation.list_metrics import Catalogue
from anyrec.evaluation.measure import Measured, catalogue_of, category_feature, measure
from anyrec.evaluation.repeats import RepeatFigures, main_metric, measure_repeats
from anyrec.evaluation.statistics import Comparison, Interval, compare_paired, intervals
from anyrec.report.baselines import fit_baselines
from anyrec.report.diagnostics import (
    Alignment,
    Correlation,
    Embeddings,
    alignment,
    cohesion,
    correlations,
    embeddings,
)
from anyrec.report.examples import Example, examples
from anyrec.report.feature_importance import feature_worth
from anyrec.report.page import write_page
from anyrec.report.record import FIGURES, FILES, FOLDER, REPORT, USERS, read_files, remove_files, write_files
from anyrec.report.slices import Slice, slices

if TYPE_CHECKING:
    from anyrec.recommender import Recommender

ANSWERS = 30


@dataclass
class Study:
    """Everything the report tells. compared: the model less each baseline, by `metric`."""

    recommender: Recommender
    part: Part
    metric: str
    model: Measured
    baselines: dict[str, Measured]
    best_baseline: str | None
    fitted: dict[str, Recommender]
    catalogue: Catalogue
    category: str | None
    intervals: dict[str, dict[str, Interval]]
    compared: dict[str, Comparison]
    repeats: RepeatFigures | None
    slices: list[Slice]
    worth: dict[str, Comparison]
    correlations: list[Correlation]
    embeddings: dict[Side, Embeddings]
    alignment: list[Alignment]
    cohesion: tuple[float, float] | None
    examples: list[Example]
    findings: list[Finding]
    milliseconds: np.ndarray
    seconds: dict[str, float]
    notes: list[str]


def study(recommender: Recommender, progress: bool = True) -> Study | None:
    """Measure a fitted recommender in every way; None where nothing is held out from what it learned."""
    split, config = recommender.split, recommender.config
    if split is None or not (len(split.test) or len(recommender.learned_from().validation)):
        return None
    part: Part = "test" if len(split.test) else "validation"
    seconds: dict[str, float] = {}
    clock = Clock(seconds)
    catalogue, held = catalogue_of(recommender), held_out(recommender, part)
    if not len(held.targets.items):
        return None
    called = f"{config.name} (model)" if config.name in recommender.registry.names("classical") else config.name
    model = measure(recommender, part, catalogue, called, held)
    metric = main_metric(recommender)
    clock.lap("measuring the model")
    fitted, notes = fit_baselines(recommender, progress)
    clock.lap("fitting the baselines")
    baselines = {name: measure(one, part, catalogue, name, held) for name, one in fitted.items()}
    clock.lap("measuring the baselines")
    named = {model.name: model, **baselines}
    spans = {name: intervals(one.by_user, config.seed) for name, one in named.items()}
    compared = compare_paired(
        model.by_user[metric], {name: one.by_user[metric] for name, one in baselines.items()}, config.seed
    )
    clock.lap("bootstrap")
    repeats = measure_repeats({called: recommender, **fitted}, part, metric)
    clock.lap("repeated items")
    worth = feature_worth(recommender, part, model, metric)
    clock.lap("worth of features")
    data, category = recommender.dataset, category_feature(recommender.dataset, config.evaluation.category)
    vectors = embeddings(recommender)
    aligned = [one for side, each in vectors.items() for one in alignment(data, side, each)]
    cohesive = cohesion(data, vectors["item"], category) if vectors and category else None
    correlated = correlations(recommender.before(part), model, catalogue)
    shown = examples(recommender, part, model, category)
    milliseconds = answer_times(recommender)
    clock.lap("vectors, correlations, examples")
    best = best_of(baselines, metric)
    parts = slices(data, catalogue, [model] if best is None else [model, baselines[best]], metric)
    clock.lap("slices")
    findings = examine(data, config, images=False)
    clock.lap("data doctor")
    return Study(
        recommender=recommender,
        part=part,
        metric=metric,
        model=model,
        baselines=baselines,
        best_baseline=best,
        fitted=fitted,
        catalogue=catalogue,
        category=category,
        intervals=spans,
        compared=compared,
        repeats=repeats,
        slices=parts,
        worth=worth,
        correlations=correlated,
        embeddings=vectors,
        alignment=aligned,
        cohesion=cohesive,
        examples=shown,
        findings=findings,
        milliseconds=milliseconds,
        seconds=seconds,
        notes=notes,
    )


def best_of(baselines: dict[str, Measured], metric: str) -> str | None:
    """The one with the highest figure; of equal ones the simplest, popularity."""
    order = sorted(baselines, key=lambda name: name != "popularity")
    return max(order, key=lambda name: baselines[name].mean(metric), default=None)


class Clock:
    """Seconds of each part of the work, one after another."""

    def __init__(self, seconds: dict[str, float]):
        self.seconds, self.last = seconds, time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name], self.last = now - self.last, now


def answer_times(recommender: Recommender) -> np.ndarray:
    """(answers,) milliseconds of top-ten lists for one known user each."""
    ids = recommender.dataset.ids("user")
    found = []
    for row in np.linspace(0, len(ids) - 1, ANSWERS + 1).astype(int):
        started = time.perf_counter()
        recommender.recommend(ids.take(pa.array([row])), 10)
        found.append((time.perf_counter() - started) * 1000)
    return np.array(found[1:])


def write_report(found: Study, folder: Path, model: str | None = None) -> Path:
    """Write report.md, report.html, figures/, the split and evaluation/ with each user's figures, all as one unit.

    Args:
        found: What was measured.
        folder: The run's folder. Files of its last report that the new one does not have are removed.
        model: `anyrec.storage.model_directory.model_id` of the measured model, kept in evaluation.json so that readers can refuse another model's.

    Returns:
        The path of report.html.
    """
    from anyrec.report.sections import sections

    started = time.perf_counter()
    recommender, best, last = found.recommender, found.best_baseline, read_files(folder)
    if best is not None:
        found.fitted[best].save(folder / "baselines" / best)
    found.seconds["saving"] = time.perf_counter() - started
    with atomic_files(folder, REPORT) as new:
        assert recommender.split is not None
        save_split(recommender.split, recommender.dataset, new)
        write_page(f"{recommender.config.name}: how good is it?", sections(found, folder), new)
        names = [path.relative_to(new).as_posix() for path in sorted(new.rglob("*")) if path.is_file()]
        save_figures(found, new / FOLDER, model)
        names += [f"{FOLDER}/{USERS}", f"{FOLDER}/{FILES}"]
        write_files(new, names, best)
    remove_files(folder, last, names)
    return folder / "report.html"


def save_figures(found: Study, folder: Path, model: str | None = None) -> None:
    """users.parquet: one row a tested user, `model.metric` columns; evaluation.json: means, split, comparisons.

    Both carry the id of the model.
    """
    ids = found.recommender.dataset.ids("user").take(pa.array(found.model.ranking.users))
    columns: dict[str, Any] = {"user_id": ids}
    for name, one in {"model": found.model, **found.baselines}.items():
        kept = one.by_user if name == "model" else {found.metric: one.by_user[found.metric]}
        columns |= {f"{name}.{metric}": pa.array(values) for metric, values in kept.items()}
    split = found.recommender.split
    assert split is not None
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns).replace_schema_metadata({"model": model or ""}), folder / USERS)
    summary = {
        "name": found.model.name,
        "part": found.part,
        "metric": found.metric,
        "split": split.name,
        "candidates": found.recommender.config.evaluation.candidates,
        "candidate_samples": found.recommender.config.evaluation.candidate_samples,
        "repeats": found.recommender.config.evaluation.repeats,
        "repeated_targets": None if found.repeats is None else found.repeats.as_dict(),
        "users": len(found.model.ranking.users),
        "metrics": {name: one.means() for name, one in {"model": found.model, **found.baselines}.items()},
        "compared": {name: one._asdict() for name, one in found.compared.items()},
        "worth": {name: one._asdict() for name, one in found.worth.items()},
        "seconds": found.seconds,
        "model": model,
    }
    (folder / FIGURES).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
