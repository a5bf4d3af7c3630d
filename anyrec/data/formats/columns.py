"""Python values to Arrow columns, vectorised. Every value of a wrong type is reported by row."""

from __future__ import annotations

import math
from collections import Counter
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.core.types import Json
from anyrec.core.values import show
from anyrec.data.formats.arrow_types import plain
from anyrec.data.formats.faults import Faults
from anyrec.data.formats.nested import NOT_TEXT, check_nested, is_text
from anyrec.data.formats.places import Pointer
from anyrec.data.formats.times import EPOCH, epochs, time_hint, times_of_texts
from anyrec.data.list_columns import as_lists

TEXT, NUMBER = {str}, {int, float}
ALLOWED: dict[str, tuple[set[type], str]] = {
    "text": (TEXT, "a text or a list of texts"),
    "image": (TEXT, "a file name or a list of file names"),
    "categorical": ({str, int, float, bool}, "a category or a list of categories"),
    "continuous": (NUMBER, "a number or a list of numbers"),
    "temporal": ({str, int, float}, "a number, a time or an id, or a list of one of them"),
}
RESERVED = ("history", "identity")
"""Group names that the config uses for the history of users and for ids."""
CONTROL = set(map(chr, range(32))) | {"\x7f"}


def name_fault(group: str, name: str = "x") -> tuple[str, str] | None:
    """Check the name of a group and of a feature.

    Returns:
        The fault and how to fix it; None if both names are valid.
    """
    if group in RESERVED:
        return (
            f"the group name '{group}' is reserved.",
            "Name the group after the plugin that reads it, or as 'temporal'.",
        )
    if not group or "." in group:
        return f"a group's name is not empty and has no dot; found {show(group)}.", "Rename the group."
    if not name:
        return "a feature has an empty name.", "Name it."
    if not is_text((group, name)) or CONTROL & set(group + name):
        shown = name if is_text((group,)) and not CONTROL & set(group) else group
        return f"the name {show(shown)} holds control characters or half characters.", "Rename it."
    return None


def id_column(values: list[Json], pointer: Pointer, faults: Faults, missing_ok: bool = False) -> pa.Array:
    """Convert ids to int64 or string.

    Faults are ids that are missing, empty, neither a text nor a whole number, or of another type than most of the
    column.

    Args:
        values: (rows,) Python values.
        pointer: Where each row's id is in its source.
        faults: Gets the faults.
        missing_ok: Turn None and empty texts into null, which the caller drops, instead of a fault.

    Returns:
        (rows,) int64 or string.
    """
    kinds = set(map(type, values))
    if missing_ok and str in kinds:
        values = [None if value == "" else value for value in values]
        kinds = set(map(type, values))
    if float in kinds:  # 1.0 is the whole number 1
        values = [int(v) if type(v) is float and v.is_integer() and abs(v) <= 2**63 else v for v in values]
        kinds = set(map(type, values))
    if missing_ok:
        kinds -= {type(None)}
    elif kinds == {type(None)} and len(values) > 1:
        what = f"there is no id here, nor in any other of the {len(values):,} records."
        faults.add("bad id", pointer(0), what, "Give each record an id under this name.")
        return pa.nulls(len(values), pa.string())
    if kinds <= {int} and kinds:
        return _whole_ids(values, pointer, faults)
    if kinds <= {str}:
        column = text_column(values, pointer, faults)
        empty = np.flatnonzero(pc.fill_null(pc.equal(column, ""), False).to_numpy(zero_copy_only=False))
        faults.add_rows("bad id", empty, lambda row: (pointer(row), "the id is an empty text.", "Give it an id."))
        return column
    wrong = [row for row, v in enumerate(values) if type(v) not in (int, str) and not (missing_ok and v is None)]
    faults.add_rows(
        "bad id",
        wrong,
        lambda row: (
            pointer(row),
            f"an id is a text or a whole number; found {show(values[row])}.",
            "Write it as one of these.",
        ),
    )
    common = int if sum(type(v) is int for v in values) > sum(type(v) is str for v in values) else str
    other = [row for row, value in enumerate(values) if type(value) in (int, str) and type(value) is not common]
    names = {int: "whole numbers", str: "texts"}
    faults.add_rows(
        "mixed id types",
        other,
        lambda row: (
            pointer(row),
            f"most ids here are {names[common]}; found {show(values[row])}.",
            '1 and "1" are different ids: write all of one kind.',
        ),
    )
    values = [value if type(value) is common else None for value in values]
    return _whole_ids(values, pointer, faults) if common is int else text_column(values, pointer, faults)


