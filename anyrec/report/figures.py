"""The figures of the report. Each is drawn once, and rendered as SVG for HTML and as PNG for Markdown."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from anyrec.core.types import Json, JsonObject
from anyrec.evaluation.statistics import Comparison, Interval
from anyrec.report.labels import Labels
from anyrec.report.page import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#010203"
"""Placeholder of the page's text colour; nothing else has this colour."""
MODEL, OTHER, SECOND = "#2f8f68", "#8a93a3", "#c46a2b"
KINDS = ("#2f8f68", "#c46a2b", "#4c78c8", "#b0448a", "#8f7f2c", "#3aa0a8", "#d0506a", "#7a6bc9")
WIDTH, HEIGHT = 5.0, 3.1
"""Inches; narrow, so that the text is legible on a telephone."""
STYLE: Json = {
    "svg.fonttype": "none",
    "svg.hashsalt": "anyrec",
    "font.size": 10,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#8a93a3",
    "grid.alpha": 0.25,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    **dict.fromkeys(["text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"], INK),
}


def curves(history: Sequence[JsonObject], metric: str) -> Picture:
    """Training loss and the validation metric by epoch."""
    epochs = [entry["epoch"] for entry in history]
    measured = [
        (entry["epoch"], entry["validation"][metric]) for entry in history if metric in entry.get("validation", {})
    ]
    figure, axes = new_figure(rows=2 if measured else 1, height=3.6 if measured else HEIGHT)
    axes[0].plot(epochs, [entry["loss"] for entry in history], color=SECOND, marker="o", markersize=3)
    axes[0].set_ylabel("training loss")
    if measured:
        best = max(measured, key=lambda point: point[1])
        axes[1].plot(*zip(*measured, strict=True), color=MODEL, marker="o", markersize=3)
        axes[1].plot(*best, "o", color=MODEL, markersize=8)
        axes[1].set_title(f"best {best[1]:.4f} at epoch {best[0]}", loc="right", fontsize=9)
        axes[1].set_ylabel(f"validation\n{metric}")
    axes[-1].set_xlabel("epoch")
    axes[-1].locator_params(axis="x", integer=True)
    caption = (
        f"Training loss by epoch, and the validation {metric} that selected the best epoch."
        if measured
        else "Training loss by epoch."
    )
    return rendered(figure, "curves", caption)


def bars(figures: dict[str, Interval], model: str, metric: str) -> Picture:
    """Draw the metric of each model with its interval, the best on top.

    Args:
        figures: By model.
        model: Name of the model that is highlighted.
        metric: Name of the metric.
    """
    order = sorted(figures, key=lambda name: figures[name].mean)
    labels = Labels(order)
    figure, (axis,) = new_figure(height=0.9 + 0.32 * len(order))
    means = np.array([figures[name].mean for name in order])
    spread = np.array([[figures[n].mean - figures[n].low, figures[n].high - figures[n].mean] for n in order]).T
    colours = [MODEL if name == model else OTHER for name in order]
    axis.barh(range(len(order)), means, color=colours, height=0.65)
    axis.set_yticks(range(len(order)), [labels[name] for name in order])
    axis.errorbar(means, range(len(order)), xerr=spread, fmt="none", ecolor=INK, elinewidth=1.2, capsize=2.5)
    axis.set_xlabel(metric)
    axis.grid(axis="y", visible=False)
    caption = f"{metric} of the model (green) and the baselines, with 95% intervals over users."
    return rendered(figure, "baselines", caption, labels)


