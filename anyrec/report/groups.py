"""The section on groups of users and of items."""

from __future__ import annotations

from collections.abc import Sequence

from anyrec.evaluation.slices import BY_FREQUENCY, Slice
from anyrec.report import figures, numbers
from anyrec.report.collect import ReportData
from anyrec.report.page import Block, Section, Table

MOST_FIGURES = 3
CAPTIONS = {
    BY_FREQUENCY[0]: "All metrics of users by training interactions [95%]: unseen (cold), 1-19 (warm), 20+ (hot).",
    BY_FREQUENCY[1]: (
        "All metrics of held-out items by training interactions [95%]: unseen (cold), 1-19 (warm), 20+ (hot). Coverage "
        "and gini are of the items of the group in the lists of all users."
    ),
}


def groups_section(data: ReportData) -> Section:
    """Return a figure and a table of the main metric for each kind of group, and all metrics by frequency bucket.

    All metrics of all groups, at all cut-offs, are in evaluation.json.
    """
    pictures: list[Block] = []
    tables: list[Block] = []
    names = [data.model.name] + ([data.best_baseline] if data.best_baseline else [])
    kinds = list(dict.fromkeys(one.kind for one in data.slices))
    for place, kind in enumerate(kinds):
        chosen = [one for one in data.slices if one.kind == kind]
        if len(chosen) < 2 and kind not in BY_FREQUENCY:
            continue
        values = {name: [one.figures[name].get(data.metric) for one in chosen] for name in names}
        if place < MOST_FIGURES and len(chosen) > 1:
            labels, counts = [one.name for one in chosen], [one.users for one in chosen]
            pictures.append(figures.slice_bars(kind, labels, values, counts, data.metric, f"slice_{place}"))
        rows = [
            [one.name, f"{one.users:,}", f"{one.targets:,}", *(numbers.interval(values[name][n], 3) for name in names)]
            for n, one in enumerate(chosen)
        ]
        header = ["frequency bucket" if kind in BY_FREQUENCY else "", "users", "held-out items", *names]
        tables.append(Table(header, rows, f"{data.metric} of {kind} [95%]"))
    wide: list[Block] = [_all_metrics(data, kind, names) for kind in BY_FREQUENCY if kind in kinds]
    return Section("Groups of users and items", [*pictures, *tables, *wide])


def _all_metrics(data: ReportData, kind: str, names: Sequence[str]) -> Table:
    """Return a table of each metric at the main cut-off, with a column for each group and model."""
    chosen = [one for one in data.slices if one.kind == kind]
    cutoff = "@" + data.metric.split("@")[1]
    found = [metric for one in chosen for name in names for metric in (*one.figures[name], *one.overall[name])]
    metrics = [metric for metric in dict.fromkeys(found) if metric.endswith(cutoff) or "@" not in metric]
    rows = [[metric, *(_cell(one, name, metric) for one in chosen for name in names)] for metric in metrics]
    header = [f"{one.name} ({one.users:,} users): {name}" for one in chosen for name in names]
    return Table(["metric", *header], rows, CAPTIONS[kind])


def _cell(one: Slice, model: str, metric: str) -> str:
    """Return a metric of a model with its interval, or without one if it is not a mean over users."""
    if metric in one.overall[model]:
        return f"{one.overall[model][metric]:.3f}"
    return numbers.interval(one.figures[model].get(metric), 3)
