"""ISO 8601 texts and epoch seconds to times. `schemas/dataset.schema.json` repeats the grammars as a pattern."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.core.values import is_unicode

TIME = pa.timestamp("us", "UTC")
BLOCK = 1 << 20
"""Rows that are converted at a time."""
EARLIEST_SECOND = -62_135_596_800
"""0001-01-01T00:00:00Z: Python has no earlier dates."""
LATEST_SECOND = 100_000_000_000
"""Epoch seconds from here on (the year 5138) are refused, since they are milliseconds by mistake."""
_YEAR = "[0-9]{4}"
_LEAP = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)"
_DATE = (
    f"(?:{_YEAR}-?(?:0[13578]|1[02])-?(?:0[1-9]|[12][0-9]|3[01])|{_YEAR}-?(?:0[469]|11)-?(?:0[1-9]|[12][0-9]|30)"
    f"|{_YEAR}-?02-?(?:0[1-9]|1[0-9]|2[0-8])|{_LEAP}-?02-?29)"
)
_HOUR, _SIXTY = "(?:[01][0-9]|2[0-3])", "[0-5][0-9]"
_CLOCK = f"[Tt ]{_HOUR}(?::?{_SIXTY}(?::?{_SIXTY}(?:[.,][0-9]{{1,9}})?)?)?(?:[Zz]|[+-]{_HOUR}(?::?{_SIXTY})?)?"
ISO_8601 = f"{_DATE}(?:{_CLOCK})?"
"""The texts that are times: ISO 8601 dates, with or without a time of day and a zone, of years that exist."""
NUMERAL = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
"""The texts that are numbers."""
EPOCH = r"[0-9]{9,10}(?:[.][0-9]{1,9})?"
"""The texts that are epoch seconds even if numbers are not written as texts: of the years 1973 to 2286."""
_DATE_NUMBERS = (19_000_101, 20_991_231)
"""Numbers in this range may be dates: 20240517 is 17 May 2024."""
OUTSIDE = "0000|0001-?01-?01[^+]*[+]|9999-?12-?31[^-]*-"
"""Beginnings of texts that are before the year 1 or after the year 9999, at least in UTC."""
_PARTS = (
    "^(?P<date>[0-9]{4}-?[0-9]{2}-?[0-9]{2})(?:[Tt ](?P<hour>[0-9]{2}):?(?P<minute>[0-9]{2})?:?(?P<second>[0-9]{2})?"
    "[.,]?(?P<fraction>[0-9]*)(?P<zone>.*))?$"
)
_BOUNDARY_DAYS = (EARLIEST_SECOND + 86_400, 253_402_300_800 - 86_400)


def parse_times(texts: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Parse ISO 8601 texts.

    Texts that all have a zone, or all have none, take one cast. Other texts are first brought to one spelling.

    Args:
        texts: (rows,) string.

    Returns:
        (rows,) TIME, UTC for texts without a zone and null for texts that are no times; and the rows of the latter.
    """
    for spelled in (lambda: texts, lambda: pc.binary_join_element_wise(texts, "Z", "")):
        try:
            times = spelled().cast(TIME)
        except pa.ArrowInvalid:
            continue
        return _within(texts, times)
    good = pc.fill_null(pc.match_substring_regex(texts, f"^{ISO_8601}$"), False)
    good = pc.and_(good, pc.invert(pc.fill_null(pc.match_substring_regex(texts, f"^(?:{OUTSIDE})"), False)))
    bad = np.flatnonzero(pc.and_(texts.is_valid(), pc.invert(good)).to_numpy(zero_copy_only=False))
    return _canonical(pc.if_else(good, texts, None)).cast(TIME), bad


def times_of_texts(texts: pa.Array, numeral: str = NUMERAL) -> tuple[pa.Array, np.ndarray]:
    """Parse ISO 8601 texts and epoch seconds that are written as texts, which may be mixed.

    Args:
        texts: (rows,) string.
        numeral: The texts that are epoch seconds.

    Returns:
        (rows,) TIME, and the rows of texts that are neither.
    """
    numerals = pc.fill_null(pc.match_substring_regex(texts, f"^(?:{numeral})$"), False)
    if not pc.any(numerals).as_py():
        return parse_times(texts)
    numbers, bad = epochs(cast_numerals(pc.if_else(numerals, texts, None)))
    if pc.all(pc.or_(numerals, texts.is_null())).as_py():
        return numbers, bad
    times, worse = parse_times(pc.if_else(numerals, None, texts))
    return pc.coalesce(times, numbers), np.union1d(bad, worse).astype(np.int64)


