"""Counts of a dataset, its features and how full they are, for a person."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Group
from rich.table import Table

from anyrec.data.dataset import Dataset


def describe_dataset(dataset: Dataset) -> Group:
    cells = max(1, len(dataset.users) * len(dataset.items))
    counts = Table(box=None, show_header=False)
    counts.add_row("users", f"{len(dataset.users):,}")
    counts.add_row("items", f"{len(dataset.items):,}")
    counts.add_row(
        "interactions", f"{len(dataset.interactions):,} ({len(dataset.interactions) / cells:.2%} of all pairs)"
    )
    for side, rows, count in (
        ("user", dataset.user_rows, len(dataset.users)),
        ("item", dataset.item_rows, len(dataset.items)),
    ):
        each = np.bincount(rows, minlength=count)
        counts.add_row(
            f"per {side}", f"median {np.median(each):.0f}, least {min(each, default=0)}, most {max(each, default=0)}"
        )
    features = Table("side", "feature", "present", "what", box=None, header_style="bold")
    for side in ("user", "item"):
        table = dataset.table(side)
        for name in dataset.features(side):
            column = table.column(name)
            present = 1 - column.null_count / max(1, len(column))
            role = (
                dataset.roles.get(f"{side}.{name.removeprefix('temporal.')}") if name.startswith("temporal.") else None
            )
            features.add_row(side, name, f"{present:.1%}", role or _what(column))
    return Group(counts, features)


def _what(column: pa.ChunkedArray) -> str:
    kind = column.type
    flat = pc.list_flatten(column) if pa.types.is_list(kind) else column
    several = "several of " if pa.types.is_list(kind) else ""
    if pa.types.is_floating(flat.type):
        bounds = pc.min_max(flat)
        return f"{several}numbers, {bounds['min'].as_py():g} to {bounds['max'].as_py():g}"
    return f"{several}{len(pc.unique(flat)):,} values"
