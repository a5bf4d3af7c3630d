"""Held-out items that their user had before: how many they are, and what they do to the metrics."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from anyrec.data.split import Part
from anyrec.evaluation.held_out import HeldOut, held_out, rank_held_out
from anyrec.evaluation.ranking import Ranking, metrics_by_user
from anyrec.model.fitted import FittedModel

MATERIAL = 0.05
"""Share of repeated targets from which lists with seen items are measured as well: a metric can move by this share."""


class Parts(NamedTuple):
    """A metric over all targets, over those that the user did not have before, and over the others; None without any."""

    all: float | None
    new: float | None
    repeated: float | None


class RepeatFigures(NamedTuple):
    """What repeated targets do to a metric.

    rule: `evaluation.repeats`. pairs: held-out pairs, of which `repeated` are of an item that the user had before.
    without_seen: by model, with lists that leave out seen items, so that a repeated target is a miss. with_seen: by model, with
    lists that contain them; empty if few targets are repeated.
    """

    part: Part
    metric: str
    rule: str
    pairs: int
    repeated: int
    without_seen: dict[str, Parts]
    with_seen: dict[str, Parts]

    @property
    def share(self) -> float:
        return self.repeated / self.pairs

    @property
    def material(self) -> bool:
        return self.share >= MATERIAL

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        found = self._asdict()
        for name in ("without_seen", "with_seen"):
            found[name] = {model: parts._asdict() for model, parts in found[name].items()}
        return {**found, "share": self.share}


def measure_repeats(models: dict[str, FittedModel], part: Part, metric: str) -> RepeatFigures | None:
    """Measure models on new and on repeated targets apart; None if no target is repeated.

    Args:
        models: by name, all with the same split and data; the first one's config says which rule is followed.
        metric: as `ndcg@10`.
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
            found.with_seen[name] = _by_parts(model, part, held._replace(exclude_seen=False), repeated, metric)
    return found


def repeat_notes(model: FittedModel, part: Part) -> list[str]:
    """What a user should know of repeated targets, in at most one sentence group; nothing if there are none."""
    rule, metric = model.config.evaluation.repeats, main_metric(model)
    found = measure_repeats({model.config.name: model}, part, metric)
    serve = "serve with exclude_seen=False (--include-seen)"
    if found is None:
        shown = f"The metrics are of lists that contain seen items (evaluation.repeats=include_seen): {serve}."
        return [shown] if rule == "include_seen" else []
    without = found.without_seen[model.config.name]
    told = f"{found.repeated:,} of {found.pairs:,} held-out {part} pairs ({found.share:.1%}) are items that the user had before. "
    told += {
        "miss": "Served lists leave out seen items, so these pairs are misses (evaluation.repeats=miss)",
        "drop": "Served lists leave out seen items, and these pairs are not measured (evaluation.repeats=drop)",
        "include_seen": f"Lists are measured with seen items in them (evaluation.repeats=include_seen): {serve}",
    }[rule]
    told += f". Without seen items, {metric} is {_shown(without.all)} over all pairs"
    told += f", {_shown(without.new)} over new pairs and {_shown(without.repeated)} over repeated pairs."
    if found.with_seen:
        with_seen = found.with_seen[model.config.name]
        told += (
            f" With seen items, it is {_shown(with_seen.all)} over all pairs, {_shown(with_seen.new)} over new pairs"
        )
        told += f" and {_shown(with_seen.repeated)} over repeated pairs."
        if rule != "include_seen":
            told += f" If users should be shown items again, {serve} and set evaluation.repeats=include_seen."
    return [told]


def main_metric(model: FittedModel) -> str:
    """The metric that training is judged by, or ndcg at the greatest k."""
    wanted, ks = model.config.training.metric, model.config.evaluation.k
    name, _, k = wanted.partition("@")
    return wanted if name != "auc" and k in map(str, ks) else f"ndcg@{max(ks)}"


def _by_parts(model: FittedModel, part: Part, held: HeldOut, repeated: np.ndarray, metric: str) -> Parts:
    ranking = rank_held_out(model, part, held=held)
    return Parts(*(_mean(ranking, kept, metric) for kept in (np.ones_like(repeated), ~repeated, repeated)))


def _mean(ranking: Ranking, kept: np.ndarray, metric: str) -> float | None:
    if not kept.any():
        return None
    return float(metrics_by_user(ranking.only(kept), [int(metric.split("@")[1])])[metric].mean())


def _shown(value: float | None) -> str:
    return "undefined (there are none)" if value is None else f"{value:.4f}"
