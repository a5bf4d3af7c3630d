"""Times of any spelling: epoch numbers of any unit, dates as numbers, ISO 8601 and other formats, with a time zone."""

from __future__ import annotations

import zoneinfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.core.errors import ConfigError, Fault
from anyrec.core.values import show
from anyrec.data.formats.arrow_types import UnreadableType, plain
from anyrec.data.formats.at import At
from anyrec.data.formats.times import BLOCK, TIME, epochs, parse_times, typed_times

UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
LIMITS = ((1e11, "s"), (1e14, "ms"), (1e17, "us"), (np.inf, "ns"))
"""Numbers below each limit are of the unit: 1e11 seconds are the year 5138, 1e11 milliseconds are March 1973."""
NUMERAL = r"^\s*[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?\s*$"
DAY = r"^(?:19|20)[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])$"
"""A date as a whole number: 20240131."""
ZONE_NAMES = r"\s*(?:UTC|GMT|Z)$"
HINT = "Set `time` of this column to its format, for example %d.%m.%Y %H:%M."


def as_times(column: pa.Array, time: str | None, zone: str | None, at: At) -> pa.Array:
    """Convert a column to times. Values that are no times are faults.

    Args:
        column: (rows,) Times, numbers or texts.
        time: A unit, iso or a format, as the config has it; by default found from the values.
        zone: Zone of times that name none; UTC by default.
        at: Where the column comes from.

    Returns:
        (rows,) TIME.
    """
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        naive = not pa.types.is_timestamp(kind) or kind.tz is None
        times, bad = typed_times(column)
        _add_bad(column, bad, at)
        return _in_zone(times, zone, at) if naive and zone else times
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        numbers = column if pa.types.is_int64(kind) else column.cast(pa.float64(), safe=False)
        return _of_numbers(numbers, column, time, zone, at)
    try:
        texts = plain(column)[0].cast(pa.string())
    except (UnreadableType, pa.ArrowNotImplementedError):
        at.faults.add("column type", at.name, f"this column holds {kind}, which is no time.", "Leave it out.")
        return pa.nulls(len(column), TIME)
    if time is None or time in UNITS:
        try:
            whole = texts.cast(pa.int64())
        except pa.ArrowInvalid:  # not all are whole numbers
            pass
        else:
            return _of_numbers(whole, whole, time, zone, at)
    numerals = pc.match_substring_regex(texts, NUMERAL)
    if time in UNITS or (time is None and pc.any(numerals).as_py() and pc.all(numerals).as_py()):
        good = pc.fill_null(numerals, False)
        _add_bad(column, _rows(pc.and_(texts.is_valid(), pc.invert(good))), at)
        numbers = pc.utf8_ltrim(pc.utf8_trim_whitespace(pc.if_else(good, texts, None)), "+").cast(pa.float64())
        return _of_numbers(numbers, column, time, zone, at)
    if time in (None, "iso"):
        return _of_iso(texts, zone, at)
    return _of_format(texts, time or "", zone, at)


def unit_of(numbers: pa.Array) -> tuple[str, np.ndarray]:
    """Return the unit of epoch numbers by the size of the largest, and the rows of numbers of another unit.

    Numbers of another unit are those that are not 0 and would stand for a time within 30 days of 1970 in this one.
    """
    largest = 0.0
    for start in range(0, len(numbers), BLOCK):
        values = _sizes(numbers[start : start + BLOCK])
        largest = max(largest, values.max(initial=0, where=np.isfinite(values)))
    unit = next(name for limit, name in LIMITS if largest < limit)
    if unit == "s":
        return unit, np.empty(0, np.int64)
    values = _sizes(numbers)
    return unit, np.flatnonzero((values > 0) & (values < 86_400 * UNITS[unit] * 30))


def _sizes(numbers: pa.Array) -> np.ndarray:
    """Return (rows,) float64, the absolute values, 0 for nulls."""
    return np.abs(pc.fill_null(numbers.cast(pa.float64(), safe=False), 0.0).to_numpy(zero_copy_only=False))


def is_days(numbers: pa.Array) -> bool:
    """Return whether all whole numbers are dates of the form 20240131."""
    present = numbers.drop_null()
    if not len(present):
        return False
    least, most = pc.min_max(present).values()
    if least.as_py() < 19000101 or most.as_py() > 20991231:
        return False
    texts = pc.cast(present, pa.int64(), safe=False).cast(pa.string())
    whole = pc.all(pc.equal(pc.floor(present), present)).as_py()
    return bool(whole and pc.all(pc.match_substring_regex(texts, DAY)).as_py())


