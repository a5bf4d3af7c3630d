"""The report of a run: what was measured, against what, and what it means, for a person and for a sceptic."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from anyrec.data.doctor.examine import examine
from anyrec.data.findings import Finding
from anyrec.data.ids import Side
from anyrec.data.item_facts import category_feature
from anyrec.data.split import Part
from anyrec.evaluation.held_out import held_out
from anyrec.evaluation.list_metrics import CatalogueStatistics
from anyrec.evaluation.measure import EvaluationResult, catalogue_statistics, measure
from anyrec.evaluation.repeats import RepeatFigures, main_metric, measure_repeats
from anyrec.evaluation.statistics import Comparison, Interval, compare_paired, intervals
from anyrec.model.fitted import FittedModel
from anyrec.recommender import Recommender
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
from anyrec.report.slices import Slice, slices

ANSWERS = 30


@dataclass
class Study:
    """Everything the report tells. compared: the model less each baseline, by `metric`."""

    recommender: Recommender
    part: Part
    metric: str
    model: EvaluationResult
    baselines: dict[str, EvaluationResult]
    best_baseline: str | None
    fitted: dict[str, FittedModel]
    catalogue: CatalogueStatistics
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
    model, config = recommender.model, recommender.config
    learning = model.learning
    if learning is None or not (len(learning.split.test) or len(learning.final_split(config).validation)):
        return None
    part: Part = "test" if len(learning.split.test) else "validation"
    seconds: dict[str, float] = {}
    clock = Clock(seconds)
    catalogue, held = catalogue_statistics(model), held_out(model, part)
    if not len(held.targets.items):
        return None
    called = f"{config.name} (model)" if config.name in model.registry.names("classical") else config.name
    measured = measure(model, part, catalogue, called, held)
    metric = main_metric(model)
    clock.lap("measuring the model")
    fitted, notes = fit_baselines(model, progress)
    clock.lap("fitting the baselines")
    baselines = {name: measure(one, part, catalogue, name, held) for name, one in fitted.items()}
    clock.lap("measuring the baselines")
    named = {measured.name: measured, **baselines}
    spans = {name: intervals(one.by_user, config.seed) for name, one in named.items()}
    compared = compare_paired(
        measured.by_user[metric], {name: one.by_user[metric] for name, one in baselines.items()}, config.seed
    )
    clock.lap("bootstrap")
    repeats = measure_repeats({called: model, **fitted}, part, metric)
    clock.lap("repeated items")
    worth = feature_worth(model, part, measured, metric)
    clock.lap("worth of features")
    data, category = model.dataset, category_feature(model.dataset, config.evaluation.category)
    vectors = embeddings(model)
    aligned = [one for side, each in vectors.items() for one in alignment(data, side, each)]
    cohesive = cohesion(data, vectors["item"], category) if vectors and category else None
    correlated = correlations(model.before(part), measured, catalogue)
    shown = examples(model, part, measured, category)
    milliseconds = answer_times(recommender)
    clock.lap("vectors, correlations, examples")
    best = best_of(baselines, metric)
    parts = slices(data, catalogue, [measured] if best is None else [measured, baselines[best]], metric)
    clock.lap("slices")
    findings = examine(data, config, images=False)
    clock.lap("data doctor")
    return Study(
        recommender=recommender,
        part=part,
        metric=metric,
        model=measured,
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


def best_of(baselines: dict[str, EvaluationResult], metric: str) -> str | None:
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
