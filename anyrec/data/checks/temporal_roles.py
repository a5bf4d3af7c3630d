"""What a temporal feature holds: numbers, timestamps or item ids. Declared in the config, or inferred and said."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.core.config import DataConfig
from anyrec.core.errors import Fault, did_you_mean
from anyrec.core.values import show
from anyrec.data.formats.faults import Faults
from anyrec.data.formats.places import Place, json_place
from anyrec.data.formats.times import TIME, clock_seconds, epochs, parse_times
from anyrec.data.ids import rows_of

EPOCHS = (1e8, 5e9)
"""Whole numbers between these, 1973 to 2128, are taken for epoch seconds."""


def apply_roles(
    users: pa.Table,
    items: pa.Table,
    options: DataConfig,
    notes: list[str],
    faults: Faults,
    places: Sequence[Place] | None = None,
    item_ids: pa.Array | None = None,
) -> tuple[pa.Table, pa.Table, dict[str, str]]:
    """Both tables with every temporal column typed by its role, and the roles as {"user.name": role}.

    Args:
        places: Of the rows of users and items; by default those of a JSON document.
        item_ids: The items that lists of ids name; by default those of `items`.
    """
    places = places or [json_place("user_data"), json_place("item_data")]
    among: pa.Array = items.column("item_id").combine_chunks() if item_ids is None else item_ids
    tables, roles = {"user": users, "item": items}, {}
    for side, where in zip(("user", "item"), places[:2], strict=True):
        for place, column_name in enumerate(tables[side].column_names):
            if not column_name.startswith("temporal."):
                continue
            name = f"{side}.{column_name.removeprefix('temporal.')}"
            column = tables[side].column(column_name).combine_chunks()
            role = "items" if name == f"user.{options.history}" else options.roles.get(name)
            inferred = role is None
            if role is None:
                role = infer_role(column, among)
                notes.append(
                    f"The temporal feature '{name}' is read as {role} (inferred; data.roles can say otherwise)."
                )
                if role == "items":
                    notes += _no_item_named(name, column, among)
            roles[name] = role
            typed = _typed(column, role, among.type, where, column_name, faults, inferred)
            tables[side] = tables[side].set_column(place, column_name, typed)
    return tables["user"], tables["item"], {**options.roles, **roles}


def temporal_names(users: pa.Table, items: pa.Table) -> list[str]:
    """The temporal features of both tables, as `data.roles` names them."""
    tables = {"user": users, "item": items}
    return [
        f"{side}.{name.removeprefix('temporal.')}"
        for side, table in tables.items()
        for name in table.column_names
        if name.startswith("temporal.")
    ]


def unknown_roles(roles: dict[str, str], users: pa.Table, items: pa.Table) -> list[Fault]:
    """Return a fault for each role that is declared for a feature that the data lack."""
    names = temporal_names(users, items)
    what = "the data have no such temporal feature."
    return [
        Fault(f"/data/roles/{name}", what, did_you_mean(name, names), "unknown role")
        for name in roles
        if name not in names
    ]


def infer_role(column: pa.Array, item_ids: pa.Array) -> str:
    """Item ids if all values are ids of items; timestamps for times or epoch seconds; else numbers, as times of day are."""
    values = column.flatten().drop_null()
    if pa.types.is_timestamp(values.type):
        return "timestamps"
    if not len(values):
        return "numbers"
    if (rows_of(values, item_ids) >= 0).all():
        return "items"
    if pa.types.is_string(values.type):
        if clock_seconds(values) is not None:
            return "numbers"
        _, bad = parse_times(values)
        return "timestamps" if len(bad) <= len(values) / 2 else "items"
    bounds = pc.min_max(values)
    inside = EPOCHS[0] <= bounds["min"].as_py() and bounds["max"].as_py() <= EPOCHS[1]
    return "timestamps" if inside else "numbers"


def _no_item_named(name: str, column: pa.Array, item_ids: pa.Array) -> list[str]:
    """A sentence if no value of a feature that is read as item ids is the id of an item: the feature then has no effect."""
    values = column.flatten().drop_null()
    if not len(item_ids) or (rows_of(values, item_ids) >= 0).any():
        return []
    odd = values.filter(pc.invert(pc.match_substring_regex(values, r"^[-+]?[0-9.]+$")))
    first = (odd if len(odd) else values)[0].as_py()
    return [
        f"The temporal feature '{name}' has no effect: its values are neither numbers nor times, and none is the id of an "
        f"item, as {show(first)}. Write times as 2024-05-17T12:30:00Z and numbers as 12.90."
    ]


def _typed(
    column: pa.Array, role: str, id_type: pa.DataType, place: Place, name: str, faults: Faults, inferred: bool
) -> pa.Array:
    """The list column with its values typed by `role`; a value that cannot be is a fault.

    inferred: the role is that of most values, so that the others are of another kind.
    """
    flat = column.flatten()
    parents = pc.list_parent_indices(column).to_numpy(zero_copy_only=False)

    def report(bad: np.ndarray) -> None:
        kind = "bad timestamp" if role == "timestamps" else "bad value"
        faults.add_rows(
            "mixed values" if inferred else kind,
            bad,
            lambda value: (
                place(int(parents[value]), name),
                f"{show(flat[value].as_py())} is none of the {role} that this feature holds.",
                "Correct the value, or declare the feature's role in data.roles.",
            ),
        )

    if role == "items":
        same = pa.types.is_string(flat.type) == pa.types.is_string(id_type)
        values = _ids(flat, id_type) if same else pa.nulls(len(flat), id_type)
    elif role == "numbers":
        clock = clock_seconds(flat) if pa.types.is_string(flat.type) else None
        if clock is not None:
            values = clock
        elif pa.types.is_string(flat.type) or pa.types.is_timestamp(flat.type):
            report(np.flatnonzero(flat.is_valid().to_numpy(zero_copy_only=False)))
            values = pa.nulls(len(flat), pa.float64())
        else:
            values = flat.cast(pa.float64(), safe=False)
    elif pa.types.is_timestamp(flat.type):
        values = flat.cast(TIME)
    else:
        text = pa.types.is_string(flat.type)
        values, bad = parse_times(flat) if text else epochs(flat.cast(pa.float64(), safe=False))
        report(bad)
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=column.is_null())


def _ids(values: pa.Array, id_type: pa.DataType) -> pa.Array:
    """Values in the ids' type; numbers that are no whole numbers of 64 bits, and times, are no id."""
    if pa.types.is_floating(values.type):
        numbers = pc.fill_null(values, 0.5).to_numpy(zero_copy_only=False)
        whole = pa.array((numbers == np.floor(numbers)) & (np.abs(numbers) < 2**63))
        return pc.if_else(whole, values, None).cast(id_type)
    if pa.types.is_timestamp(values.type):
        return pa.nulls(len(values), id_type)
    return values.cast(id_type, safe=False)
