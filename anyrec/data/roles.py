"""What a temporal feature holds: numbers, timestamps or item ids. Declared in the config, or inferred and said."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.config import DataConfig
from anyrec.data.columns import TIME, Faults, parse_times, show
from anyrec.data.dataset import rows_of
from anyrec.errors import did_you_mean

EPOCHS = (1e8, 5e9)
"""Whole numbers between these, 1973 to 2128, are taken for epoch seconds."""


def apply_roles(
    users: pa.Table,
    items: pa.Table,
    options: DataConfig,
    notes: list[str],
    faults: Faults,
    item_ids: pa.Array | None = None,
) -> tuple[pa.Table, pa.Table, dict[str, str]]:
    """Both tables with every temporal column typed by its role, and the roles as {"user.name": role}.

    Args:
        item_ids: The items that lists of ids name; by default those of `items`.
    """
    among: pa.Array = items.column("item_id").combine_chunks() if item_ids is None else item_ids
    tables, roles = {"user": users, "item": items}, {}
    for side in ("user", "item"):
        for place, column_name in enumerate(tables[side].column_names):
            if not column_name.startswith("temporal."):
                continue
            name = f"{side}.{column_name.removeprefix('temporal.')}"
            column = tables[side].column(column_name).combine_chunks()
            role = "items" if name == f"user.{options.history}" else options.roles.get(name)
            if role is None:
                role = infer_role(column, among)
                notes.append(
                    f"The temporal feature '{name}' is read as {role} (inferred; data.roles can say otherwise)."
                )
            roles[name] = role
            typed = _typed(column, role, among.type, side, column_name, faults)
            tables[side] = tables[side].set_column(place, column_name, typed)
    return tables["user"], tables["item"], {**options.roles, **roles}


def check_roles(options: DataConfig, names: list[str], faults: Faults) -> None:
    """Roles declared for features that the data lack."""
    for name in options.roles:
        if name not in names:
            faults.add(
                "unknown role",
                f"data.roles.{name}",
                "the data have no such temporal feature.",
                did_you_mean(name, names),
            )


def infer_role(column: pa.Array, item_ids: pa.Array) -> str:
    """Item ids where all values are ids of items; timestamps for times or epoch seconds; else numbers."""
    values = column.flatten().drop_null()
    if pa.types.is_timestamp(values.type):
        return "timestamps"
    if not len(values):
        return "numbers"
    if (rows_of(values, item_ids) >= 0).all():
        return "items"
    if pa.types.is_string(values.type):
        _, bad = parse_times(values)
        return "timestamps" if len(bad) <= len(values) / 2 else "items"
    bounds = pc.min_max(values)
    inside = EPOCHS[0] <= bounds["min"].as_py() and bounds["max"].as_py() <= EPOCHS[1]
    return "timestamps" if inside else "numbers"


def _typed(column: pa.Array, role: str, id_type: pa.DataType, side: str, name: str, faults: Faults) -> pa.Array:
    """The list column with its values typed by `role`; what cannot be is a fault."""
    flat = column.flatten()
    parents = pc.list_parent_indices(column).to_numpy(zero_copy_only=False)

    def report(bad: np.ndarray) -> None:
        faults.add_rows(
            "bad timestamp" if role == "timestamps" else "bad value",
            bad,
            lambda place: (
                f"/{side}_data/{parents[place]}/{name.replace('.', '/')}",
                f"{show(flat[place].as_py())} is none of the {role} that this feature holds.",
                "Mend the value, or declare the feature's role in data.roles.",
            ),
        )

    if role == "items":
        same = pa.types.is_string(flat.type) == pa.types.is_string(id_type)
        values = flat.cast(id_type, safe=False) if same else pa.nulls(len(flat), id_type)
    elif role == "numbers":
        if pa.types.is_string(flat.type) or pa.types.is_timestamp(flat.type):
            report(np.flatnonzero(flat.is_valid().to_numpy(zero_copy_only=False)))
            values = pa.nulls(len(flat), pa.float64())
        else:
            values = flat.cast(pa.float64())
    elif pa.types.is_string(flat.type):
        values, bad = parse_times(flat)
        report(bad)
    elif pa.types.is_timestamp(flat.type):
        values = flat.cast(TIME)
    else:
        micro = pc.round(pc.multiply(flat.cast(pa.float64()), 1e6)).cast(pa.int64())
        values = micro.cast(pa.timestamp("us")).cast(TIME)
    offsets = np.concatenate(
        [[0], np.cumsum(pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False))]
    )
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), values, mask=column.is_null())
