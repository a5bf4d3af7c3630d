"""The changes of a column's values that the config declares, each on the whole column.

The functions take and return (rows,) arrays of single values; `transformed` applies them to the values of lists too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.core.config.sources import Cell, ColumnConfig
from anyrec.core.errors import ConfigError, Fault
from anyrec.core.values import show
from anyrec.data.formats.arrow_types import UnreadableType, plain
from anyrec.data.formats.at import At
from anyrec.data.formats.columns import category
from anyrec.data.formats.faults import Faults
from anyrec.data.list_columns import as_lists, flat, is_list, lengths_of
from anyrec.data.sources.json_stream import JsonFault, parse_values
from anyrec.data.sources.moments import as_times
from anyrec.data.sources.python_text import python_column_as_json

NUMERIC = ("continuous", "rating", "weight", "label")
"""Roles and groups whose values are numbers."""
YEAR = r"(?:^|\D)((?:1[5-9]|20)[0-9]{2})(?:\D|$)"
TRUE = ("1", "true", "t", "yes", "y", "on")
FALSE = ("0", "false", "f", "no", "n", "off")
CURRENCY = r"^[\s\p{Sc}]*(?:[A-Z]{3}\s)?\s*|\s*(?:[A-Z]{3})?[\s\p{Sc}%]*$"
SPACES = "[\\s'\u2019\u00a0\u202f]"
"""What may group the digits of a number, apart from the other decimal mark."""
NUMERAL = {
    ".": r"^[+-]?(?:(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$",
    ",": r"^[+-]?(?:(?:[0-9]{1,3}(?:\.[0-9]{3})+|[0-9]+)(?:,[0-9]*)?|,[0-9]+)(?:[eE][+-]?[0-9]+)?$",
}
"""Numbers with each decimal mark; the other mark groups thousands, or is not there."""


def transformed(
    column: pa.Array, spec: ColumnConfig, appended: list[pa.Array], decimal: Literal[".", ","], untyped: bool, at: At
) -> pa.Array:
    """Apply the changes that a column declares, in the order of the config's keys, except `explode` and `aggregate`.

    Args:
        column: (rows,) Any type.
        spec: The changes.
        appended: The columns that `append` names.
        decimal: Decimal mark of the table's texts.
        untyped: Whether the column's type is text because its format has no types.
        at: Where the column comes from.
    """
    target = spec.to.split(".")
    kind = target[-2] if len(target) > 1 else target[-1]
    if appended:
        texts = [as_text(one, at) for one in (column, *appended)]
        joined = pc.binary_join_element_wise(*texts, spec.joiner, null_handling="skip")
        column = _or_null(joined, pc.not_equal(joined, ""))
    if spec.remove is not None:
        column = _each(column, lambda values: _removed(as_text(values, at), spec.remove or "", at))
    if spec.extract is not None:
        pattern = YEAR if spec.extract == "year" else spec.extract
        column = _each(column, lambda values: _extracted(as_text(values, at), pattern, at))
    if spec.json_list:
        column = _lists_of_json(column, at)
    if spec.split is not None:
        column = _split(as_text(column, at), spec.split)
    if spec.values:
        column = _each(column, lambda values: _mapped(as_text(values, at), spec.values, kind in NUMERIC))
        column = _without_missing(column) if is_list(column.type) else column
    if spec.boolean:
        column = _with_rows(column, at, _booleans)
    mark = spec.decimal or (decimal if untyped and kind in NUMERIC and decimal != "." else None)
    if mark is not None:
        column = _with_rows(column, at, lambda values, inner: _numbers(values, mark, inner))
    if spec.time is not None or kind == "timestamp":
        column = _with_rows(column, at, lambda values, inner: as_times(values, spec.time, spec.zone, inner))
    return column


def as_text(column: pa.Array, at: At) -> pa.Array:
    """Return values as texts: whole numbers without a fraction, booleans as true and false.

    A column whose type has no text is a fault.
    """
    try:
        column, _ = plain(column)
    except UnreadableType as error:
        at.faults.add("column type", at.name, f"this column holds {error}, which is no text.", "Leave it out.")
        return pa.nulls(len(column), pa.string())
    if pa.types.is_floating(column.type):
        coded = column.dictionary_encode()
        texts = pa.array([None if one is None else category(one) for one in coded.dictionary.to_pylist()], pa.string())
        return texts.take(coded.indices)
    if is_list(column.type) or pa.types.is_struct(column.type):
        what = f"this column holds {column.type}, and single values are needed here."
        at.faults.add("column type", at.name, what, "Name a field of it, as in outer.inner, or leave it out.")
        return pa.nulls(len(column), pa.string())
    return column.cast(pa.string())


def numerals(column: pa.Array, at: At, required: bool) -> pa.Array:
    """Return a column as float64 if all its texts are numbers.

    Args:
        column: (rows,) Any type.
        at: Where the column comes from.
        required: Whether texts that are no numbers are faults; otherwise the column stays as it is.
    """
    if not (required or pa.types.is_string(column.type)):
        return column
    found = Faults()
    inner = replace(at, faults=at.faults if required else found)
    made = _numbers(column, ".", inner)
    return column if found else made


def _each(column: pa.Array, change: Callable[[pa.Array], pa.Array]) -> pa.Array:
    """Change single values, or the values of lists."""
    if not is_list(column.type):
        return change(column)
    return as_lists(change(column.flatten()), lengths_of(column), column.is_null())


def _with_rows(column: pa.Array, at: At, change: Callable[[pa.Array, At], pa.Array]) -> pa.Array:
    """Change single values, or the values of lists, with faults at the right rows."""
    if not is_list(column.type):
        return change(column, at)
    owners = pc.list_parent_indices(column).to_numpy(zero_copy_only=False)
    inner = At(at.name, at.where, lambda place: at.pointer(int(owners[place])), at.faults, at.notes)
    return as_lists(change(column.flatten(), inner), lengths_of(column), column.is_null())


def _or_null(values: pa.Array, keep: pa.Array) -> pa.Array:
    return pc.if_else(pc.fill_null(keep, False), values, pa.scalar(None, values.type))


def _replaced(texts: pa.Array, pattern: str, by: str, at: At) -> pa.Array:
    try:
        return pc.replace_substring_regex(texts, pattern, by)
    except pa.ArrowInvalid as error:
        reason = str(error).splitlines()[0].rstrip(".")
        hint = "Write a regular expression of RE2 (https://github.com/google/re2/wiki/Syntax)."
        raise ConfigError(Fault(at.where, f"{reason}.", hint, "bad value")) from None


def _removed(texts: pa.Array, pattern: str, at: At) -> pa.Array:
    cut = pc.utf8_trim_whitespace(_replaced(texts, pattern, "", at))
    return _or_null(cut, pc.not_equal(cut, ""))


def _extracted(texts: pa.Array, pattern: str, at: At) -> pa.Array:
    """Return the last match of a pattern's group in each text, null without a match."""
    whole = f"^(?s:.*)(?:{pattern})(?s:.*)$"
    found = _replaced(texts, whole, r"\1", at)
    return _or_null(found, pc.match_substring_regex(texts, whole))


