"""Ids of several tables in one type, without changing any: leading zeros, 64-bit numbers, numbers written as 12.0."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.core.values import show
from anyrec.data.formats.arrow_types import UnreadableType, plain
from anyrec.data.formats.at import At
from anyrec.data.formats.csv_file import WHOLE

NO_ID = ("", "NULL", "\\N")
"""Texts of formats without types that stand for a missing id. NA can be an id."""
FLOATS = r"^-?(?:0|[1-9][0-9]{0,17})\.0*$"
BLOCK = 1 << 20
"""Ids that are trimmed at a time."""
EXACT = 2**53
"""From here on a float does not hold every whole number."""


@dataclass
class IdColumn:
    """The ids of one table.

    Attributes:
        values: (rows,) The ids.
        untyped: Whether they are texts because their format has no types.
        mixed: Rows of a rarer type, if they are texts because there were several types.
        at: Where they come from.
    """

    values: pa.Array
    untyped: bool
    mixed: list[int]
    at: At


def one_type(columns: list[IdColumn]) -> None:
    """Convert the ids of all tables to int64, if every one is written as a whole number, or else leave texts.

    Args:
        columns: The ids of one side in all tables; `values` is replaced.
    """
    for one in columns:
        _prepare(one)
    untyped = [one for one in columns if one.untyped and pa.types.is_string(one.values.type)]
    typed = [one for one in columns if one not in untyped and len(one.values) > one.values.null_count]
    if any(not pa.types.is_integer(one.values.type) for one in typed):
        return
    if all(_all_whole(one.values) for one in untyped):
        for one in untyped:
            one.values = one.values.cast(pa.int64())


def _all_whole(texts: pa.Array) -> bool:
    """Return whether every id is written as a whole number, without leading zeros or spaces."""
    return pa.types.is_string(texts.type) and pc.all(pc.match_substring_regex(texts, WHOLE)).as_py() is not False


def _prepare(one: IdColumn) -> None:
    at = one.at
    try:
        one.values, _ = plain(one.values)
    except UnreadableType as error:
        at.faults.add("bad id", at.name, f"ids are texts or whole numbers; this column holds {error}.", "Convert it.")
        one.values = pa.nulls(len(one.values), pa.string())
    at.faults.add_rows(
        "mixed id types",
        one.mixed,
        lambda row: (
            at.pointer(row),
            f"most ids here are of another type than {show(one.values[row].as_py())}.",
            '1 and "1" are different ids: write all of one kind.',
        ),
    )
    if one.untyped and _all_whole(one.values):
        return
    if pa.types.is_string(one.values.type):
        one.values = _trimmed(one.values, one.untyped, at)
        if one.untyped:
            one.values = _whole_floats(one.values, at)
    elif pa.types.is_floating(one.values.type):
        one.values = _of_floats(one.values, at)


def _trimmed(texts: pa.Array, untyped: bool, at: At) -> pa.Array:
    """Return ids without spaces around them, null for those that stand for a missing id."""
    absent, parts, changed, same = pa.array(NO_ID if untyped else NO_ID[:1]), [], 0, True
    for start in range(0, len(texts), BLOCK):
        part = texts[start : start + BLOCK]
        trimmed = pc.utf8_trim_whitespace(part)
        spaced = pc.sum(pc.not_equal(trimmed, part)).as_py() or 0
        missing = pc.is_in(trimmed, value_set=absent)
        changed += spaced
        if spaced or pc.any(missing).as_py():
            part, same = pc.if_else(missing, pa.scalar(None, pa.string()), trimmed), False
        parts.append(part)
    if changed:
        at.notes.append(f"{at.name}: spaces around {changed:,} ids are cut off.")
    return texts if same else pa.concat_arrays(parts)


def _whole_floats(texts: pa.Array, at: At) -> pa.Array:
    """Return 12.0 as 12 if every id is written as one of both; a data frame writes ids so if one is missing."""
    floats = pc.match_substring_regex(texts, FLOATS)
    if not pc.any(floats).as_py():
        return texts
    if not pc.all(pc.or_(floats, pc.match_substring_regex(texts, WHOLE))).as_py():
        return texts
    shown = texts.filter(pc.fill_null(floats, False))[0].as_py()
    at.notes.append(f"{at.name}: ids such as {shown} are read as the whole number {shown.split('.')[0]}.")
    return pc.replace_substring_regex(texts, r"\.0*$", "")


def _of_floats(values: pa.Array, at: At) -> pa.Array:
    """Return floats as int64 if all are whole numbers that a float holds exactly; others are faults later."""
    numbers = pc.fill_null(values, 0.0).to_numpy(zero_copy_only=False)
    large = np.flatnonzero(np.abs(numbers) >= EXACT)
    at.faults.add_rows(
        "bad id",
        large,
        lambda row: (
            at.pointer(row),
            f"the id {values[row].as_py():.0f} is stored as a float, which does not hold it exactly.",
            "Write ids of this size as whole numbers or texts.",
        ),
    )
    if len(large) or (numbers != np.floor(numbers)).any():
        return values
    if len(values) > values.null_count:
        shown = values.drop_null()[0].as_py()
        at.notes.append(f"{at.name}: ids stored as floats, such as {shown}, are read as whole numbers.")
    return values.cast(pa.int64())
