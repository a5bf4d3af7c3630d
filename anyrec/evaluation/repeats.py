"""Metrics of repeated targets (held-out items that their user interacted with before), separate from the others."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np

from anyrec.core.types import JsonObject
from anyrec.data.split import Part
from anyrec.evaluation.held_out import HeldOut, held_out, rank_held_out
from anyrec.evaluation.ranking import Ranking, metrics_by_user
from anyrec.model.fitted import FittedModel

MATERIAL = 0.05
"""Fraction of repeated targets from which lists with seen items are also evaluated: it bounds the metric's change."""


@dataclass(frozen=True)
class RepeatParts:
    """A metric over all targets, over the new ones and over the repeated ones; None if there are no such targets."""

    all: float | None
    new: float | None
    repeated: float | None


@dataclass(frozen=True)
class RepeatFigures:
    """Effect of repeated targets on a metric.

    Attributes:
        part: The split part.
        metric: As `ndcg@10`.
        rule: `evaluation.repeats`.
        pairs: Number of held-out pairs.
        repeated: Number of held-out pairs whose user interacted with the item before.
        without_seen: By model, for lists that exclude seen items, so that a repeated target is a miss.
        with_seen: By model, for lists that contain seen items; empty if few targets are repeated.
    """

    part: Part
    metric: str
    rule: str
    pairs: int
    repeated: int
    without_seen: dict[str, RepeatParts]
    with_seen: dict[str, RepeatParts]

    @property
    def share(self) -> float:
        """Fraction of the held-out pairs that are repeated."""
        return self.repeated / self.pairs

    @property
    def material(self) -> bool:
        """Whether enough pairs are repeated to change a metric visibly."""
        return self.share >= MATERIAL

    def as_dict(self) -> JsonObject:
        """Return a JSON object."""
        return {**asdict(self), "share": self.share}


def measure_repeats(models: dict[str, FittedModel], part: Part, metric: str) -> RepeatFigures | None:
    """Compute a metric of new and of repeated targets separately.

    Args:
        models: By name, all with the same split and data. The config of the first one has the rule.
        part: The split part.
        metric: As `ndcg@10`.

    Returns:
        The figures, or None if no target is repeated.
    """
    first = next(iter(models.values()))
    held = held_out(first, part, repeats="miss")
    repeated = held.repeated
    if not repeated.any():
        return None
    rule = first.config.evaluation.repeats
    found = RepeatFigures(part, metric, rule, len(repeated), int(repeated.sum()), {}, {})
    for name, model in models.items():
        found.without_seen[name] = _by_parts(model, part, held, repeated, metric)
        if found.material or rule == "include_seen":
            found.with_seen[name] = _by_parts(model, part, replace(held, exclude_seen=False), repeated, metric)
    return found


def repeat_notes(model: FittedModel, part: Part) -> list[str]:
    """Return at most one note on repeated targets: their number, how they are counted, and their metric."""
    rule, metric = model.config.evaluation.repeats, main_metric(model)
    found = measure_repeats({model.config.name: model}, part, metric)
    serve = "serve with exclude_seen=False (--include-seen)"
    if found is None:
        shown = f"The metrics are of lists that contain seen items (evaluation.repeats=include_seen): {serve}."
        return [shown] if rule == "include_seen" else []
    without = found.without_seen[model.config.name]
    note = (
        f"{found.repeated:,} of {found.pairs:,} held-out {part} pairs ({found.share:.1%}) are items that the user "
        "had before. "
    )
    note += {
        "miss": "Served lists leave out seen items, so these pairs are misses (evaluation.repeats=miss)",
        "drop": "Served lists leave out seen items, and these pairs are not measured (evaluation.repeats=drop)",
        "include_seen": f"Lists are measured with seen items in them (evaluation.repeats=include_seen): {serve}",
    }[rule]
    note += f". Without seen items, {metric} is {_shown(without.all)} over all pairs"
    note += f", {_shown(without.new)} over new pairs and {_shown(without.repeated)} over repeated pairs."
    if found.with_seen:
        with_seen = found.with_seen[model.config.name]
        note += (
            f" With seen items, it is {_shown(with_seen.all)} over all pairs, {_shown(with_seen.new)} over new pairs"
        )
        note += f" and {_shown(with_seen.repeated)} over repeated pairs."
        if rule != "include_seen":
            note += f" If users should be shown items again, {serve} and set evaluation.repeats=include_seen."
    return [note]


def main_metric(model: FittedModel) -> str:
    """Return `training.metric`; ndcg at the greatest k of `evaluation.k` if it is auc or at another k."""
    wanted, ks = model.config.training.metric, model.config.evaluation.k
    name, _, k = wanted.partition("@")
    return wanted if name != "auc" and k in map(str, ks) else f"ndcg@{max(ks)}"


def _by_parts(model: FittedModel, part: Part, held: HeldOut, repeated: np.ndarray, metric: str) -> RepeatParts:
    ranking = rank_held_out(model, part, held=held)
    return RepeatParts(*(_mean(ranking, kept, metric) for kept in (np.ones_like(repeated), ~repeated, repeated)))


def _mean(ranking: Ranking, kept: np.ndarray, metric: str) -> float | None:
    if not kept.any():
        return None
    return float(metrics_by_user(ranking.only(kept), [int(metric.split("@")[1])])[metric].mean())


def _shown(value: float | None) -> str:
    return "undefined (there are none)" if value is None else f"{value:.4f}"
