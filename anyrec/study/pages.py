"""The report of a study: trials, importance of the searched keys, and what the best validation figure is worth."""

from __future__ import annotations

from collections import Counter

import numpy as np

from anyrec.core.config.tune import COSTS
from anyrec.core.types import Json
from anyrec.report.figures import INK, MODEL, OTHER, SECOND, new_figure, rendered
from anyrec.report.labels import Labels
from anyrec.report.numbers import duration
from anyrec.report.page import Block, Bullets, Picture, Section, Table, Text, write_page
from anyrec.study.result import StudyResult, figure
from anyrec.study.space import Searched, short_names

MOST_PLOTTED = 4
"""Searched keys whose values are plotted: the most important ones."""


def write_study(result: StudyResult, run: str) -> None:
    """Write report.html, report.md and the figures into the study's folder.

    Args:
        result: The study.
        run: What the user can run to train the best config again.
    """
    made = [_best(result, run), _course(result), _importance(result), _front(result), _trials(result), _space(result)]
    title = f"Search of {result.config.name}"
    write_page(title, [section for section in made if section.blocks], result.folder)


def headline(result: StudyResult) -> str:
    """Return which trial is the best one, and its objectives."""
    count, best = len(result.trials), result.best
    start = "The only trial has" if count == 1 else f"The best of {count} trials is trial {best.number}:"
    return f"{start} {best.found(result.objectives)}"


def optimism(result: StudyResult) -> str:
    """Return a sentence on how much the best validation figure overestimates the model, as far as the test tells."""
    name = result.metric
    found = result.metrics.get("validation", {}).get(name, result.best.objectives[0])
    tried = sum(one.state in ("complete", "pruned", "stopped") for one in result.trials)
    text = f"**{name} {found:.4f} on the validation part is optimistic**: it is the best of {tried} trials there."
    if tried == 1:
        text = f"**{name} {found:.4f} on the validation part** is of the only trial: it was not chosen among several."
    test = result.metrics.get("test", {}).get(name)
    if test is None:
        return f"{text} Nothing is held out for the test, so nothing says by how much."
    change = test - found
    relative = f" ({change / found:+.1%})" if found else ""
    text += f" On the test part, which no trial has seen, the same model has {test:.4f}: {change:+.4f}{relative}."
    if result.tests > 1:
        text += f" The test part was measured {result.tests} times for this study, so its figure is optimistic too."
    if tried == 1:
        return text
    if change >= 0:
        return f"{text} The test part is the easier one here, so the difference does not show how optimistic."
    return f"{text} The parts are also different interactions, so not all of the difference is due to the choice."


def _best(result: StudyResult, run: str) -> Section:
    best = result.best
    counts = Counter(one.state for one in result.trials)
    states = ", ".join(f"{count} {state}" for state, count in counts.most_common())
    blocks: list[Block] = [
        Text(f"{headline(result)}.", strong=True),
        Text(optimism(result)),
        Text(f"To train it again: `{run}`."),
    ]
    if best.state != "complete":
        blocks.append(
            Text(
                "**No trial was completed in the time.** This one had the best metric when it was ended, and "
                "its model is that of its best epoch, not trained on."
            )
        )
    first = result.trials[0] if result.trials else None
    if first is not None and first.state == "complete" and first.number != best.number and result.started:
        blocks.append(Text(f"The config as it was given (trial 0) has {first.found(result.objectives)}."))
    rows = [(one.key, _shown(best.values.get(one.key)), one.described()) for one in result.space]
    blocks.append(Table(["key", "best value", "searched"], rows, prose=True))
    for metrics, caption in (
        (result.metrics, "The model of the best trial, without blend, refit and pipeline."),
        (result.final_metrics, "The final model, as `anyrec train` makes it of the best config."),
    ):
        names = list(dict.fromkeys(name for part in metrics.values() for name in part))
        if names:
            cells = [(name, *(_figure(part.get(name)) for part in metrics.values())) for name in names]
            blocks.append(Table(["metric", *metrics], cells, caption=caption))
    blocks.append(Text(f"{states}; {duration(result.seconds)} of search."))
    return Section("", blocks)


def _course(result: StudyResult) -> Section:
    """Return the first objective by trial, and the best so far."""
    name = result.objectives[0]
    shown = [one for one in result.trials if one.objectives]
    if len(shown) < 2:
        return Section("Course")
    sign = -1 if name in COSTS else 1
    drawn, (axis,) = new_figure()
    for state, colour, label in (("complete", MODEL, "complete"), ("other", OTHER, "ended early")):
        points = [
            (one.number, one.objectives[0]) for one in shown if (one.state == "complete") == (state == "complete")
        ]
        if points:
            axis.plot(*zip(*points, strict=True), "o", color=colour, markersize=4, label=label)
    complete = [one for one in shown if one.state == "complete"]
    if complete:
        best = sign * np.maximum.accumulate([sign * one.objectives[0] for one in complete])
        axis.step([one.number for one in complete], best, where="post", color=SECOND, label="best so far")
    axis.set_xlabel("trial")
    axis.set_ylabel(name)
    axis.locator_params(axis="x", integer=True)
    axis.legend(frameon=False, fontsize=9, labelcolor=INK)
    caption = f"{name} on the validation part by trial. A trial that was ended early has the best value until then."
    return Section("Course", [rendered(drawn, "course", caption)])


