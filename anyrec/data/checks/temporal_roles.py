"""The role of a temporal feature: numbers, timestamps or item ids. It is declared in the config or inferred."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.core.config import DataConfig
from anyrec.core.errors import Fault, did_you_mean
from anyrec.core.values import show
from anyrec.data.formats.faults import Faults
from anyrec.data.formats.places import Place, json_place
from anyrec.data.formats.times import EPOCH, TIME, are_dates, clock_seconds, epochs, times_of_texts
from anyrec.data.ids import rows_of
from anyrec.data.list_columns import as_lists, lengths_of

NOTHING = np.empty(0, np.int64)
EPOCHS = (1e8, 5e9)
"""Whole numbers in this range (1973 to 2128) are read as epoch seconds."""


def apply_roles(
    users: pa.Table,
    items: pa.Table,
    options: DataConfig,
    notes: list[str],
    faults: Faults,
    places: Sequence[Place] | None = None,
    item_ids: pa.Array | None = None,
) -> tuple[pa.Table, pa.Table, dict[str, str]]:
    """Type every temporal column by its role.

    Args:
        users: Table of users.
        items: Table of items.
        options: The config's `data` section; `roles` and `history` declare roles.
        notes: Gets a sentence for each role that is inferred.
        faults: Gets a fault for each value that does not fit its role.
        places: Where the rows of users and items are in their source; by default in a JSON document.
        item_ids: The items that lists of ids refer to; by default those of `items`.

    Returns:
        Both tables, and all roles, those declared for absent features included, as {"user.name": role}.
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
    """Return the temporal features of both tables, as `data.roles` names them (`user.history`)."""
    tables = {"user": users, "item": items}
    return [
        f"{side}.{name.removeprefix('temporal.')}"
        for side, table in tables.items()
        for name in table.column_names
        if name.startswith("temporal.")
    ]


def unknown_roles(roles: Iterable[str], users: pa.Table, items: pa.Table) -> list[Fault]:
    """Return a fault for each declared role (`user.history`) whose feature the data lack."""
    names = temporal_names(users, items)
    what = "the data have no such temporal feature."
    return [
        Fault(f"/data/roles/{name}", what, did_you_mean(name, names), "unknown role")
        for name in roles
        if name not in names
    ]


def infer_role(column: pa.Array, item_ids: pa.Array) -> str:
    """Infer what a temporal feature holds.

    Args:
        column: (rows,) Lists of values.
        item_ids: The ids of the items.

    Returns:
        "items" if all values are ids of items; "timestamps" for times, epoch seconds or dates as YYYYMMDD; otherwise
        "numbers", which include times of day (as seconds since midnight).
    """
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
        _, bad = times_of_texts(values, EPOCH)
        return "timestamps" if len(bad) <= len(values) / 2 else "items"
    bounds = pc.min_max(values)
    inside = EPOCHS[0] <= bounds["min"].as_py() and bounds["max"].as_py() <= EPOCHS[1]
    return "timestamps" if inside or are_dates(values) else "numbers"


def _no_item_named(name: str, column: pa.Array, item_ids: pa.Array) -> list[str]:
    """Return a warning if no value of a feature that is read as item ids is the id of an item.

    Such a feature has no effect.
    """
    values = column.flatten().drop_null()
    if not len(item_ids) or (rows_of(values, item_ids) >= 0).any():
        return []
    odd = values.filter(pc.invert(pc.match_substring_regex(values, r"^[-+]?[0-9.]+$")))
    first = (odd if len(odd) else values)[0].as_py()
    return [
        f"The temporal feature '{name}' has no effect: its values are neither numbers nor times, and none is the id of "
        f"an item, for example {show(first)}. Write times as 2024-05-17T12:30:00Z and numbers as 12.90."
    ]


def _typed(
    column: pa.Array, role: str, id_type: pa.DataType, place: Place, name: str, faults: Faults, inferred: bool
) -> pa.Array:
    """Return the list column with its values typed by `role`; a value that cannot be typed is a fault.

    Args:
        column: (rows,) Lists of values.
        role: What the feature holds.
        id_type: The type of item ids.
        place: Where each row is in its source.
        name: The name of the column.
        faults: Gets the faults.
        inferred: Whether the role is inferred from most of the values, which makes the other values a mixture.
    """
    flat = column.flatten()
    if role == "items":
        same = pa.types.is_string(flat.type) == pa.types.is_string(id_type)
        values, bad = _ids(flat, id_type) if same else pa.nulls(len(flat), id_type), NOTHING
    else:
        values, bad = _numbers(flat) if role == "numbers" else _timestamps(flat)
    if len(bad):
        kind = "mixed values" if inferred else "bad timestamp" if role == "timestamps" else "bad value"
        parents = pc.list_parent_indices(column).to_numpy(zero_copy_only=False)
        faults.add_rows(
            kind,
            bad,
            lambda value: (
                place(int(parents[value]), name),
                f"{show(flat[value].as_py())} is none of the {role} that this feature holds.",
                "Correct the value, or declare the feature's role in data.roles.",
            ),
        )
    return as_lists(values, lengths_of(column), column.is_null())


def _numbers(values: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Return float64 values, times of day as seconds since midnight, and the positions of other values."""
    clock = clock_seconds(values) if pa.types.is_string(values.type) else None
    if clock is not None:
        return clock, NOTHING
    if pa.types.is_string(values.type) or pa.types.is_timestamp(values.type):
        return pa.nulls(len(values), pa.float64()), np.flatnonzero(values.is_valid().to_numpy(zero_copy_only=False))
    return values.cast(pa.float64(), safe=False), NOTHING


def _timestamps(values: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Return times, and the positions of values that are no times."""
    if pa.types.is_timestamp(values.type):
        return values.cast(TIME), NOTHING
    if pa.types.is_string(values.type):
        return times_of_texts(values)
    return epochs(values.cast(pa.float64(), safe=False))


def _ids(values: pa.Array, id_type: pa.DataType) -> pa.Array:
    """Return values in the type of the ids. Numbers that are not whole or exceed 64 bits, and times, become null."""
    if pa.types.is_floating(values.type):
        numbers = pc.fill_null(values, 0.5).to_numpy(zero_copy_only=False)
        whole = pa.array((numbers == np.floor(numbers)) & (np.abs(numbers) < 2**63))
        return pc.if_else(whole, values, None).cast(id_type)
    if pa.types.is_timestamp(values.type):
        return pa.nulls(len(values), id_type)
    return values.cast(id_type, safe=False)
