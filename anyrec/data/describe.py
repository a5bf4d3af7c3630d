"""Counts of a dataset, its interactions and its features, and how complete they are, as tables for the terminal."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Group
from rich.table import Table

from anyrec.data.dataset import Dataset
from anyrec.data.formats.times import iso
from anyrec.data.ids import SIDES
from anyrec.data.summary import (
    activity,
    distinct_values,
    filled_share,
    is_plain,
    is_present,
    numbers,
    repeated_pairs,
    share_present,
    time_bounds,
    value_counts,
)

SHOWN_TYPES = 6


def describe_dataset(dataset: Dataset) -> Group:
    """Return tables of counts and of features. The figures are those of the data doctor (`anyrec.data.summary`)."""
    counts = Table(box=None, show_header=False)
    for name, text in described_counts(dataset):
        counts.add_row(name, text)
    features = Table("side", "feature", "present", "what", box=None, header_style="bold")
    for row in described_features(dataset):
        features.add_row(*row)
    return Group(counts, features)


def described_features(dataset: Dataset) -> list[tuple[str, str, str, str]]:
    """Return side, name, share of the records that have it, and content of each feature, as texts."""
    found = []
    for side in SIDES:
        for name in dataset.features(side):
            column = dataset.table(side).column(name).combine_chunks()
            present = is_present(column)
            role = dataset.roles.get(f"{side}.{name.removeprefix('temporal.')}") if name.startswith("temporal.") else ""
            content = role or _content(column.filter(pa.array(present)))
            found.append((side, name, f"{share_present(present):.1%}", content))
    return found


def described_counts(dataset: Dataset) -> list[tuple[str, str]]:
    """Return the names and texts of the rows on users, items and interactions."""
    rows, extra = len(dataset.interactions), repeated_pairs(dataset)
    repeats = f"; {extra:,} repeat a pair" if extra else ""
    found = [
        ("users", f"{len(dataset.users):,}"),
        ("items", f"{len(dataset.items):,}"),
        ("interactions", f"{rows:,} ({filled_share(dataset):.2%} of all pairs{repeats})"),
    ]
    for side in SIDES:
        each = activity(dataset, side)
        least, most = min(each.counts, default=0), max(each.counts, default=0)
        found.append((f"per {side}", f"median {each.median:.0f}, least {least:,}, most {most:,}"))
    if dataset.column("interaction_type") is not None:
        found.append(("types", _counted(dataset, "interaction_type")))
    for name in ("rating", "weight"):
        known = numbers(dataset, name)
        if len(known.values):
            found.append((f"{name}s", f"{known.span()}, mean {known.values.mean():.2f}" + _missing(known.missing)))
    if dataset.column("label") is not None:
        found.append(("labels", _counted(dataset, "label")))
    times, bounds = dataset.column("timestamp"), time_bounds(dataset)
    if times is not None and bounds is not None:
        first, last = (iso(bound.as_py()) for bound in bounds)
        found.append(("times", f"{first} to {last}" + _missing(times.null_count)))
    return found


def _counted(dataset: Dataset, name: str) -> str:
    """Return the most frequent values of a column of the interactions, each with its count."""
    counts, missing = value_counts(dataset, name)
    shown = ", ".join(f"{value} ({number:,})" for value, number in list(counts.items())[:SHOWN_TYPES])
    return shown + (f" and {len(counts) - SHOWN_TYPES:,} more" if len(counts) > SHOWN_TYPES else "") + _missing(missing)


def _missing(number: int) -> str:
    """Return how many rows have no value, as a part of a sentence; empty if all have one."""
    return f"; {number:,} without" if number else ""


def _content(column: pa.Array) -> str:
    """Return what the present values of a feature are: the range of numbers, or the number of distinct values."""
    listed = pa.types.is_list(column.type)
    flat = (column.flatten() if listed else column).drop_null()
    several = "several of " if listed else ""
    if pa.types.is_floating(flat.type) and len(flat):
        bounds = pc.min_max(flat)
        return f"{several}numbers, {bounds['min'].as_py():g} to {bounds['max'].as_py():g}"
    if not is_plain(flat.type):
        return f"{several}{flat.type}"
    distinct, _ = distinct_values(column)
    return f"{several}{distinct:,} {'value' if distinct == 1 else 'values'}"
