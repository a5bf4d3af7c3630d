"""The report's pictures. Each is drawn once and kept as SVG for the page and as PNG for Markdown."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from anyrec.evaluation.statistics import Comparison, Interval
from anyrec.report.page import Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#010203"
"""Stands for the page's text colour: no other line is drawn in it."""
MODEL, OTHER, SECOND = "#2f8f68", "#8a93a3", "#c46a2b"
KINDS = ("#2f8f68", "#c46a2b", "#4c78c8", "#b0448a", "#8f7f2c", "#3aa0a8", "#d0506a", "#7a6bc9")
WIDTH, HEIGHT = 5.0, 3.1
"""Inches; narrow, so that its text can be read on a telephone."""
STYLE: Any = {
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


def curves(history: Sequence[dict[str, Any]], metric: str) -> Picture:
    """Training loss and the validation metric by epoch."""
    epochs = [entry["epoch"] for entry in history]
    measured = [
        (entry["epoch"], entry["validation"][metric]) for entry in history if metric in entry.get("validation", {})
    ]
    figure, axes = _axes(rows=2 if measured else 1, height=3.6 if measured else HEIGHT)
    axes[0].plot(epochs, [entry["loss"] for entry in history], color=SECOND, marker="o", markersize=3)
    axes[0].set_ylabel("training loss")
    if measured:
        best = max(measured, key=lambda point: point[1])
        axes[1].plot(*zip(*measured, strict=True), color=MODEL, marker="o", markersize=3)
        axes[1].plot(*best, "o", color=MODEL, markersize=8)
        axes[1].set_title(f"best {best[1]:.4f} at epoch {best[0]}", loc="right", fontsize=9)
        axes[1].set_ylabel(f"validation\n{metric}")
    axes[-1].set_xlabel("epoch")
    axes[-1].xaxis.get_major_locator().set_params(integer=True)
    caption = (
        f"The loss by epoch, and the {metric} on validation that chose the best one."
        if measured
        else "The loss by epoch."
    )
    return _finish(figure, "curves", caption)


def bars(figures: dict[str, Interval], model: str, metric: str, chance: float | None) -> Picture:
    """Each model's figure with its interval, the best on top."""
    order = sorted(figures, key=lambda name: figures[name].mean)
    figure, (axis,) = _axes(height=0.9 + 0.32 * len(order))
    means = np.array([figures[name].mean for name in order])
    spread = np.array([[figures[n].mean - figures[n].low, figures[n].high - figures[n].mean] for n in order]).T
    colours = [MODEL if name == model else OTHER for name in order]
    axis.barh(order, means, color=colours, height=0.65)
    axis.errorbar(means, range(len(order)), xerr=spread, fmt="none", ecolor=INK, elinewidth=1.2, capsize=2.5)
    if chance is not None:
        axis.axvline(chance, color=SECOND, linestyle="--", linewidth=1.2)
        axis.annotate("chance", (chance, len(order) - 0.5), color=SECOND, ha="left", va="bottom", fontsize=9)
    axis.set_xlabel(metric)
    axis.grid(axis="y", visible=False)
    return _finish(
        figure, "baselines", f"{metric} of the model (green) and the baselines, with 95% intervals over users."
    )


def slice_bars(
    kind: str,
    names: Sequence[str],
    figures: dict[str, list[Interval | None]],
    counts: list[int],
    metric: str,
    name: str,
) -> Picture:
    """One group of bars a slice: the model beside the best baseline."""
    figure, (axis,) = _axes(height=1.0 + 0.48 * len(names))
    height = 0.8 / max(1, len(figures))
    for place, (model, values) in enumerate(figures.items()):
        where = np.arange(len(names))[::-1] + 0.4 - height * (place + 0.5)
        means = np.array([0.0 if one is None else one.mean for one in values])
        low = np.array([0.0 if one is None else one.mean - one.low for one in values])
        high = np.array([0.0 if one is None else one.high - one.mean for one in values])
        axis.barh(where, means, height * 0.92, color=MODEL if place == 0 else OTHER, label=model)
        axis.errorbar(means, where, xerr=[low, high], fmt="none", ecolor=INK, elinewidth=1, capsize=2)
    axis.set_yticks(
        np.arange(len(names))[::-1], [f"{n}\n{c:,} users" for n, c in zip(names, counts, strict=True)], fontsize=9
    )
    axis.set_xlabel(metric)
    axis.grid(axis="y", visible=False)
    axis.legend(frameon=False, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return _finish(figure, name, f"{metric} of {kind}, with 95% intervals: the model beside the best baseline.")


def exposure(counts: np.ndarray, shown: dict[str, np.ndarray], k: int) -> Picture:
    """How much of all that is shown falls to the items, the most popular first."""
    figure, (axis,) = _axes()
    order = np.argsort(-counts, kind="stable")
    share = np.arange(1, len(order) + 1) / len(order)
    for place, (name, times) in enumerate({**shown, "training data": counts}.items()):
        colour = SECOND if name == "training data" else MODEL if place == 0 else OTHER
        total = np.cumsum(times[order]) / max(1, times.sum())
        axis.plot(share, total, color=colour, label=name, linewidth=1.8)
    axis.set_xscale("log")
    axis.set_xticks([0.001, 0.01, 0.1, 1], ["0.1%", "1%", "10%", "100%"])
    axis.set_xlim(max(0.0007, 1 / len(order)), 1)
    axis.set_ylim(0, 1.02)
    axis.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25%", "50%", "75%", "100%"])
    axis.set_xlabel("items, the most popular first")
    axis.set_ylabel(f"share of all top-{k} places")
    axis.legend(frameon=False, fontsize=9, loc="lower right")
    caption = (
        f"Popularity against exposure: the share of all top-{k} places that the most popular items take. A line above that of the "
        "training data favours what is popular already."
    )
    return _finish(figure, "exposure", caption)


def embedding_map(vectors: np.ndarray, kinds: Sequence[str], names: Sequence[str]) -> Picture:
    """Item vectors on their two principal axes. kinds: each row's; names: those that get a colour."""
    centred = vectors - vectors.mean(0)
    _, _, axes_ = np.linalg.svd(
        centred[np.linspace(0, len(centred) - 1, min(len(centred), 5000)).astype(int)], full_matrices=False
    )
    flat = centred @ axes_[:2].T
    if flat.shape[1] < 2:
        flat = np.column_stack([flat, np.zeros(len(flat))])
    figure, (axis,) = _axes(height=3.6)
    kinds_ = np.asarray(kinds)
    for place, name in enumerate([*names, None]):
        chosen = ~np.isin(kinds_, names) if name is None else kinds_ == name
        if chosen.any():
            colour = "#b5bac4" if name is None else KINDS[place % len(KINDS)]
            label = "other" if name is None else name
            order = 1 if name is None else 2
            axis.scatter(
                *flat[chosen].T, s=7, color=colour, label=label, alpha=0.75, linewidths=0, rasterized=True, zorder=order
            )
    axis.set_xticks([])
    axis.set_yticks([])
    axis.grid(visible=False)
    if len(names):
        axis.legend(
            frameon=False,
            fontsize=8.5,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.03),
            ncols=3,
            markerscale=2.2,
            handletextpad=0.2,
        )
    caption = "Every item as the model sees it: its vector on the two axes along which items differ most (PCA)"
    return _finish(figure, "embedding_map", caption + (", coloured by kind." if len(names) else "."))


def worth_bars(worth: dict[str, Comparison], metric: str) -> Picture:
    """What is lost when a feature is masked, the most first."""
    order = sorted(worth, key=lambda name: worth[name].difference)[-14:]
    figure, (axis,) = _axes(height=0.9 + 0.3 * len(order))
    gain = np.array([worth[name].difference for name in order])
    spread = np.array([[worth[n].difference - worth[n].low, worth[n].high - worth[n].difference] for n in order]).T
    colours = [
        MODEL
        if worth[name].significant and worth[name].difference > 0
        else SECOND
        if worth[name].significant
        else OTHER
        for name in order
    ]
    axis.barh(order, gain, color=colours, height=0.65)
    axis.errorbar(gain, range(len(order)), xerr=np.abs(spread), fmt="none", ecolor=INK, elinewidth=1.2, capsize=2.5)
    axis.axvline(0, color=INK, linewidth=0.8)
    axis.set_xlabel(f"{metric} lost without it")
    axis.grid(axis="y", visible=False)
    caption = (
        f"What each feature is worth: the {metric} lost when it is masked, with 95% intervals. Green surely helps, orange surely "
        "harms, grey is not told from chance."
    )
    return _finish(figure, "feature_worth", caption)


def latency(milliseconds: np.ndarray) -> Picture:
    """How long single answers took."""
    figure, (axis,) = _axes(height=2.4)
    axis.hist(milliseconds, bins=min(20, max(5, len(milliseconds) // 2)), color=MODEL)
    middle = float(np.median(milliseconds))
    axis.axvline(middle, color=SECOND, linestyle="--")
    axis.annotate(
        f"median {middle:.1f} ms", (middle, axis.get_ylim()[1]), color=SECOND, fontsize=9, va="bottom", ha="center"
    )
    axis.set_xlabel("milliseconds for one person's ten items")
    axis.set_ylabel("answers")
    return _finish(figure, "latency", "How long one answer takes once the model is loaded, on this machine.")


def _axes(rows: int = 1, height: float = HEIGHT) -> tuple[Figure, Any]:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
    return figure, axes


def _finish(figure: Figure, name: str, caption: str) -> Picture:
    import matplotlib as mpl
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)  # a price range "$$" is no formula
    with mpl.rc_context(STYLE):
        vector, pixels = io.StringIO(), io.BytesIO()
        figure.savefig(vector, format="svg", metadata={"Date": None})
        figure.savefig(pixels, format="png", dpi=150, facecolor="white")
    svg = vector.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r'(<svg [^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg [^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    return Picture(name, svg, pixels.getvalue(), caption)
