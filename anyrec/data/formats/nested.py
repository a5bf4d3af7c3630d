"""Values of any shape (plugins' groups, contexts, unused keys), checked level by level at C speed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import chain

from anyrec.core.types import Json, JsonObject
from anyrec.core.values import is_unicode
from anyrec.data.formats.faults import Faults
from anyrec.data.formats.places import Pointer

DEEPEST = 4
"""The most levels of lists and objects. Deeper values are not features."""
SCALARS = {str, int, float, bool, type(None)}


def objects_and_lists(values: list[Json]) -> tuple[list[JsonObject], list[list[Json]]]:
    """Return the objects and the lists among the values."""
    kinds = set(map(type, values))
    objects = values if kinds == {dict} else [value for value in values if type(value) is dict] if dict in kinds else []
    return objects, [value for value in values if type(value) is list] if list in kinds else []


def inside(objects: list[JsonObject], lists: list[list[Json]]) -> list[Json]:
    """Return the values that the objects and lists hold."""
    return list(chain(chain.from_iterable(lists), chain.from_iterable(map(dict.values, objects))))


def check_nested(values: list[Json], pointer: Pointer, faults: Faults) -> list[Json]:
    """Replace values that are nested too deeply, not finite or no Unicode text by None.

    Args:
        values: (rows,) JSON values.
        pointer: Where each row's value is in its source.
        faults: Gets a fault for each replaced value.
    """
    if not _fault_of(values):
        return values
    wrong = {row: fault for row, value in enumerate(values) if (fault := _fault_of([value]))}
    for kind in sorted({fault[0] for fault in wrong.values()}):
        rows = [row for row, fault in wrong.items() if fault[0] == kind]
        faults.add_rows(kind, rows, lambda row: (pointer(row), *wrong[row][1:]))
    return [None if row in wrong else value for row, value in enumerate(values)]


def _fault_of(values: list[Json]) -> tuple[str, str, str] | None:
    """Return the kind, the description and the hint of the first fault among the values; None if there is none."""
    level = values
    for depth in range(DEEPEST + 2):
        kinds = set(map(type, level))
        if not kinds <= SCALARS | {list, dict}:
            return "bad value", "this is no JSON value.", "Write text, numbers, lists or objects."
        if kinds & {int, float} and not all(map(_is_finite, (v for v in level if type(v) in (int, float)))):
            return "not finite", "NaN and infinity are not data.", "Leave the value out, or write null."
        objects, lists = objects_and_lists(level)
        names = set().union(*objects)
        if not is_text(chain(names, (value for value in level if type(value) is str))):
            return NOT_TEXT
        if not objects and not lists:
            return None
        if depth == DEEPEST:
            return "bad value", f"lists and objects are nested more than {DEEPEST} deep.", "Write a flatter value."
        level = inside(objects, lists)
    return None


NOT_TEXT = ("encoding", "this text holds half a surrogate pair, which is no character.", "Write the whole character.")


def is_text(texts: Iterable[str]) -> bool:
    """Return whether all of these are texts that can be written as UTF-8."""
    try:
        return is_unicode("".join(texts))
    except TypeError:  # a key of a Python mapping may be of any type
        return False


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number past the largest float
        return False