def cast_numerals(texts: pa.Array) -> pa.Array:
    """Return (rows,) float64 of texts that are NUMERAL, perhaps between spaces."""
    return pc.utf8_ltrim(pc.utf8_trim_whitespace(texts), "+").cast(pa.float64())


def time_hint(value: object) -> str:
    """Return how to correct a value that is not a time."""
    try:
        size = abs(float(value)) if isinstance(value, (int, float, str)) else 0.0
    except (ValueError, OverflowError):
        size = 0.0
    for unit, count, most in (("milli", "1,000", 1e14), ("micro", "1,000,000", 1e17), ("nano", "10^9", 1e20)):
        if LATEST_SECOND <= size < most:
            return f"It looks like {unit}seconds since 1970: divide it by {count}."
    return "Write it as 2024-05-17T12:30:00Z or as seconds since 1970."


def parse_time(text: str) -> int | None:
    """Return the microseconds since 1970 of one ISO 8601 text, UTC if it names no zone; None if it is not a time."""
    if not is_unicode(text):
        return None
    times, bad = parse_times(pa.array([text]))
    return None if len(bad) else times.cast(pa.int64())[0].as_py()


def _within(texts: pa.Array, times: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Return times without those outside the years 1 to 9999, and the rows of these."""
    if _is_within(times):
        return times, np.empty(0, np.int64)
    outside = pc.fill_null(pc.match_substring_regex(texts, f"^(?:{OUTSIDE})"), False)
    return pc.if_else(outside, None, times), np.flatnonzero(outside.to_numpy(zero_copy_only=False))


def _canonical(texts: pa.Array) -> pa.Array:
    """Return texts of the grammar as YYYY-MM-DDTHH:MM:SS.ffffffZONE, cut off at the microsecond."""
    parts = pc.extract_regex(texts, _PARTS)
    field = {name: pc.struct_field(parts, name) for name in ("date", "hour", "minute", "second", "fraction", "zone")}
    digits = pc.replace_substring(field["date"], "-", "")
    clock = [pc.if_else(pc.equal(field[name], ""), "00", field[name]) for name in ("hour", "minute", "second")]
    fraction = pc.utf8_slice_codeunits(pc.utf8_rpad(field["fraction"], 6, "0"), 0, 6)
    zone = pc.if_else(pc.is_in(field["zone"], value_set=pa.array(["", "z"])), "Z", field["zone"])
    date = pc.binary_join_element_wise(
        *(pc.utf8_slice_codeunits(digits, start, stop) for start, stop in ((0, 4), (4, 6), (6, 8))), "-"
    )
    seconds = pc.binary_join_element_wise(pc.binary_join_element_wise(*clock, ":"), fraction, ".")
    return pc.binary_join_element_wise(date, "T", seconds, zone, "")


def _is_within(times: pa.Array) -> bool:
    """Return whether all times are after the first and before the last day of the years 1 to 9999."""
    bounds = pc.min_max(times.cast(pa.int64()))
    least, most = bounds["min"].as_py(), bounds["max"].as_py()
    return least is None or (least >= _BOUNDARY_DAYS[0] * 1_000_000 and most < _BOUNDARY_DAYS[1] * 1_000_000)


def epochs(numbers: pa.Array, a_second: float = 1.0) -> tuple[pa.Array, np.ndarray]:
    """Convert seconds since 1970 to times.

    If all seconds are dates of the years 1900 to 2099 as YYYYMMDD, such as 20240517, they are dates: as seconds they
    would all be in the same month of 1970.

    Args:
        numbers: (rows,) float64 or int64.
        a_second: What a second is in their unit, 1000 for milliseconds.

    Returns:
        (rows,) TIME, and the rows outside the years 1 to 5138.
    """
    dates = _dates(numbers) if a_second == 1.0 else None
    if dates is not None:
        return dates, np.empty(0, np.int64)
    micro, bad = np.empty(len(numbers), np.int64), np.empty(len(numbers), bool)
    for start in range(0, len(numbers), BLOCK):  # a block at a time: the temporaries of all rows are five such arrays
        block = pc.fill_null(numbers[start : start + BLOCK].cast(pa.float64(), safe=False), 0.0)
        values = block.to_numpy(zero_copy_only=False) / a_second
        wrong = ~((values >= EARLIEST_SECOND) & (values < LATEST_SECOND))
        bad[start : start + BLOCK] = wrong
        micro[start : start + BLOCK] = np.round(np.where(wrong, 0.0, values) * 1e6)
    mask = bad | numbers.is_null().to_numpy(zero_copy_only=False)
    times = pa.array(micro, mask=mask if mask.any() else None)
    return times.cast(pa.timestamp("us")).cast(TIME), np.flatnonzero(bad)


def are_dates(numbers: pa.Array) -> bool:
    """Return whether all numbers are dates of the years 1900 to 2099 as YYYYMMDD."""
    return _dates(numbers.cast(pa.float64(), safe=False)) is not None


def _dates(numbers: pa.Array) -> pa.Array | None:
    """Return (rows,) TIME if all of (rows,) numbers are dates as YYYYMMDD, otherwise None."""
    bounds = pc.min_max(numbers)
    least, most = bounds["min"].as_py(), bounds["max"].as_py()
    if least is None or not _DATE_NUMBERS[0] <= least <= most <= _DATE_NUMBERS[1]:
        return None
    if not pa.types.is_integer(numbers.type) and not pc.all(pc.equal(numbers, pc.floor(numbers))).as_py():
        return None
    times, bad = parse_times(numbers.cast(pa.int64()).cast(pa.string()))
    return None if len(bad) else times


def typed_times(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Convert dates and timestamps of any unit and zone.

    Args:
        column: (rows,) date or timestamp.

    Returns:
        (rows,) TIME, and the rows outside the years 1 to 9999.
    """
    kind = column.type
    if kind == TIME and _is_within(column):
        return column, np.empty(0, np.int64)
    if pa.types.is_date32(kind):
        column, unit = column.cast(pa.int32()).cast(pa.int64()), 1 / 86_400
    elif pa.types.is_date64(kind):
        column, unit = column.cast(pa.int64()), 1_000
    else:
        column, unit = column.cast(pa.int64()), {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}[kind.unit]
    values = pc.fill_null(column, 0).to_numpy(zero_copy_only=False)
    last = 253_402_300_800
    bad = (values < EARLIEST_SECOND * unit) | (values >= last * unit)
    values = np.where(bad, 0, values)
    micro = values * round(1_000_000 / unit) if unit <= 1_000_000 else values // round(unit / 1_000_000)
    mask = bad | column.is_null().to_numpy(zero_copy_only=False)
    return pa.array(micro, mask=mask).cast(pa.timestamp("us")).cast(TIME), np.flatnonzero(bad)


def clock_seconds(texts: pa.Array) -> pa.Array | None:
    """Return the seconds since midnight of texts that all are times of day (HH:MM, HH:MM:SS), otherwise None."""
    if (
        not len(texts)
        or not pc.all(pc.match_substring_regex(texts, f"^{_HOUR}:{_SIXTY}(:{_SIXTY}([.][0-9]+)?)?$")).as_py()
    ):
        return None
    parts = pc.extract_regex(texts, "^(?P<h>..):(?P<m>..):?(?P<s>.*)$")
    seconds = pc.struct_field(parts, "s")
    seconds = pc.if_else(pc.equal(seconds, ""), "0", seconds)
    hours, minutes = (pc.struct_field(parts, name).cast(pa.float64()) for name in ("h", "m"))
    return pc.add(pc.add(pc.multiply(hours, 3600.0), pc.multiply(minutes, 60.0)), seconds.cast(pa.float64()))


def iso(time: dt.datetime) -> str:
    """Return a time as a short text: the date alone at midnight UTC."""
    return time.date().isoformat() if time.time() == dt.time() else time.isoformat().replace("+00:00", "Z")
