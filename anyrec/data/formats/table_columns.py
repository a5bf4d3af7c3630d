"""Columns of tables (CSV, Parquet, data frames) in the types of `Tables`. Every fault is reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.core.errors import did_you_mean, suggestion
from anyrec.core.scratch import Scratch, kept
from anyrec.core.values import show
from anyrec.data.formats.arrow_types import UnreadableType, plain
from anyrec.data.formats.at import At
from anyrec.data.formats.columns import (
    NOT_FINITE,
    category,
    check_finite,
    feature_column,
    id_column,
    name_fault,
    number_column,
    time_column,
    without,
)
from anyrec.data.formats.faults import Faults
from anyrec.data.formats.places import Place, column_of
from anyrec.data.formats.times import NUMERAL, TIME, cast_numerals, epochs, iso, time_hint, times_of_texts
from anyrec.data.ids import ID_COLUMNS, Side
from anyrec.data.list_columns import as_lists, lengths_of

FIELDS = ("interaction_type", "timestamp", "weight", "rating", "label")
NUMBER = f"^{NUMERAL}$"
COLUMN_NAMES = "a feature's column is named group.name, for example text.title."
DOUBLED = ("this column is there twice.", "Keep one of them, or rename it.")
Column = pa.Array | list[object]
"""An Arrow array, or Python values for a data frame's column of several types."""
Columns = list[tuple[str, Column]]
"""Columns by name; a name may be there twice, which is a fault."""


def normalised(
    columns: Columns,
    rows: int,
    side: Side | Literal[""],
    source: str,
    place: Place,
    faults: Faults,
    notes: list[str],
    *,
    missing_ok: bool = False,
    item_ids: pa.Array | None = None,
    scratch: Scratch | None = None,
) -> pa.Table:
    """Convert the columns of a table to the types of `Tables`.

    Args:
        columns: The columns by name.
        rows: The number of rows.
        side: The side of the records; empty for interactions.
        source: The name of the file or the part, for messages.
        place: Where each row is in its source.
        faults: Gets the faults.
        notes: Gets what the user should know: columns that are not used or empty.
        missing_ok: Keep a null id for an interaction without a user or an item, which the caller drops.
        item_ids: Texts among which numerals of a temporal column are ids instead of numbers.
        scratch: Where the columns are kept, one by one, if they do not fit into memory.
    """
    keys = (f"{side}_id",) if side else ID_COLUMNS
    made: dict[str, pa.Array] = {}
    names = [name for name, _ in columns]
    for key in keys:
        if key not in names:
            faults.add("shape", f"{source}: {key}", "this column is missing.", did_you_mean(key, names))
            made[key] = pa.nulls(rows, pa.string())
    for name, column in columns:
        where = f"{source}: {name if name.isprintable() else show(name)}"
        if name in made:
            faults.add("doubled column", where, *DOUBLED)
            continue
        group, dot, field = name.partition(".")
        known = name in keys or (not side and name in FIELDS)
        if not known and not (dot and field):
            part = f"{side}s" if side else "interactions"
            near = "" if side else suggestion(name, (*ID_COLUMNS, *FIELDS))
            notes.append(f"The column '{name}' of {part} is not used: {COLUMN_NAMES} {near}".rstrip())
            continue
        if not known and (fault := name_fault(group, field)):
            faults.add("bad name", where, *fault)
            continue
        at = At(name, where, column_of(place, name), faults, notes)
        column = column if isinstance(column, list) else _plain(column, at)
        if name in keys:
            made[name] = kept(_ids(column, at, missing_ok), scratch)
        elif _is_empty(column):
            if not known:
                notes.append(f"The {side or 'interaction'} feature '{name}' has a value in no record and is left out.")
        else:
            made[name] = kept(_field(name, column, at) if known else _feature(group, column, at, item_ids), scratch)
    return pa.table(made)


def _is_empty(column: Column) -> bool:
    if isinstance(column, list):
        return all(value is None for value in column)
    return column.null_count == len(column)


def _plain(column: pa.Array, at: At) -> pa.Array:
    """Return the column in a type that the engine uses; all null if its type is not supported, which is a fault."""
    try:
        column, bad = plain(column)
    except UnreadableType as error:
        what = f"this column holds {error}, which is no text, number, time, list or object."
        at.faults.add("column type", at.where, what, "Convert it.")
        return pa.nulls(len(column), pa.string())
    at.faults.add_rows(
        "bad timestamp",
        bad,
        lambda row: (at.pointer(row), "this time is outside the years 1 to 9999.", time_hint(None)),
    )
    return column


