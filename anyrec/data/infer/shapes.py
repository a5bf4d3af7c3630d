"""What the values of a column look like: numbers, times, lists, texts, and how they are written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.core.values import show
from anyrec.data.formats.arrow_types import UnreadableType, plain
from anyrec.data.formats.at import At
from anyrec.data.formats.csv_file import WHOLE
from anyrec.data.formats.faults import Faults
from anyrec.data.formats.table_columns import NUMBER
from anyrec.data.list_columns import is_list
from anyrec.data.sources.moments import ZONE_NAMES, as_times, is_days, unit_of
from anyrec.data.sources.transforms import CURRENCY, FALSE, NUMERAL, SPACES, TRUE

SAMPLE = 200_000
"""Values that are looked at."""
FORMATS = (
    "%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M", "%d.%m.%Y", "%d/%m/%Y %H:%M:%S", "%d/%m/%Y %H:%M", "%d/%m/%Y",
    "%m/%d/%Y %H:%M:%S", "%m/%d/%Y %H:%M", "%m/%d/%Y", "%m/%d/%Y %I:%M:%S %p", "%m/%d/%Y %I:%M %p", "%d-%m-%Y",
    "%d-%m-%Y %H:%M", "%d-%m-%Y %H:%M:%S", "%m-%d-%Y", "%m-%d-%Y %H:%M", "%Y/%m/%d %H:%M:%S", "%Y/%m/%d %H:%M",
    "%Y/%m/%d", "%m %d, %Y", "%b %d, %Y", "%B %d, %Y", "%d %b %Y", "%d %B %Y", "%d-%b-%Y", "%b %d, %Y %H:%M:%S",
    "%a %b %d %H:%M:%S %Y", "%a %b %d %H:%M:%S %z %Y", "%d-%b-%y", "%m/%d/%y", "%d/%m/%y", "%m/%d/%y %H:%M",
    "%d/%m/%y %H:%M", "%d.%m.%y",
)  # fmt: skip
"""Formats of times that are tried."""
SEPARATORS = ("|", ";", ",", " ")
IMAGE = r"(?i)\.(?:jpe?g|png|webp|gif|bmp)$"
LISTED = r"^\s*\[.*\]\s*$"


@dataclass
class Shape:
    """The values of a column.

    Attributes:
        kind: empty, whole, number, boolean, time, image, url, json_list, list, split, object, texts (lists of
            sentences), text or category.
        how: Changes that read the values, as the config has them.
        about: A phrase about the values, for the user.
        choices: Several ways to read the values, among which only the user can decide, as changes.
        parsed: The values in the kind's type, if they were parsed: numbers or times.
    """

    kind: str
    how: dict[str, Any] = field(default_factory=dict)
    about: str = ""
    choices: list[dict[str, Any]] = field(default_factory=list)
    parsed: pa.Array | None = None


def shape_of(column: pa.Array, nulls: list[str]) -> Shape:
    """Return what the values of a column look like.

    Args:
        column: (rows,) Any type.
        nulls: Texts that stand for a missing value.
    """
    try:
        values = plain(column.slice(0, SAMPLE))[0].drop_null()
    except UnreadableType as error:
        return Shape("object", about=f"values of the type {error}")
    kind = values.type
    if pa.types.is_string(kind):
        values = values.filter(pc.invert(pc.is_in(pc.utf8_trim_whitespace(values), value_set=pa.array(["", *nulls]))))
    if not len(values):
        return Shape("empty", about="no values")
    if pa.types.is_boolean(kind):
        return Shape("boolean", about="true and false")
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _numeric(values, pa.types.is_integer(kind))
    if pa.types.is_timestamp(kind):
        return _timed(values, {})
    if is_list(kind):
        flat = values.flatten()
        while is_list(flat.type):
            flat = flat.flatten()
        flat = flat.drop_null()
        if pa.types.is_struct(flat.type) or not len(flat):
            return Shape("object", about="lists of objects" if len(flat) else "empty lists")
        if not pa.types.is_string(flat.type):
            return Shape("list", about=f"lists of {flat.type}")
        words = pc.mean(pc.list_value_length(pc.utf8_split_whitespace(flat))).as_py()
        return Shape("texts" if words > 4 else "list", about=f"lists of texts such as {_first(flat)}")
    if pa.types.is_struct(kind):
        return Shape("object", about="objects")
    return _of_texts(pc.utf8_trim_whitespace(values))


def _numeric(values: pa.Array, whole: bool, how: dict[str, Any] | None = None) -> Shape:
    numbers = values.cast(pa.float64(), safe=False)
    if not whole:
        whole = bool(pc.all(pc.equal(pc.floor(numbers), numbers)).as_py()) and not how
    least, most = pc.min_max(numbers).values()
    about = f"numbers from {least.as_py():g} to {most.as_py():g}" if least.as_py() != most.as_py() else "one number"
    return Shape("whole" if whole else "number", how or {}, about, parsed=numbers)


def _timed(times: pa.Array, how: dict[str, Any], about: str = "") -> Shape:
    least, most = pc.min_max(times).values()
    days = f"{least.as_py():%Y-%m-%d} to {most.as_py():%Y-%m-%d}"
    return Shape("time", how, f"{about}, {days}" if about else days, parsed=times)


def as_epochs(shape: Shape) -> Shape | None:
    """Return the shape of numbers as times, None if they cannot be times of the years 1971 to 2100."""
    if shape.parsed is None or shape.kind not in ("whole", "number"):
        return None
    days = is_days(shape.parsed)
    unit, other = unit_of(shape.parsed)
    times = _parsed_times(shape.parsed, None)
    if times is None or len(other):
        return None
    least, most = (one.as_py().year for one in pc.min_max(times).values())
    if least < 1971 or most > 2100:
        return None
    return _timed(
        times,
        {},
        "dates as numbers"
        if days
        else {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}[unit],
    )


def _of_texts(texts: pa.Array) -> Shape:
    """Return the shape of texts that are not missing."""
    lower = pc.utf8_lower(texts)
    distinct = pc.unique(lower)
    if len(distinct) <= 2 and pc.all(pc.is_in(distinct, value_set=pa.array((*TRUE, *FALSE)))).as_py():
        numeric = pc.all(pc.is_in(distinct, value_set=pa.array(["0", "1"]))).as_py()
        if not numeric:
            return Shape("boolean", {"boolean": True}, " and ".join(sorted(map(str, distinct.to_pylist()))))
    if pc.all(pc.match_substring_regex(texts, NUMBER)).as_py():
        whole = pc.all(pc.match_substring_regex(texts, WHOLE)).as_py()
        if whole or not pc.any(pc.match_substring_regex(texts, "^0[0-9]")).as_py():
            return _numeric(pc.utf8_ltrim(texts, "+").cast(pa.float64()), bool(whole))
        return _wordy(texts)
    for found in (_with_marks(texts), _dated(texts)):
        if found is not None:
            return found
    if _share(texts, LISTED) > 0.99:
        return Shape("json_list", {"json_list": True}, f"lists such as {_first(texts)}")
    if _share(texts, IMAGE) > 0.9:
        url = _share(texts, "^https?://") > 0.5
        return Shape(
            "url" if url else "image", about=f"{'addresses' if url else 'names'} of images such as {_first(texts)}"
        )
    if _share(texts, "^https?://") > 0.9:
        return Shape("url", about=f"addresses such as {_first(texts)}")
    return _separated(texts) or _wordy(texts)


def _with_marks(texts: pa.Array) -> Shape | None:
    """Return the shape of numbers with a decimal comma, thousands or a currency; None for other texts."""
    bare = pc.replace_substring_regex(pc.replace_substring_regex(texts, CURRENCY, ""), SPACES, "")
    if _share(bare, "[0-9]") < 1:
        return None
    fits = {mark: _share(bare, NUMERAL[mark]) == 1 for mark in (".", ",")}
    if fits["."] and fits[","]:
        if _share(bare, "[.,]") == 0:
            return _numeric(bare.cast(pa.float64()), False, {"decimal": "."})
        ways = [{"decimal": ","}, {"decimal": "."}]
        return Shape(
            "number", about=f"numbers such as {_first(texts)}, whose mark is decimal or for thousands", choices=ways
        )
    for mark, other in ((",", "."), (".", ",")):
        if fits[mark]:
            plain_numbers = pc.replace_substring(pc.replace_substring(bare, other, ""), ",", ".")
            found = _numeric(pc.utf8_ltrim(plain_numbers, "+").cast(pa.float64()), False, {"decimal": mark})
            found.about += f", written like {_first(texts)}"
            return found
    return None


def _dated(texts: pa.Array) -> Shape | None:
    """Return the shape of texts that are all times of one form; None for other texts."""
    if _share(texts, "[0-9]") < 1:
        return None
    sample = texts.slice(0, 2_000)
    spelled = pc.replace_substring_regex(sample, ZONE_NAMES, "Z")
    if _share(spelled, r"^[0-9]{4}-?[0-9]{2}-?[0-9]{2}") == 1 and _parsed_times(sample, None) is not None:
        times = _parsed_times(texts, None)
        with_clock = _share(sample, "[T ][0-9]{2}:?[0-9]{2}") > 0
        return None if times is None else _timed(times, {}, "ISO 8601" if with_clock else "days in ISO 8601")
    fitting = []
    for form in FORMATS:
        if pc.strptime(sample, format=form, unit="us", error_is_null=True).null_count == 0:
            times = _parsed_times(texts, form)
            if times is not None:
                fitting.append((form, times))
    if not fitting:
        return None
    if len(fitting) > 1 and not fitting[0][1].equals(fitting[1][1]):
        ways = [{"time": form} for form, _ in fitting]
        about = f"times such as {_first(texts)}, which are {' or '.join(form for form, _ in fitting)}"
        return Shape("time", {}, about, ways, fitting[0][1])
    return _timed(fitting[0][1], {"time": fitting[0][0]}, fitting[0][0])


def _parsed_times(values: pa.Array, form: str | None) -> pa.Array | None:
    """Return times, None if some values are none."""
    faults = Faults()
    times = as_times(values, form, None, At("", "", str, faults, []))
    return None if faults else times


def _separated(texts: pa.Array) -> Shape | None:
    """Return the shape of several short values in each text; None for other texts.

    Parts occur in many texts, and words of sentences do as well: so they are short, and few are different.
    """
    for separator in SEPARATORS[:3]:
        lists = pc.split_pattern(texts, separator)
        if pc.mean(pc.greater(pc.list_value_length(lists), 1)).as_py() < 0.2:
            continue
        parts = pc.utf8_trim_whitespace(lists.flatten())
        parts = parts.filter(pc.not_equal(parts, ""))
        words = pc.mean(pc.list_value_length(pc.utf8_split_whitespace(parts))).as_py()
        if words <= 3 and len(pc.unique(parts)) <= max(3, len(parts) // 3):
            return Shape("split", {"split": separator}, f"values separated by '{separator}' such as {_first(texts)}")
    return None


def _wordy(texts: pa.Array) -> Shape:
    """Return whether texts are sentences and titles, or categories."""
    distinct = len(pc.unique(texts))
    words = pc.mean(pc.list_value_length(pc.utf8_split_whitespace(texts))).as_py()
    about = f"{distinct:,} different texts" if distinct > 1 else "one text"
    wordy = words >= 4 or (words > 1.3 and distinct > len(texts) / 2 and distinct > 20)
    return Shape("text" if wordy else "category", about=f"{about} such as {_first(texts)}")


def _share(texts: pa.Array, pattern: str) -> float:
    return float(pc.mean(pc.match_substring_regex(texts, pattern)).as_py() or 0.0)


def _first(texts: pa.Array) -> str:
    return show(texts[0].as_py(), 40)


def lone_values(column: pa.Array) -> tuple[int, int]:
    """Return the number of different values that are not missing, and the number of values."""
    if is_list(column.type) or pa.types.is_struct(column.type):
        return 0, len(column) - column.null_count
    coded = column.dictionary_encode()
    return len(coded.dictionary), int(np.count_nonzero(coded.is_valid().to_numpy(zero_copy_only=False)))