def _of_numbers(numbers: pa.Array, column: pa.Array, time: str | None, zone: str | None, at: At) -> pa.Array:
    """Convert numbers: days of the calendar, or time since 1970."""
    if time is not None and time not in UNITS:
        texts = pc.cast(numbers, pa.int64(), safe=False).cast(pa.string())
        return _of_format(texts, time, zone, at) if time != "iso" else _of_iso(texts, zone, at)
    if time is None and is_days(numbers):
        at.notes.append(f"{at.name}: the numbers are read as dates, such as {int(numbers.drop_null()[0].as_py())}.")
        texts = pc.cast(numbers, pa.int64(), safe=False).cast(pa.string())
        return _of_format(texts, "%Y%m%d", zone, at)
    unit, other = (time, np.empty(0, np.int64)) if time is not None else unit_of(numbers)
    hint = "Write all times of the column in one unit, or set `time` to it (s, ms, us, ns)."
    what = f"most times of this column are {NAMES[unit]}, and this is none of the same time"
    _add_bad(column, other, at, what, hint)
    if time is None and unit != "s":
        at.notes.append(f"{at.name}: the numbers are read as {NAMES[unit]} since 1970.")
    if unit in ("us", "ns") and pa.types.is_integer(column.type):  # beyond the whole numbers that a float holds
        whole = column.cast(pa.int64())
        micro = whole if unit == "us" else pc.divide(whole, 1_000)
        times, bad = typed_times(micro.cast(pa.timestamp("us")))
    else:
        times, bad = epochs(numbers, UNITS[unit])
    _add_bad(column, bad, at)
    return times


def _of_iso(texts: pa.Array, zone: str | None, at: At) -> pa.Array:
    """Parse ISO 8601, also with UTC, GMT or Z after a space."""
    spelled = pc.utf8_trim_whitespace(texts)
    spelled = pc.if_else(pc.equal(spelled, ""), None, spelled)
    named = pc.fill_null(pc.match_substring_regex(spelled, ZONE_NAMES), False)
    spelled = pc.replace_substring_regex(spelled, ZONE_NAMES, "Z")
    times, bad = parse_times(spelled)
    _add_bad(texts, bad, at)
    if zone is None:
        return times
    own = pc.or_(named, pc.fill_null(pc.match_substring_regex(spelled, r"[0-9][+-][0-9]{2}(?::?[0-9]{2})?$"), False))
    own = pc.and_(own, pc.fill_null(pc.match_substring_regex(spelled, "[T: ]"), False))
    return pc.if_else(own, times, _in_zone(times, zone, at))


def _of_format(texts: pa.Array, form: str, zone: str | None, at: At) -> pa.Array:
    spelled = pc.utf8_trim_whitespace(texts)
    if "%f" in form:  # not known to Arrow: the fraction of a second is cut off
        form = form.replace(".%f", "").replace(",%f", "")
        spelled = pc.replace_substring_regex(spelled, r"([0-9]:[0-9]{2})[.,][0-9]+", r"\1")
    try:
        times = pc.strptime(spelled, format=form, unit="us", error_is_null=True)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        what = f"this is no format of times: {reason}."
        raise ConfigError(Fault(at.where, what, "Write it like %d.%m.%Y %H:%M:%S.", "bad value")) from None
    _add_bad(texts, _rows(pc.and_(texts.is_valid(), times.is_null())), at, f"does not have the form {form}")
    aware = times.type.tz is not None
    times, _ = typed_times(times)
    return times if aware or zone is None else _in_zone(times, zone, at)


def _in_zone(times: pa.Array, zone: str, at: At) -> pa.Array:
    """Return times that were read as UTC as those of a zone; in the hour that is there twice, the earlier."""
    try:
        zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        what = f"there is no time zone {show(zone)}."
        raise ConfigError(Fault(at.where, what, "Write it like Europe/Berlin.", "bad value")) from None
    naive = times.cast(pa.timestamp("us", "UTC")).cast(pa.int64()).cast(pa.timestamp("us"))
    return pc.assume_timezone(naive, zone, ambiguous="earliest", nonexistent="earliest").cast(TIME)


def _rows(bad: pa.Array) -> np.ndarray:
    return np.flatnonzero(pc.fill_null(bad, False).to_numpy(zero_copy_only=False))


def _add_bad(column: pa.Array, rows: np.ndarray, at: At, what: str = "is not a time", hint: str = HINT) -> None:
    at.faults.add_rows(
        "bad timestamp", rows, lambda row: (at.pointer(row), f"{show(column[row].as_py())} {what}.", hint)
    )