def _wrong_type(column: pa.Array, wanted: str, at: At, result: pa.DataType) -> pa.Array:
    """Add a fault for a column of a wrong type, and return a column of nulls."""
    at.faults.add(
        "column type", at.where, f"{wanted}; this column holds {column.type}.", "Convert it, or name another group."
    )
    return pa.nulls(len(column), result)


def _ids(column: Column, at: At, missing_ok: bool) -> pa.Array:
    """Return ids as int64 or string."""
    if isinstance(column, list):
        return id_column(column, at.pointer, at.faults, missing_ok)
    if pa.types.is_floating(column.type):  # data frames turn whole numbers into floats if one is missing
        values = pc.fill_null(column, 0.0).to_numpy(zero_copy_only=False)
        if not ((values == np.floor(values)) & (np.abs(values) < 2**63)).all():
            return id_column(column.to_pylist(), at.pointer, at.faults, missing_ok)
        column = column.cast(pa.int64())
    elif pa.types.is_uint64(column.type):
        return id_column(column.to_pylist(), at.pointer, at.faults, missing_ok)
    elif not (pa.types.is_integer(column.type) or pa.types.is_string(column.type)):
        at.faults.add(
            "bad id", at.where, f"ids are texts or whole numbers; this column holds {column.type}.", "Convert it."
        )
        return pa.array([""] * len(column), pa.string())
    if missing_ok and pa.types.is_string(column.type):
        column = pc.if_else(pc.equal(column, ""), None, column)
    if not missing_ok:
        missing = np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))
        at.faults.add_rows("bad id", missing, lambda row: (at.pointer(row), "the id is missing.", "Give it an id."))
    if pa.types.is_string(column.type):
        empty = np.flatnonzero(pc.fill_null(pc.equal(column, ""), False).to_numpy(zero_copy_only=False))
        at.faults.add_rows("bad id", empty, lambda row: (at.pointer(row), "the id is an empty text.", "Give it an id."))
    return column


def _field(name: str, column: Column, at: At) -> pa.Array:
    """Return a column of the interactions that is no feature in its type."""
    if name == "interaction_type":
        return _texts("categorical", column, at)
    if isinstance(column, list):
        if name == "timestamp":
            return time_column(column, at.pointer, at.faults)
        return number_column(column, at.pointer, at.faults, name)
    if name == "timestamp":
        return _times(column, at)
    return _numbers(column, f"{name} is a number", at)


def _times(column: pa.Array, at: At) -> pa.Array:
    """Return times of timestamps, ISO 8601 texts, epoch seconds and numerals, which may be mixed with texts."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        return column
    if pa.types.is_string(kind):
        made, bad = times_of_texts(column)
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
        made, bad = epochs(_as_floats(column) if pa.types.is_uint64(kind) else column)
    else:
        return _wrong_type(column, "a timestamp is ISO 8601 or epoch seconds", at, TIME)

    def wrong(row: int) -> tuple[str, str, str]:
        value = column[row].as_py()
        return at.pointer(row), f"{show(value)} is not a time.", time_hint(value)

    at.faults.add_rows("bad timestamp", bad, wrong)
    return made


def _as_floats(column: pa.Array) -> pa.Array:
    return column.cast(pa.float64(), safe=False)


def _numbers(column: pa.Array, wanted: str, at: At) -> pa.Array:
    """Return (rows,) float64 of numbers, booleans and numerals."""
    kind = column.type
    if pa.types.is_string(kind):
        try:
            made = column.cast(pa.float64())
        except pa.ArrowInvalid:
            trimmed = pc.utf8_trim_whitespace(column)
            good = pc.fill_null(pc.match_substring_regex(trimmed, NUMBER), False)
            bad = np.flatnonzero(pc.and_(column.is_valid(), pc.invert(good)).to_numpy(zero_copy_only=False))
            at.faults.add_rows(
                "bad value",
                bad,
                lambda row: (
                    at.pointer(row).rsplit(", column", 1)[0],
                    f"{show(column[row].as_py())} is not a number; the column '{at.name}' holds numbers.",
                    "Write it as 12.90, or leave the cell empty.",
                ),
            )
            made = cast_numerals(pc.if_else(good, trimmed, None))
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        made = _as_floats(column)
    else:
        return _wrong_type(column, wanted, at, pa.float64())
    odd = np.flatnonzero(pc.invert(pc.fill_null(pc.is_finite(made), True)).to_numpy(zero_copy_only=False))
    at.faults.add_rows("not finite", odd, lambda row: (at.pointer(row), *NOT_FINITE))
    return pc.if_else(pc.is_finite(made), made, None) if len(odd) else made


def _feature(group: str, column: Column, at: At, item_ids: pa.Array | None) -> pa.Array:
    """Return a feature's column in the type of its group."""
    if isinstance(column, list):
        if group == "categorical":
            column = _of_one_kind(column, at)
        return feature_column(group, column, at.pointer, at.faults)
    if group not in ("text", "image", "categorical", "continuous", "temporal"):
        column = _as_floats(column) if pa.types.is_uint64(column.type) else column
        check_finite(column, at.pointer, at.faults)
        return column
    if not pa.types.is_list(column.type):
        values = _values(group, column, at, item_ids)
        if group != "temporal":
            return values
        lengths = column.is_valid().to_numpy(zero_copy_only=False)
        return as_lists(values.filter(column.is_valid()), lengths, column.is_null())
    owners = pc.list_parent_indices(column).to_numpy(zero_copy_only=False)
    of_values = replace(at, pointer=lambda place: at.pointer(int(owners[place])))
    flat = _values(group, column.flatten(), of_values, item_ids)
    return as_lists(flat, lengths_of(column), column.is_null())


