"""Python values to Arrow columns, at C speed, with every value that does not belong reported by row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.errors import SHOWN_PER_KIND, Fault

TIME = pa.timestamp("us", "UTC")
ZONE = r"(Z|z|[+-]\d\d(:?\d\d)?)$"
LATEST_SECOND = 1e11
"""Epoch seconds past this (the year 5138) are taken for milliseconds by mistake."""
TEXT, NUMBER = {str}, {int, float}
ALLOWED: dict[str, tuple[set[type], str]] = {
    "text": (TEXT, "a text or a list of texts"),
    "image": (TEXT, "a file name or a list of file names"),
    "categorical": ({str, int, float, bool}, "a category or a list of categories"),
    "continuous": (NUMBER, "a number or a list of numbers"),
    "temporal": ({str, int, float}, "a number, a time or an id, or a list of one of them"),
}


class Faults:
    """Collects faults: the first 20 of each kind, and how many there are of each."""

    def __init__(self) -> None:
        self.shown: list[Fault] = []
        self.counts: Counter[str] = Counter()

    def add(self, kind: str, where: str, what: str, mend: str = "") -> None:
        self.counts[kind] += 1
        if self.counts[kind] <= SHOWN_PER_KIND:
            self.shown.append(Fault(where, what, mend, kind))

    def add_rows(
        self, kind: str, rows: Sequence[int] | np.ndarray, make: Callable[[int], tuple[str, str, str]]
    ) -> None:
        """`make(row)` gives where, what and mend; called for the rows that will be shown alone."""
        if not len(rows):
            return
        room = max(0, SHOWN_PER_KIND - self.counts[kind])
        self.counts[kind] += len(rows)
        self.shown += [Fault(*make(int(row)), kind) for row in rows[:room]]

    def __bool__(self) -> bool:
        return bool(self.counts)


Pointer = Callable[[int], str]
"""Row to JSON pointer."""


def show(value: Any) -> str:
    """A value, short, as it would stand in JSON."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def id_column(values: list[Any], pointer: Pointer, faults: Faults) -> pa.Array:
    """(rows,) int64 or string. Faults: missing, of another kind than an id, of two kinds in one column, empty."""
    kinds = set(map(type, values))
    if kinds <= {int} or kinds <= {str}:
        try:
            column = pa.array(values, pa.int64() if kinds == {int} else pa.string())
        except (pa.ArrowInvalid, OverflowError):
            big = [row for row, value in enumerate(values) if not -(2**63) <= value < 2**63]
            faults.add_rows(
                "bad id",
                big,
                lambda row: (pointer(row), f"the id {values[row]} is past 64 bits.", "Write it as a text."),
            )
            return pa.array([None if row in set(big) else v for row, v in enumerate(values)], pa.int64())
        if kinds == {str}:
            empty = np.flatnonzero(pc.equal(pc.utf8_length(column), 0).to_numpy(zero_copy_only=False))
            faults.add_rows("bad id", empty, lambda row: (pointer(row), "the id is an empty text.", "Give it an id."))
        return column
    wrong = [row for row, value in enumerate(values) if type(value) not in (int, str)]
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
    return pa.array(
        [value if type(value) is common else None for value in values], pa.int64() if common is int else pa.string()
    )


def number_column(values: list[Any], pointer: Pointer, faults: Faults, name: str) -> pa.Array:
    """(rows,) float64 with nulls. Faults: not a number, not finite."""
    wrong = _wrong_rows(values, NUMBER)
    if wrong:
        faults.add_rows(
            "bad value", wrong, lambda row: (pointer(row), f"{name} is a number; found {show(values[row])}.", "")
        )
        values = _without(values, wrong)
    column = _floats(values)
    _check_finite(column, pointer, faults)
    return column


def time_column(values: list[Any], pointer: Pointer, faults: Faults) -> pa.Array:
    """(rows,) times, from ISO 8601 (UTC where no zone is given) or epoch seconds."""
    wrong = _wrong_rows(values, {str, int, float})
    if wrong:
        faults.add_rows(
            "bad timestamp",
            wrong,
            lambda row: (pointer(row), f"a timestamp is ISO 8601 or epoch seconds; found {show(values[row])}.", ""),
        )
        values = _without(values, wrong)
    kinds = set(map(type, values)) - {type(None)}
    mend = "Write it as 2024-05-17T12:30:00Z or as seconds since 1970."
    if kinds <= {str}:
        column, bad = parse_times(pa.array(values, pa.string()))
    elif kinds <= NUMBER:
        column, bad = _epochs(_floats(values))
    else:
        text, bad_text = parse_times(pa.array([v if type(v) is str else None for v in values], pa.string()))
        number, bad_number = _epochs(_floats([v if type(v) is not str else None for v in values]))
        column, bad = pc.coalesce(text, number), np.union1d(bad_text, bad_number).astype(np.int64)
    faults.add_rows("bad timestamp", bad, lambda row: (pointer(row), f"{show(values[row])} is not a time.", mend))
    return column