def _without_missing(lists: pa.Array) -> pa.Array:
    """Return lists without missing values; null if nothing is left."""
    values, owners = flat(lists)
    lengths = np.bincount(owners, minlength=len(lists))
    return as_lists(values, lengths, pa.array(lengths == 0))


def _split(texts: pa.Array, separator: str) -> pa.Array:
    """Return lists of the parts that are not empty, without spaces at their ends; null if there is none."""
    lists = pc.split_pattern(texts, separator)
    values = pc.utf8_trim_whitespace(lists.flatten())
    filled = pc.not_equal(values, "").to_numpy(zero_copy_only=False)
    owners = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
    lengths = np.bincount(owners[filled], minlength=len(texts))
    return as_lists(values.filter(pa.array(filled)), lengths, pa.array(lengths == 0))


def _mapped(texts: pa.Array, values: Mapping[str, Cell], numeric: bool) -> pa.Array:
    """Return new values for the texts that are keys, as texts, and the others as they are."""
    place = pc.index_in(texts, value_set=pa.array(list(values), pa.string()))
    new = pa.array([_cell_text(value, numeric) for value in values.values()], pa.string())
    return pc.if_else(place.is_valid(), new.take(place), texts)


def _cell_text(value: Cell, numeric: bool) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(int(value)) if numeric else str(value).lower()
    return msgspec.json.encode(value).decode()


def _booleans(column: pa.Array, at: At) -> pa.Array:
    """Return bool; texts that are neither yes nor no are faults."""
    if pa.types.is_boolean(column.type):
        return column
    texts = pc.utf8_lower(pc.utf8_trim_whitespace(as_text(column, at)))
    yes = pc.is_in(texts, value_set=pa.array(TRUE))
    known = pc.or_(yes, pc.is_in(texts, value_set=pa.array(FALSE)))
    _add_bad(column, pc.and_(texts.is_valid(), pc.invert(known)), "is neither yes nor no", at)
    return _or_null(yes, known)


def _numbers(column: pa.Array, mark: str, at: At) -> pa.Array:
    """Return float64 of texts with a decimal mark; texts that are no numbers are faults."""
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_decimal(column.type):
        return column.cast(pa.float64(), safe=False)
    texts = as_text(column, at)
    bare = pc.replace_substring_regex(pc.replace_substring_regex(texts, CURRENCY, ""), SPACES, "")
    good = pc.match_substring_regex(bare, NUMERAL[mark])
    hint = f"Numbers are read with {mark!r} as the decimal mark."
    _add_bad(column, pc.and_(texts.is_valid(), pc.invert(good)), "is not a number", at, hint)
    digits = pc.replace_substring(bare, "," if mark == "." else ".", "")
    numerals = pc.utf8_ltrim(pc.replace_substring(digits, ",", "."), "+")
    return _or_null(numerals, good).cast(pa.float64())


def _add_bad(column: pa.Array, bad: pa.Array, what: str, at: At, hint: str = "") -> None:
    rows = np.flatnonzero(pc.fill_null(bad, False).to_numpy(zero_copy_only=False))
    at.faults.add_rows(
        "bad value", rows, lambda row: (at.pointer(row), f"{show(column[row].as_py())} {what}.", hint or "Correct it.")
    )


def _lists_of_json(column: pa.Array, at: At) -> pa.Array:
    """Parse cells that are lists in JSON or as Python prints them; a single value is a list of one."""
    if is_list(column.type):
        return column
    texts = as_text(column, at)
    try:
        return parse_values(texts)
    except JsonFault:
        pass
    try:
        return parse_values(python_column_as_json(texts))
    except JsonFault as error:
        rows = error.rows
    at.faults.add_rows(
        "bad value",
        rows,
        lambda row: (at.pointer(row), f"{show(texts[row].as_py())} is no list.", 'Write it as ["a", "b"].'),
    )
    return pa.nulls(len(column), pa.list_(pa.string()))