def _whole_ids(values: list[Json], pointer: Pointer, faults: Faults) -> pa.Array:
    try:
        return pa.array(values, pa.int64())
    except (pa.ArrowInvalid, OverflowError):
        big = {row for row, value in enumerate(values) if value is not None and not -(2**63) <= value < 2**63}
    faults.add_rows(
        "bad id",
        sorted(big),
        lambda row: (pointer(row), f"the id {show(values[row])} is past 64 bits.", "Write it as a text."),
    )
    return pa.array([None if row in big else v for row, v in enumerate(values)], pa.int64())


def text_column(values: list[Json], pointer: Pointer, faults: Faults) -> pa.Array:
    """Return (rows,) string from texts and None. Half of a surrogate pair is a fault."""
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        wrong = [row for row, value in enumerate(values) if value is not None and not is_text((value,))]
    faults.add_rows(NOT_TEXT[0], wrong, lambda row: (pointer(row), *NOT_TEXT[1:]))
    return pa.array(without(values, wrong), pa.string())


def number_column(values: list[Json], pointer: Pointer, faults: Faults, name: str) -> pa.Array:
    """Return (rows,) float64 with nulls. A value that is not a number, or not finite, is a fault."""
    wrong = _wrong_rows(values, NUMBER)
    if wrong:
        faults.add_rows(
            "bad value", wrong, lambda row: (pointer(row), f"{name} is a number; found {show(values[row])}.", "")
        )
        values = without(values, wrong)
    column = _floats(values)
    check_finite(column, pointer, faults)
    return column


def time_column(values: list[Json], pointer: Pointer, faults: Faults) -> pa.Array:
    """Return (rows,) times of ISO 8601 texts (UTC without a zone) and epoch seconds, which may be mixed."""
    wrong = _wrong_rows(values, {str, int, float})
    if wrong:
        faults.add_rows(
            "bad timestamp",
            wrong,
            lambda row: (
                pointer(row),
                f"a timestamp is ISO 8601 or epoch seconds; found {show(values[row])}.",
                time_hint(None),
            ),
        )
        values = without(values, wrong)
    column, bad = _times(values, pointer, faults)
    faults.add_rows(
        "bad timestamp",
        bad,
        lambda row: (pointer(row), f"{show(values[row])} is not a time.", time_hint(values[row])),
    )
    return column


def _times(values: list[Json], pointer: Pointer, faults: Faults) -> tuple[pa.Array, np.ndarray]:
    """Return the times of texts and numbers, and the rows of values that are no times."""
    kinds = set(map(type, values)) - {type(None)}
    if kinds <= NUMBER and kinds:
        return epochs(_floats(values))
    texts = text_column([v if type(v) is str else None for v in values] if kinds - {str} else values, pointer, faults)
    column, bad = times_of_texts(texts, EPOCH)
    if kinds <= {str}:
        return column, bad
    numbers, bad_numbers = epochs(_floats([v if type(v) is not str else None for v in values]))
    return pc.coalesce(column, numbers), np.union1d(bad, bad_numbers).astype(np.int64)


def feature_column(group: str, values: list[Json], pointer: Pointer, faults: Faults) -> pa.Array:
    """Return (rows,) values of a feature in the type of its group; the role of a temporal feature is applied later.

    Args:
        group: The group of the feature.
        values: (rows,) Python values, None if a row has none.
        pointer: Where each row's value is in its source.
        faults: Gets a fault for each value of another type.
    """
    if group not in ALLOWED:
        return _inferred(values, pointer, faults)
    kinds, expected = ALLOWED[group]
    listed = list in set(map(type, values))
    wrong = _wrong_rows(values, kinds | {list}) + (_wrong_lists(values, kinds) if listed else [])
    if wrong:
        faults.add_rows(
            "bad value",
            sorted(wrong),
            lambda row: (pointer(row), f"a {group} feature is {expected}; found {show(values[row])}.", ""),
        )
        values = without(values, wrong)
    if group == "temporal" or listed:
        column = _list_column(group, values, pointer, faults)
    else:
        column = _flat(group, values, pointer, faults)
    check_finite(column, pointer, faults)
    return column


def _wrong_lists(values: list[Json], kinds: set[type]) -> list[int]:
    """Return the rows of lists that hold a value of a type other than `kinds`."""
    inner = set(map(type, chain.from_iterable(value for value in values if type(value) is list)))
    if inner <= kinds | {type(None)}:
        return []
    return [
        row
        for row, value in enumerate(values)
        if type(value) is list and not set(map(type, value)) <= kinds | {type(None)}
    ]


