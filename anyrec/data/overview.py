"""An overview of a dataset for pages: counts, how complete each feature is and how its values are distributed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.core.types import JsonObject
from anyrec.data.dataset import Dataset
from anyrec.data.describe import described_counts, described_features
from anyrec.data.findings import Finding
from anyrec.data.formats.times import iso
from anyrec.data.ids import SIDES
from anyrec.data.list_columns import flat_with_nulls
from anyrec.data.summary import activity, is_present, share_present

OVERVIEW = "overview.json"
"""Name of the file of a training run that has the overview of its data."""
BINS = 20
"""Bins of a histogram."""
VALUES = 12
"""Values of a category that are counted one by one, the most frequent ones."""


def overview(dataset: Dataset, findings: Sequence[Finding] | None = None) -> JsonObject:
    """Return the overview of a dataset.

    Args:
        dataset: The data.
        findings: What the data doctor found; None if it has not examined the data.

    Returns:
        `counts`: names and texts, as `anyrec describe` prints them. `features`: for each one its side, name, content,
        fraction of records that have it (`present`), and `chart`, its distribution or None. `activity`: by side, how
        many records have how many interactions. `timeline`: interactions by time, or None. `findings`, or None.
    """
    return {
        "counts": [list(pair) for pair in described_counts(dataset)],
        "features": [
            {"side": side, "name": name, "present": _share(dataset, side, name), "content": content, "chart": chart}
            for (side, name, _, content), chart in zip(described_features(dataset), _charts(dataset), strict=True)
        ],
        "activity": {side: _histogram(activity(dataset, side).counts.astype(float)) for side in SIDES},
        "timeline": _timeline(dataset),
        "findings": None if findings is None else [asdict(one) for one in findings],
    }


def _share(dataset: Dataset, side: str, name: str) -> float:
    table = dataset.users if side == "user" else dataset.items
    return share_present(is_present(table.column(name).combine_chunks()))


def _charts(dataset: Dataset) -> list[JsonObject | None]:
    """Return the distribution of each feature, in the order of `described_features`."""
    return [
        _chart(dataset.table(side).column(name).combine_chunks(), name.split(".")[0])
        for side in SIDES
        for name in dataset.features(side)
    ]


def _chart(column: pa.Array, group: str) -> JsonObject | None:
    """Return the distribution of the values of a column.

    These are the values themselves, for texts their lengths in characters. None for other groups and empty columns.
    """
    values, _ = flat_with_nulls(column)
    values = values.filter(pa.array(is_present(values)))
    if not len(values):
        return None
    if group == "categorical":
        return _frequencies(values)
    if group == "text":
        return {**_histogram(pc.utf8_length(values).to_numpy().astype(float)), "of": "characters"}
    if pa.types.is_floating(values.type) or pa.types.is_integer(values.type):
        return _histogram(values.cast(pa.float64()).to_numpy(zero_copy_only=False))
    if pa.types.is_timestamp(values.type):
        return _times(values)
    return None


def _frequencies(values: pa.Array) -> JsonObject:
    """Return the most frequent values with their counts, and how many other values there are."""
    counted = pc.value_counts(values.cast(pa.string()))
    counts = counted.field("counts").to_numpy()
    order = np.argsort(-counts, kind="stable")
    names = counted.field("values").take(pa.array(order[:VALUES])).to_pylist()
    rest = counts[order[VALUES:]]
    return {
        "kind": "values",
        "labels": names,
        "counts": counts[order[:VALUES]].tolist(),
        "others": len(rest),
        "others_count": int(rest.sum()),
    }


def _histogram(values: np.ndarray) -> JsonObject:
    """Return the counts of numbers in equal bins; those beyond the 99th percentile are in the last one."""
    values = values[np.isfinite(values)]
    if not len(values):
        return {"kind": "histogram", "edges": [], "counts": []}
    low, high = float(values.min()), float(np.quantile(values, 0.99))
    whole = bool((values == np.round(values)).all()) and high - low < BINS
    bins = int(high - low) + 1 if whole else BINS
    high = low + bins if whole else max(high, low + 1e-9 * max(1.0, abs(low)))
    counts, edges = np.histogram(np.minimum(values, high), bins, (low, high))
    return {"kind": "histogram", "edges": edges.tolist(), "counts": counts.tolist(), "most": float(values.max())}


def _times(values: pa.Array) -> JsonObject:
    """Return the counts of times in equal bins; `edges` are ISO 8601."""
    stamps = values.cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy(zero_copy_only=False)
    counts, edges = np.histogram(stamps, BINS)
    scalars = pa.array(edges.astype(np.int64)).cast(pa.timestamp("us", "UTC")).to_pylist()
    return {"kind": "times", "edges": [iso(one) for one in scalars], "counts": counts.tolist()}


def _timeline(dataset: Dataset) -> JsonObject | None:
    """Return the interactions by time; None without times."""
    column = dataset.column("timestamp")
    known = None if column is None else column.drop_null()
    if known is None or not len(known):
        return None
    return _times(known.combine_chunks() if isinstance(known, pa.ChunkedArray) else known)