def parse_times(texts: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Times, and the rows that hold none."""
    try:
        return texts.cast(TIME), np.empty(0, np.int64)  # every one with its zone, as most files have them
    except pa.ArrowInvalid:
        pass
    day_only = pc.fill_null(pc.equal(pc.utf8_length(texts), 10), False)
    zoned = pc.or_kleene(day_only, pc.match_substring_regex(texts, "[T ].*" + ZONE))
    spelled = pc.if_else(zoned, texts, pc.binary_join_element_wise(texts, "Z", ""))
    spelled = pc.if_else(day_only, pc.binary_join_element_wise(texts, "T00:00:00Z", ""), spelled)
    try:
        return spelled.cast(TIME), np.empty(0, np.int64)
    except pa.ArrowInvalid:
        pass
    found: list[datetime | None] = []
    for text in texts.to_pylist():  # one of them is odd: only now is each looked at alone
        try:
            time = None if text is None else datetime.fromisoformat(text)
            found.append(time if time is None or time.tzinfo else time.replace(tzinfo=timezone.utc))
        except ValueError:
            found.append(None)
    column = pa.array(found, TIME)
    bad = np.flatnonzero(pc.and_(column.is_null(), texts.is_valid()).to_numpy(zero_copy_only=False))
    return column, bad


def feature_column(group: str, values: list[Any], pointer: Pointer, faults: Faults) -> pa.Array:
    """(rows,) of the type that `Dataset` documents for the group; temporal ones still await their role."""
    if group not in ALLOWED:
        return _inferred(values, pointer, faults)
    kinds, expected = ALLOWED[group]
    listed = list in set(map(type, values))
    wrong = _wrong_rows(values, kinds | {list})
    if listed:
        inner = set(map(type, chain.from_iterable(value for value in values if type(value) is list)))
        if not inner <= kinds | {type(None)}:
            wrong += [
                row
                for row, value in enumerate(values)
                if type(value) is list and not set(map(type, value)) <= kinds | {type(None)}
            ]
    if wrong:
        faults.add_rows(
            "bad value",
            sorted(wrong),
            lambda row: (pointer(row), f"a {group} feature is {expected}; found {show(values[row])}.", ""),
        )
        values = _without(values, wrong)
    if group == "temporal" or listed:
        values = [value if type(value) is list or value is None else [value] for value in values]
        flat = list(chain.from_iterable(value for value in values if value is not None))
        column = _flat(group, flat)
        lengths = [0 if value is None else len(value) for value in values]
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
        mask = pa.array([value is None for value in values], pa.bool_())
        column = pa.ListArray.from_arrays(offsets, column, mask=mask)
    else:
        column = _flat(group, values)
    _check_finite(column, pointer, faults)
    return column


def _flat(group: str, values: list[Any]) -> pa.Array:
    if group in ("text", "image"):
        return pa.array(values, pa.string())
    if group == "continuous":
        return _floats(values)
    kinds = set(map(type, values)) - {type(None)}
    if kinds <= {str}:
        return pa.array(values, pa.string())
    if group == "temporal":
        if kinds <= {int}:
            try:
                return pa.array(values, pa.int64())
            except (pa.ArrowInvalid, OverflowError):
                return _floats(values)
        return (
            _floats(values)
            if kinds <= NUMBER
            else pa.array([None if v is None else str(v) for v in values], pa.string())
        )
    return pa.array([_category(value) for value in values], pa.string())


def _category(value: Any) -> str | None:
    """Categories are texts: 2 and 2.0 are "2", true is "true"."""
    if value is None or type(value) is str:
        return value
    if type(value) is bool:
        return "true" if value else "false"
    return str(int(value)) if type(value) is float and value.is_integer() else str(value)


def _inferred(values: list[Any], pointer: Pointer, faults: Faults) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        common = Counter(map(type, (v for v in values if v is not None))).most_common(1)[0][0]
        wrong = [row for row, value in enumerate(values) if value is not None and type(value) is not common]
        if not wrong:
            faults.add("bad value", pointer(0), f"this feature's values do not go together: {error}.")
        faults.add_rows(
            "bad value",
            wrong,
            lambda row: (
                pointer(row),
                f"most values here are of type {common.__name__}; found {show(values[row])}.",
                "",
            ),
        )
        return pa.nulls(len(values))


def _floats(values: list[Any]) -> pa.Array:
    try:
        return pa.array(values, pa.float64())
    except (pa.ArrowInvalid, OverflowError):  # whole numbers past 64 bits
        return pa.array([None if value is None else _float(value) for value in values], pa.float64())


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def _epochs(seconds: pa.Array) -> tuple[pa.Array, np.ndarray]:
    values = pc.fill_null(seconds, 0.0).to_numpy(zero_copy_only=False)
    bad = ~(np.abs(values) < LATEST_SECOND)
    micro = np.round(np.where(bad, 0.0, values) * 1e6).astype(np.int64)
    mask = bad | seconds.is_null().to_numpy(zero_copy_only=False)
    return pa.array(micro, mask=mask).cast(pa.timestamp("us")).cast(TIME), np.flatnonzero(bad)


def _check_finite(column: pa.Array, pointer: Pointer, faults: Faults) -> None:
    flat = column.flatten() if pa.types.is_list(column.type) else column
    if not pa.types.is_floating(flat.type):
        return
    odd = pc.fill_null(pc.invert(pc.is_finite(flat)), False).to_numpy(zero_copy_only=False)
    if not odd.any():
        return
    rows = np.flatnonzero(odd)
    if pa.types.is_list(column.type):
        rows = np.unique(pc.list_parent_indices(column).to_numpy(zero_copy_only=False)[rows])
    faults.add_rows(
        "not finite",
        rows,
        lambda row: (pointer(row), "NaN and infinity are not data.", "Leave the value out, or write null."),
    )


def _wrong_rows(values: list[Any], allowed: set[type]) -> list[int]:
    if set(map(type, values)) <= allowed | {type(None)}:
        return []
    return [row for row, value in enumerate(values) if value is not None and type(value) not in allowed]


def _without(values: list[Any], rows: list[int]) -> list[Any]:
    out = list(values)
    for row in rows:
        out[row] = None
    return out