def _importance(result: StudyResult) -> Section:
    """Return the importance of each key, and the first objective by the values of the most important ones."""
    if not result.importance:
        text = "Fewer than four complete trials with different results say nothing about the importance of a key."
        return Section("What matters", [Text(text)])
    order = sorted(result.importance, key=lambda key: result.importance[key])
    names = short_names([one.key for one in result.space])
    labels = Labels(list(names.values()))
    drawn, (axis,) = new_figure(height=0.9 + 0.32 * len(order))
    axis.barh(range(len(order)), [result.importance[key] for key in order], color=MODEL, height=0.65)
    axis.set_yticks(range(len(order)), [labels[names[key]] for key in order])
    axis.set_xlabel("importance")
    axis.grid(axis="y", visible=False)
    caption = (
        f"Share of each key in what makes the best trials different in {result.objectives[0]} (PED-ANOVA; the shares "
        "sum to 1). With few trials it is a rough estimate."
    )
    pictures = [rendered(drawn, "importance", caption, labels)]
    searched = {one.key: one for one in result.space}
    for number, key in enumerate(reversed(order[-MOST_PLOTTED:])):
        pictures.append(_by_value(result, searched[key], f"key-{number}"))
    return Section("What matters", list(pictures))


def _by_value(result: StudyResult, searched: Searched, name: str) -> Picture:
    """Return the first objective by the values of a key."""
    key = searched.key
    complete = [one for one in result.trials if one.state == "complete" and key in one.values]
    values: list[Json] = [one.values[key] for one in complete]
    drawn, (axis,) = new_figure()
    labels = None
    if searched.choices is None:
        axis.plot(values, [one.objectives[0] for one in complete], "o", color=MODEL, markersize=4)
        if searched.log:
            axis.set_xscale("log")
            axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axis.xaxis.set_minor_formatter(lambda value, _: "")
    else:
        kinds = sorted({_shown(value) for value in values})
        labels = Labels(kinds)
        places = [kinds.index(_shown(value)) for value in values]
        axis.plot(places, [one.objectives[0] for one in complete], "o", color=MODEL, markersize=4)
        axis.set_xticks(range(len(kinds)), [labels[kind] for kind in kinds])
    axis.set_xlabel(key)
    axis.set_ylabel(result.objectives[0])
    return rendered(drawn, name, f"{result.objectives[0]} of the complete trials by {key}.", labels)


def _front(result: StudyResult) -> Section:
    """Return the Pareto front of several objectives."""
    if len(result.objectives) < 2:
        return Section("Pareto front")
    first, second = result.objectives[:2]
    complete = [one for one in result.trials if one.state == "complete"]
    if not complete:
        return Section("Pareto front")
    front = sorted((one for one in complete if one.number in result.front), key=lambda one: one.objectives[1])
    drawn, (axis,) = new_figure()
    others = [one for one in complete if one.number not in result.front]
    for trials, colour, label in ((others, OTHER, "other trials"), (front, MODEL, "Pareto front")):
        if trials:
            points = [(one.objectives[1], one.objectives[0]) for one in trials]
            axis.plot(*zip(*points, strict=True), "o", color=colour, markersize=5, label=label)
    axis.set_xlabel(second)
    axis.set_ylabel(first)
    axis.legend(frameon=False, fontsize=9, labelcolor=INK)
    caption = f"{first} and {second} of the complete trials. No trial beats one of the front in all objectives."
    rows = [(str(one.number), *map(_figure, one.objectives), one.described()) for one in front]
    table = Table(["trial", *result.objectives, "values"], rows, prose=True)
    return Section("Pareto front", [rendered(drawn, "front", caption), table])


def _trials(result: StudyResult) -> Section:
    """Return the table of all trials."""
    keys = [one.key for one in result.space]
    names = short_names(keys)
    rows = []
    for one in result.trials:
        found = [_figure(value) for value in one.objectives] + [""] * len(result.objectives)
        values = [_shown(one.values.get(key)) for key in keys]
        facts = [str(one.epochs or ""), f"{one.seconds:.1f}", one.problem]
        rows.append([str(one.number), one.state, *found[: len(result.objectives)], *values, *facts])
    header = ["trial", "state", *result.objectives, *map(names.get, keys), "epochs", "time (s)", "problem"]
    problems = any(row[-1] for row in rows)
    rows = rows if problems else [row[:-1] for row in rows]
    marked = [number for number, one in enumerate(result.trials) if one.number == result.best.number]
    table = Table(header if problems else header[:-1], rows, marked=marked, prose=problems)
    return Section("All trials", [table])


def _space(result: StudyResult) -> Section:
    config = result.config
    lines = [
        f"Objective{'s' if len(result.objectives) > 1 else ''}: {', '.join(result.objectives)}, of the epoch with the "
        f"best {config.training.metric} on the validation part.",
        "Trials train the model without `training.refit`, blend and pipeline. The test part is measured after the "
        "search, for the best trial.",
        f"Seed {config.seed}. The values of a trial depend on the seed, its number and the trials before it.",
    ]
    return Section("Method", [Bullets(lines)])


def _figure(value: float | None) -> str:
    return "" if value is None else figure(value)


def _shown(value: Json) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
