"""Counts of a dataset, its interactions and its features, and how complete they are, as tables for the terminal."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Group
from rich.table import Table

from anyrec.data.dataset import Dataset
from anyrec.data.doctor.table_checks import distinct_pairs, filled_share, is_plain, is_present
from anyrec.data.formats.times import iso
from anyrec.data.ids import SIDES

SHOWN_TYPES = 6


def describe_dataset(dataset: Dataset) -> Group:
    """Return tables of counts and of features. Every figure is counted as the data doctor counts it."""
    counts = Table(box=None, show_header=False)
    for name, text in described_counts(dataset):
        counts.add_row(name, text)
    features = Table("side", "feature", "present", "what", box=None, header_style="bold")
    for side in SIDES:
        for name in dataset.features(side):
            column = dataset.table(side).column(name).combine_chunks()
            present = is_present(column)
            role = dataset.roles.get(f"{side}.{name.removeprefix('temporal.')}") if name.startswith("temporal.") else ""
            share = present.mean() if len(present) else 0.0
            features.add_row(side, name, f"{share:.1%}", role or _content(column.filter(pa.array(present))))
    return Group(counts, features)


def described_counts(dataset: Dataset) -> list[tuple[str, str]]:
    """Return the names and texts of the rows on users, items and interactions."""
    rows, pairs = len(dataset.interactions), distinct_pairs(dataset)
    repeats = f"; {rows - pairs:,} repeat a pair" if rows > pairs else ""
    found = [
        ("users", f"{len(dataset.users):,}"),
        ("items", f"{len(dataset.items):,}"),
        ("interactions", f"{rows:,} ({filled_share(dataset):.2%} of all pairs{repeats})"),
    ]
    for side, owners in zip(SIDES, (dataset.user_rows, dataset.item_rows), strict=True):
        each = np.bincount(owners, minlength=len(dataset.table(side)))
        middle = np.median(each) if len(each) else 0.0
        least, most = min(each, default=0), max(each, default=0)
        found.append((f"per {side}", f"median {middle:.0f}, least {least}, most {most}"))
    types = dataset.column("interaction_type")
    if types is not None:
        found.append(("types", _counted(types)))
    for name in ("rating", "weight"):
        column = dataset.column(name)
        if column is not None and column.null_count < rows:
            bounds, mean = pc.min_max(column), pc.mean(column).as_py()
            span = f"{bounds['min'].as_py():g} to {bounds['max'].as_py():g}, mean {mean:.2f}"
            found.append((f"{name}s", span + _missing(column)))
    label = dataset.column("label")
    if label is not None:
        found.append(("labels", _counted(label)))
    times = dataset.column("timestamp")
    if times is not None and times.null_count < rows:
        bounds = pc.min_max(times)
        found.append(("times", f"{iso(bounds['min'].as_py())} to {iso(bounds['max'].as_py())}" + _missing(times)))
    return found


def _counted(column: pa.Array) -> str:
    """Return the most frequent values, each with its count."""
    counted = pc.value_counts(column.drop_null())
    counts = dict(zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True))
    names = sorted(counts, key=lambda name: (-counts[name], name))
    shown = ", ".join(f"{name} ({counts[name]:,})" for name in names[:SHOWN_TYPES])
    return shown + (f" and {len(names) - SHOWN_TYPES:,} more" if len(names) > SHOWN_TYPES else "") + _missing(column)


def _missing(column: pa.Array) -> str:
    """Return how many rows have no value, as a part of a sentence; empty if all have one."""
    return f"; {column.null_count:,} without" if column.null_count else ""


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
    distinct = int(is_present(flat.unique()).sum())
    return f"{several}{distinct:,} {'value' if distinct == 1 else 'values'}"
