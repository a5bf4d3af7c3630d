"""The contents of the report: evaluate a model, its baselines, slices and features, and collect the results."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from anyrec.core.timing import timed
from anyrec.core.types import JsonObject
from anyrec.data.doctor.examine import Finding, examine
from anyrec.data.item_facts import category_feature, trait_features
from anyrec.data.split import Part
from anyrec.evaluation.heads import head_metrics
from anyrec.evaluation.held_out import HeldOut, held_out
from anyrec.evaluation.list_metrics import CatalogueStatistics
from anyrec.evaluation.measure import EvaluationResult, catalogue_statistics, measure
from anyrec.evaluation.repeats import RepeatFigures, main_metric, measure_repeats
from anyrec.evaluation.slices import Slice, slices
from anyrec.evaluation.statistics import Comparison, Interval, compare_paired, intervals
from anyrec.model.classical import ClassicalModel
from anyrec.model.fitted import FittedModel
from anyrec.recommender import Recommender
from anyrec.report.baselines import fit_baselines
from anyrec.report.diagnostics import Diagnostics, diagnose
from anyrec.report.examples import Example, examples
from anyrec.report.feature_importance import feature_importance
from anyrec.report.traits import TraitRatios, trait_ratios

TIMED_REQUESTS = 30


@dataclass
class ReportData:
    """The contents of the report.

    Attributes:
        recommender: The recommender that the report is about.
        part: The split part with the targets.
        metric: The main metric, as `ndcg@10`.
        model: Result of the model.
        baselines: Results of the baselines, by name.
        best_baseline: Name of the baseline with the greatest mean; None without baselines.
        fitted: The fitted baselines, by name.
        tuned: The options chosen on validation, by name of a baseline.
        catalogue: Statistics of the training interactions.
        category: Categorical feature that groups items.
        intervals: By model, then by metric.
        compared: The main metric of the model minus that of each baseline.
        repeats: Metrics of repeated targets; None if there are none.
        slices: Metrics of groups of users and items, for the model and the best baseline.
        feature_importance: The main metric minus its value without a feature, by feature.
        heads: Metrics of each head, by name.
        diagnostics: Properties of the embeddings; correlations with the scores.
        examples: Recommendations for a few users.
        traits: Hit ratios of each trait, for the model and the best baseline.
        findings: Findings of the data doctor.
        milliseconds: (requests,) duration of a request for the ten best items of one user.
        seconds: Duration of each step of the evaluation.
        notes: Why baselines are missing.
    """

    recommender: Recommender
    part: Part
    metric: str
    model: EvaluationResult
    baselines: dict[str, EvaluationResult]
    best_baseline: str | None
    fitted: dict[str, ClassicalModel]
    tuned: dict[str, JsonObject]
    catalogue: CatalogueStatistics
    category: str | None
    intervals: dict[str, dict[str, Interval]]
    compared: dict[str, Comparison]
    repeats: RepeatFigures | None
    slices: list[Slice]
    feature_importance: dict[str, Comparison]
    heads: dict[str, JsonObject]
    diagnostics: Diagnostics
    examples: list[Example]
    traits: list[TraitRatios]
    findings: list[Finding]
    milliseconds: np.ndarray
    seconds: dict[str, float]
    notes: list[str]


@timed("report computed")
def collect_report_data(recommender: Recommender, progress: bool = True) -> ReportData | None:
    """Evaluate a fitted recommender and its baselines.

    Args:
        recommender: A fitted recommender with its data.
        progress: Whether to show a progress bar while baselines are fitted.

    Returns:
        The contents of the report, or None if no interaction is held out from what the model was trained on.
    """
    model, config = recommender.model, recommender.config
    if (targets := _targets(model)) is None:
        return None
    part, held = targets
    watch = Stopwatch()
    data, category = model.dataset, category_feature(model.dataset, config.evaluation.category)
    catalogue, metric = catalogue_statistics(model), main_metric(model)
    measured = measure(model, part, catalogue, _name_in_report(model), held)
    watch.lap("evaluation of the model")
    classical = fit_baselines(model, progress)
    watch.lap("tuning and fitting of the baselines")
    baselines = {name: measure(one, part, catalogue, name, held) for name, one in classical.fitted.items()}
    watch.lap("evaluation of the baselines")
    spans, compared = _statistics(measured, baselines, metric, config.seed)
    watch.lap("bootstrap")
    repeats = measure_repeats({measured.name: model, **classical.fitted}, part, metric)
    watch.lap("repeated items")
    importance = feature_importance(model, part, measured, metric)
    watch.lap("feature importance")
    heads = head_metrics(model, part)
    diagnostics = diagnose(model, part, measured, catalogue, category)
    traits = trait_features(data, config.evaluation.traits, category)
    shown = examples(model, part, measured, traits)
    milliseconds = request_times(recommender)
    watch.lap("diagnostics and examples")
    best = best_of(baselines, metric)
    both = [measured] if best is None else [measured, baselines[best]]
    ratios = trait_ratios(model, part, both, catalogue.rankable, traits, int(metric.split("@")[1]))
    parts = slices(data, catalogue, both, config.evaluation.k)
    watch.lap("slices")
    findings = examine(data, config, images=False)
    watch.lap("data doctor")
    return ReportData(
        recommender=recommender,
        part=part,
        metric=metric,
        model=measured,
        baselines=baselines,
        best_baseline=best,
        fitted=classical.fitted,
        tuned=classical.tuned,
        catalogue=catalogue,
        category=category,
        intervals=spans,
        compared=compared,
        repeats=repeats,
        slices=parts,
        feature_importance=importance,
        heads=heads,
        diagnostics=diagnostics,
        examples=shown,
        traits=ratios,
        findings=findings,
        milliseconds=milliseconds,
        seconds=watch.seconds,
        notes=classical.notes,
    )


def _targets(model: FittedModel) -> tuple[Part, HeldOut] | None:
    """Return the test part and its targets, or the validation part if there is no test part and no refit; else None."""
    learning = model.learning
    if learning is None or not (len(learning.split.test) or len(learning.final_split(model.config).validation)):
        return None
    part: Part = "test" if len(learning.split.test) else "validation"
    held = held_out(model, part)
    return (part, held) if len(held.targets.items) else None


def _name_in_report(model: FittedModel) -> str:
    """Return the name of the model, marked if it is that of a baseline, whose results it would replace otherwise."""
    name = model.config.name
    return f"{name} (model)" if name in model.registry.names("classical") else name


def _statistics(
    measured: EvaluationResult, baselines: dict[str, EvaluationResult], metric: str, seed: int
) -> tuple[dict[str, dict[str, Interval]], dict[str, Comparison]]:
    """Return the intervals of all results, and the comparisons of the model with the baselines by `metric`."""
    spans = {one.name: intervals(one.by_user, seed) for one in (measured, *baselines.values())}
    others = {name: one.by_user[metric] for name, one in baselines.items()}
    return spans, compare_paired(measured.by_user[metric], others, seed)


def best_of(baselines: dict[str, EvaluationResult], metric: str) -> str | None:
    """Return the baseline with the greatest mean; of equal ones popularity, the simplest."""
    order = sorted(baselines, key=lambda name: name != "popularity")
    return max(order, key=lambda name: baselines[name].mean(metric), default=None)


@dataclass
class Stopwatch:
    """Seconds of successive steps, by name."""

    seconds: dict[str, float] = field(default_factory=dict)
    last: float = field(default_factory=time.perf_counter)

    def lap(self, name: str) -> None:
        """Record the seconds since the last step."""
        now = time.perf_counter()
        self.seconds[name], self.last = now - self.last, now


def request_times(recommender: Recommender) -> np.ndarray:
    """Return (requests,) milliseconds of requests for the ten best items of one user each."""
    ids = recommender.dataset.ids("user")
    found = []
    for row in np.linspace(0, len(ids) - 1, TIMED_REQUESTS + 1).astype(int):
        started = time.perf_counter()
        recommender.recommend(ids.take(pa.array([row])), 10)
        found.append((time.perf_counter() - started) * 1000)
    return np.array(found[1:])  # without the first request, which computes what later ones reuse
