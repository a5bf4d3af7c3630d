"""Constants of conditions and values of the moment, read as the kind of value that they are compared with."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from anyrec.core.types import Json
from anyrec.core.values import is_unicode, show
from anyrec.data.formats.times import parse_time
from anyrec.pipeline.conditions.features import Kind, Values

SECOND = 1_000_000
DAY = 86_400 * SECOND
UNITS = {"s": SECOND, "m": 60 * SECOND, "h": 3600 * SECOND, "d": DAY, "w": 7 * DAY}
MOST_DAYS = 36_525_000
"""Maximum period: 100,000 years. 64 bits of microseconds hold the sum of it and any date."""
MOST_NUMBER = int(sys.float_info.max)
RELATIVE = re.compile(r"now(?:\s*([+-])\s*(\d+(?:\.\d+)?)\s*([smhdw]))?")


class Wrong(ValueError):
    """A constant that cannot be read as the kind of value that it is compared with."""


def constant_values(constants: tuple[Json, ...], kind: Kind | None, now: int) -> Values:
    """Return constants as the values of one row.

    Args:
        constants: The constants.
        kind: The kind of the values that they are compared with; None for their own kind.
        now: Time of the request in microseconds since 1970.

    Raises:
        Wrong: A constant cannot be read as that kind.
    """
    kind = kind or kind_of(constants)
    several = len(constants) > 1
    if kind == "text":
        names = pa.array(sorted({_as_text(value) for value in constants}), pa.string())
        return Values(kind, several, 1, np.zeros(len(names), np.int64), np.arange(len(names)), names)
    data = np.unique(np.array([_as_number(value, kind, now) for value in constants], np.float64))
    return Values(kind, several, 1, np.zeros(len(data), np.int64), data)


def kind_of(constants: Sequence[Json]) -> Kind:
    """Return the kind of constants; "text" if they are of several kinds."""
    kinds: set[Kind] = {
        "flag" if isinstance(v, bool) else "number" if isinstance(v, (int, float)) else "text" for v in constants
    }
    return kinds.pop() if len(kinds) == 1 else "text"


def read_time(text: str, now: int) -> int:
    """Return microseconds since 1970 of `now`, `now-30d`, `now+12h` (s, m, h, d, w) or ISO 8601, UTC if it has no zone.

    Raises:
        Wrong: the text is no time, or the period is longer than `MOST_DAYS`.
    """
    relative = RELATIVE.fullmatch(text.strip())
    if relative:
        sign, amount, unit = relative.groups()
        period = 0.0 if sign is None else float(amount) * UNITS[unit]
        if period > MOST_DAYS * DAY:
            raise Wrong(f"a period is at most {MOST_DAYS:,} days; found {show(text)}")
        return now + round(-period if sign == "-" else period)
    time = parse_time(text)
    if time is None:
        raise Wrong(f"expected a time, as 2024-05-01T12:00:00Z or now-30d; found {show(text)}")
    return time


def is_constant(value: object) -> bool:
    """Return whether a value is a Unicode text, true, false, or a number that is finite in float64."""
    if isinstance(value, str):
        return is_unicode(value)
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and abs(value) <= MOST_NUMBER


def _as_text(value: Json) -> str:
    """Return a constant spelled like the data's categories and ids: 2 and 2.0 as "2", true as "true"."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if not is_constant(value):
        raise Wrong(f"expected a text; found {show(value)}")
    return str(value)


def _as_number(value: Json, kind: Kind, now: int) -> float:
    """Return a constant as a number: times as microseconds since 1970, flags as 0 or 1. Raises Wrong."""
    if kind == "time" and isinstance(value, str):
        return read_time(value, now)
    if kind == "flag" and isinstance(value, bool):
        return float(value)
    if kind == "number" and isinstance(value, (int, float)) and not isinstance(value, bool) and is_constant(value):
        return float(value)
    expected = {
        "time": "a time, as 2024-05-01T12:00:00Z or now-30d",
        "flag": "true or false",
        "number": "a finite number",
    }
    raise Wrong(f"expected {expected.get(kind, 'nothing')}; found {show(value)}")
