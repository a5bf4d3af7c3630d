"""The first paragraph of the report: how good the model is, and whether a baseline is as good."""

from __future__ import annotations

from anyrec.evaluation.statistics import Comparison
from anyrec.report import numbers
from anyrec.report.collect import ReportData

FEW = 20
"""Number of users below which a difference from popularity that is not significant is no evidence about the model."""


def verdict(data: ReportData) -> str:
    """Return the first paragraph of the report, with **bold** parts; a baseline that is better comes first."""
    mine = data.intervals[data.model.name][data.metric]
    users = f"{mine.users:,} user{'s' if mine.users != 1 else ''}"
    text = f"On held-out interactions of {users} the model reaches {data.metric} {numbers.interval(mine)}."
    best, popular = data.best_baseline, data.compared.get("popularity")
    if best is None:
        return f"{text} No baseline was measured, so there is nothing to say whether that is good."
    better = [name for name, delta in data.compared.items() if delta.significant and delta.difference < 0]
    name = max(better, key=lambda one: data.baselines[one].mean(data.metric)) if better else best
    delta, value = data.compared[name], f"{data.baselines[name].mean(data.metric):.4f}"
    subject, options = ("the best baseline, " if name == best else ""), tuned_options(data, name)
    named = f"{subject}{name}{f' ({options})' if options else ''}{',' if subject else ''}"
    if better:
        text = (
            f"**{named[0].upper()}{named[1:]} is better: {data.metric} {value}** ({numbers.comparison(delta)}). {text}"
        )
    elif is_better(delta):
        return f"{text} That is better than every baseline: {named} reaches {value} ({numbers.comparison(delta)})."
    elif name != "popularity":
        chance = f"the difference could be chance ({numbers.comparison(delta)})"
        text += f" **A baseline is as good: {named} reaches {value}**, and {chance}."
    if popular is None or is_better(popular):
        return text
    value = data.baselines["popularity"].mean(data.metric)
    figure = "" if better and name == "popularity" else f", which reaches {value:.4f} ({numbers.comparison(popular)})"
    if mine.users < FEW:
        return f"{text} **That is too few users to tell the model from popularity**{figure}."
    return (
        f"{text} **The model learned nothing about who likes what, as far as {users} can tell: it is no better than "
        f"showing everybody the same popular items**{figure}."
    )


def tuned_options(data: ReportData, name: str) -> str:
    """Return the options of a baseline in words, as `l2 400; tuned on validation`; nothing if it was not tuned."""
    options = data.tuned.get(name, {})
    shown = [
        f"{option} {value:.4g}" if isinstance(value, float) else f"{option} {value}"
        for option, value in options.items()
    ]
    return f"{', '.join(shown)}; tuned on validation" if shown else ""


def is_better(delta: Comparison) -> bool:
    """Whether the model is significantly better than the baseline of a comparison (model - baseline)."""
    return delta.significant and delta.difference > 0