def _list_column(group: str, values: list[Json], pointer: Pointer, faults: Faults) -> pa.Array:
    """Return lists; a single value becomes a list of one."""
    values = [value if type(value) is list or value is None else [value] for value in values]
    flat = list(chain.from_iterable(value for value in values if value is not None))
    lengths = np.array([0 if value is None else len(value) for value in values], np.int64)
    owners = np.repeat(np.arange(len(values)), lengths)
    column = _flat(group, flat, lambda place: pointer(int(owners[place])), faults)
    return as_lists(column, lengths, pa.array([value is None for value in values], pa.bool_()))


def _flat(group: str, values: list[Json], pointer: Pointer, faults: Faults) -> pa.Array:
    """Return single values in the type of their group."""
    kinds = set(map(type, values)) - {type(None)}
    if group in ("text", "image") or kinds <= {str}:
        return text_column(values, pointer, faults) if group != "continuous" else pa.nulls(len(values), pa.float64())
    if group == "continuous":
        return _floats(values)
    if group == "categorical":
        if float in kinds:
            odd = [row for row, value in enumerate(values) if type(value) is float and not math.isfinite(value)]
            faults.add_rows("not finite", odd, lambda row: (pointer(row), *NOT_FINITE))
            values = without(values, odd)
        return text_column(list(map(category, values)), pointer, faults)
    if kinds <= {int}:
        try:
            return pa.array(values, pa.int64())
        except (pa.ArrowInvalid, OverflowError):
            return _floats(values)
    if kinds <= NUMBER:
        return _floats(values)
    column, bad = _times(values, pointer, faults)
    faults.add_rows(
        "mixed values",
        bad,
        lambda row: (
            pointer(row),
            f"this feature holds texts and numbers, which must all be times; {show(values[row])} is not a time.",
            "Write all of one kind.",
        ),
    )
    return column


def category(value: Json) -> str | None:
    """Return a category as text: 2 and 2.0 are "2", true is "true"."""
    if value is None or type(value) is str:
        return value
    if type(value) is bool:
        return "true" if value else "false"
    return str(int(value)) if type(value) is float and value.is_integer() else str(value)


def _inferred(values: list[Json], pointer: Pointer, faults: Faults) -> pa.Array:
    """Return (rows,) of the type that Arrow infers. All values of one feature must be of one type."""
    values = check_nested(values, pointer, faults)
    try:
        return plain(pa.array(values))[0]
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        pass
    kinds = Counter(map(type, (value for value in values if value is not None)))
    if set(kinds) <= NUMBER:
        return _floats(values)
    common = kinds.most_common(1)[0][0]
    wrong = [row for row, value in enumerate(values) if value is not None and type(value) is not common]
    if not wrong:
        what = "the lists or objects of this feature hold values of several types."
        faults.add("mixed values", pointer(0), what, "Write all of one type.")
    faults.add_rows(
        "mixed values",
        wrong,
        lambda row: (
            pointer(row),
            f"most values here are of type {common.__name__}; found {show(values[row])}.",
            "Write all of one type.",
        ),
    )
    return pa.nulls(len(values), pa.string())


def _floats(values: list[Json]) -> pa.Array:
    """Return (rows,) float64; a whole number beyond the largest float becomes infinity."""
    try:
        return pa.array(values, pa.float64())
    except (pa.ArrowInvalid, OverflowError):  # whole numbers past 64 bits
        return pa.array([None if value is None else _float(value) for value in values], pa.float64())


def _float(value: Json) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf")


NOT_FINITE = ("NaN and infinity are not data.", "Leave the value out, or write null.")


def check_finite(column: pa.Array, pointer: Pointer, faults: Faults) -> None:
    """Add a fault for each row of a float column, or of lists of floats, that holds NaN or infinity."""
    flat = column.flatten() if pa.types.is_list(column.type) else column
    if not pa.types.is_floating(flat.type):
        return
    odd = pc.fill_null(pc.invert(pc.is_finite(flat)), False).to_numpy(zero_copy_only=False)
    if not odd.any():
        return
    rows = np.flatnonzero(odd)
    if pa.types.is_list(column.type):
        rows = np.unique(pc.list_parent_indices(column).to_numpy(zero_copy_only=False)[rows])
    faults.add_rows("not finite", rows, lambda row: (pointer(row), *NOT_FINITE))


def _wrong_rows(values: list[Json], allowed: set[type]) -> list[int]:
    """Return the rows of values whose type is not allowed."""
    if set(map(type, values)) <= allowed | {type(None)}:
        return []
    return [row for row, value in enumerate(values) if value is not None and type(value) not in allowed]


def without(values: list[Json], rows: list[int]) -> list[Json]:
    """Return the values with None in the given rows."""
    out = list(values)
    for row in rows:
        out[row] = None
    return out