def _of_one_kind(values: list[object], at: At) -> list[object]:
    """Return a data frame's categories; a value that is a text if the first is a number, or the reverse, is a fault.

    In a typed table a mixture is a mistake of the program that made it, while JSON has one type for each value.
    """
    first = next((value for value in values if isinstance(value, (str, int, float))), None)
    wrong = [
        row
        for row, value in enumerate(values)
        if isinstance(value, (str, int, float)) and isinstance(value, str) != isinstance(first, str)
    ]
    at.faults.add_rows(
        "mixed values",
        wrong,
        lambda row: (
            at.pointer(row),
            f"this column mixes texts and numbers: the first value is {show(first)}, this one {show(values[row])}.",
            "Convert the column, with astype(str) say.",
        ),
    )
    return without(values, wrong)


def _values(group: str, column: pa.Array, at: At, item_ids: pa.Array | None) -> pa.Array:
    """Return the values of a feature, those of lists one after another, in the type of its group."""
    if group == "continuous":
        return _numbers(column, "a continuous feature holds numbers", at)
    if group != "temporal":
        return _texts(group, column, at)
    kind = column.type
    if pa.types.is_string(kind):
        if item_ids is not None and pc.all(pc.is_in(column.drop_null(), value_set=item_ids)).as_py():
            return column
        numerals = pc.match_substring_regex(column, NUMBER)
        if pc.any(numerals).as_py() and pc.all(numerals).as_py():
            return _cast_whole(column)
        return column
    if pa.types.is_boolean(kind) or pa.types.is_nested(kind):
        return _wrong_type(column, "a temporal feature holds numbers, times or ids", at, pa.float64())
    column = _as_floats(column) if pa.types.is_uint64(kind) else column
    check_finite(column, at.pointer, at.faults)
    return column


def _cast_whole(texts: pa.Array) -> pa.Array:
    try:
        return texts.cast(pa.int64())
    except pa.ArrowInvalid:
        return cast_numerals(texts)


def _texts(group: str, column: Column, at: At) -> pa.Array:
    """Return a column as texts."""
    if isinstance(column, list):
        return feature_column("categorical", column, at.pointer, at.faults)
    kind = column.type
    if pa.types.is_string(kind):
        return column
    if group == "categorical" and pa.types.is_floating(kind):
        check_finite(column, at.pointer, at.faults)
        return _mapped(pc.if_else(pc.is_finite(column), column, None), category)
    if group == "categorical" and pa.types.is_timestamp(kind):
        return _mapped(column, iso)
    if group == "categorical" and (pa.types.is_boolean(kind) or pa.types.is_integer(kind)):
        return column.cast(pa.string())
    return _wrong_type(column, f"{at.name} holds texts", at, pa.string())


def _mapped(column: pa.Array, make: Callable[[Any], str | None]) -> pa.Array:
    """Return `make(value)` for each value; `make` is called once for each distinct value."""
    coded = column.dictionary_encode()
    texts = pa.array([None if value is None else make(value) for value in coded.dictionary.to_pylist()], pa.string())
    return texts.take(coded.indices)