def slice_bars(
    kind: str,
    names: Sequence[str],
    figures: dict[str, list[Interval | None]],
    counts: list[int],
    metric: str,
    name: str,
) -> Picture:
    """Draw one group of bars for each slice: the model and the best baseline.

    Args:
        kind: What divides the slices.
        names: Names of the slices.
        figures: One interval for each slice, by model.
        counts: Number of users of each slice.
        metric: Name of the metric.
        name: Name of the figure.
    """
    labels = Labels([*names, *figures])
    figure, (axis,) = new_figure(height=1.0 + 0.48 * len(names))
    height = 0.8 / max(1, len(figures))
    for place, (model, values) in enumerate(figures.items()):
        where = np.arange(len(names))[::-1] + 0.4 - height * (place + 0.5)
        means = np.array([0.0 if one is None else one.mean for one in values])
        low = np.array([0.0 if one is None else one.mean - one.low for one in values])
        high = np.array([0.0 if one is None else one.high - one.mean for one in values])
        axis.barh(where, means, height * 0.92, color=MODEL if place == 0 else OTHER, label=labels[model])
        axis.errorbar(means, where, xerr=[low, high], fmt="none", ecolor=INK, elinewidth=1, capsize=2)
    ticks = [f"{labels[n]}\n{c:,} users" for n, c in zip(names, counts, strict=True)]
    axis.set_yticks(np.arange(len(names))[::-1], ticks, fontsize=9)
    axis.set_xlabel(metric)
    axis.grid(axis="y", visible=False)
    _legend(axis, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return rendered(figure, name, f"{metric} of {kind}, with 95% intervals: the model and the best baseline.", labels)


def exposure(counts: np.ndarray, shown: dict[str, np.ndarray], k: int) -> Picture:
    """Draw the cumulative share of the list places that the most popular items take.

    Args:
        counts: (items,) training users of each item.
        shown: By model, (items,) number of lists that each item is in.
        k: Length of the lists.
    """
    labels = Labels([*shown, "training data"])
    figure, (axis,) = new_figure()
    order = np.argsort(-counts, kind="stable")
    share = np.arange(1, len(order) + 1) / len(order)
    for place, (name, times) in enumerate({**shown, "training data": counts}.items()):
        colour = SECOND if name == "training data" else MODEL if place == 0 else OTHER
        total = np.cumsum(times[order]) / max(1, times.sum())
        axis.plot(share, total, color=colour, label=labels[name], linewidth=1.8)
    axis.set_xscale("log")
    axis.set_xticks([0.001, 0.01, 0.1, 1], ["0.1%", "1%", "10%", "100%"])
    axis.set_xlim(max(0.0007, 1 / len(order)), 1)
    axis.set_ylim(0, 1.02)
    axis.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25%", "50%", "75%", "100%"])
    axis.set_xlabel("items, the most popular first")
    axis.set_ylabel(f"share of all top-{k} places")
    _legend(axis, loc="lower right")
    caption = (
        f"Exposure by popularity: the share of all top-{k} places that the most popular items take. A line above that "
        "of the training data means that the lists favour popular items more than users did."
    )
    return rendered(figure, "exposure", caption, labels)


def embedding_map(vectors: np.ndarray, kinds: Sequence[str], names: Sequence[str]) -> Picture:
    """Draw item vectors on their two principal axes.

    Args:
        vectors: (items, dim).
        kinds: Category of each item.
        names: Categories that have a colour of their own.
    """
    centred = vectors - vectors.mean(0)
    _, _, axes_ = np.linalg.svd(
        centred[np.linspace(0, len(centred) - 1, min(len(centred), 5000)).astype(int)], full_matrices=False
    )
    flat = centred @ axes_[:2].T
    if flat.shape[1] < 2:
        flat = np.column_stack([flat, np.zeros(len(flat))])
    labels = Labels([*names, "other"])
    figure, (axis,) = new_figure(height=3.6)
    kinds_ = np.asarray(kinds)
    for place, name in enumerate([*names, None]):
        chosen = ~np.isin(kinds_, names) if name is None else kinds_ == name
        if chosen.any():
            colour = "#b5bac4" if name is None else KINDS[place % len(KINDS)]
            label = labels["other" if name is None else name]
            order = 1 if name is None else 2
            axis.scatter(
                *flat[chosen].T, s=7, color=colour, label=label, alpha=0.75, linewidths=0, rasterized=True, zorder=order
            )
    axis.set_xticks([])
    axis.set_yticks([])
    axis.grid(visible=False)
    if len(names):
        _legend(axis, loc="upper center", bbox_to_anchor=(0.5, -0.03), ncols=2, markerscale=2.2, handletextpad=0.2)
    caption = "Item embeddings, projected on their first two principal components (PCA)"
    return rendered(figure, "embedding_map", caption + (", coloured by category." if len(names) else "."), labels)


def importance_bars(importance: dict[str, Comparison], metric: str) -> Picture:
    """Draw the metric that is lost if a feature is masked, the greatest first.

    Args:
        importance: By feature.
        metric: Name of the metric.
    """
    order = sorted(importance, key=lambda name: importance[name].difference)[-14:]
    labels = Labels(order)
    figure, (axis,) = new_figure(height=0.9 + 0.3 * len(order))
    shown = [importance[name] for name in order]
    gain = np.array([one.difference for one in shown])
    spread = np.array([[one.difference - one.low, one.high - one.difference] for one in shown]).T
    colours = [OTHER if not one.significant else MODEL if one.difference > 0 else SECOND for one in shown]
    axis.barh(range(len(order)), gain, color=colours, height=0.65)
    axis.set_yticks(range(len(order)), [labels[name] for name in order])
    axis.errorbar(gain, range(len(order)), xerr=np.abs(spread), fmt="none", ecolor=INK, elinewidth=1.2, capsize=2.5)
    axis.axvline(0, color=INK, linewidth=0.8)
    axis.set_xlabel(f"{metric} lost without the feature")
    axis.grid(axis="y", visible=False)
    caption = (
        f"Feature importance: the {metric} lost if the feature is masked, with 95% intervals. Green: the feature "
        "significantly helps; orange: it significantly harms; grey: not significant."
    )
    return rendered(figure, "feature_importance", caption, labels)


def latency(milliseconds: np.ndarray) -> Picture:
    """Draw a histogram of request durations. milliseconds: (requests,)."""
    figure, (axis,) = new_figure(height=2.4)
    axis.hist(milliseconds, bins=min(20, max(5, len(milliseconds) // 2)), color=MODEL)
    middle = float(np.median(milliseconds))
    axis.axvline(middle, color=SECOND, linestyle="--")
    axis.annotate(
        f"median {middle:.1f} ms", (middle, axis.get_ylim()[1]), color=SECOND, fontsize=9, va="bottom", ha="center"
    )
    axis.set_xlabel("milliseconds for one user's ten items")
    axis.set_ylabel("requests")
    return rendered(figure, "latency", "Duration of one request after the model is loaded, on this machine.")


def new_figure(rows: int = 1, height: float = HEIGHT) -> tuple[Figure, Sequence[Axes]]:
    """Return an empty figure with `rows` axes below one another."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
    return figure, list(axes)


def _legend(axis: Axes, **options: Json) -> None:
    """Add a legend in the colour of the page's text."""
    axis.legend(frameon=False, fontsize=9, labelcolor=INK, **options)


def rendered(figure: Figure, name: str, caption: str, labels: Labels | None = None) -> Picture:
    """Render a figure as SVG and PNG.

    Args:
        figure: The figure.
        name: Name of the picture.
        caption: Text below it.
        labels: The labels of the figure that are texts of the data.
    """
    import matplotlib as mpl
    from matplotlib.text import Text

    labels = labels or Labels([])
    for text in figure.findobj(Text):
        text.set_parse_math(False)  # a price range "$$" is not a formula
        text.set_fontfamily(["sans-serif", *labels.families])
    with mpl.rc_context(STYLE):
        vector, pixels = io.StringIO(), io.BytesIO()
        figure.savefig(vector, format="svg", metadata={"Date": None})
        figure.savefig(pixels, format="png", dpi=150, facecolor="white")
    svg = vector.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r'(<svg [^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg [^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    return Picture(name, labels.written_out(svg), pixels.getvalue(), caption, labels.explained())
