"""Strict JSON. Every config, from a file, an option or Python, passes through it, so that it can be written again."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from pathlib import PurePath

from anyrec.core.errors import Fault
from anyrec.core.types import Json, JsonObject
from anyrec.core.values import is_unicode, show

MAX_DEPTH = 100
"""Maximum levels of nesting."""
MAX_TEXT = 100_000
"""Maximum length of one text, in characters."""
MAX_INTEGER = 2**63 - 1
"""Largest integer: that of 64 bits."""


class Repeated(dict[str, Json]):
    """A JSON object in which keys occur more than once.

    Attributes:
        repeated: These keys.
    """

    repeated: tuple[str, ...] = ()


class UnusableJson(ValueError):
    """JSON that is nested too deeply or holds a number of thousands of digits. The message says so."""


def parse_json(text: str) -> Json:
    """Parse JSON. An object with a repeated key becomes a `Repeated`, which `plain` reports.

    Raises:
        json.JSONDecodeError: It is not JSON.
        RecursionError: It is nested too deeply.
        ValueError: An integer has more than 4,300 digits.
    """
    return json.loads(text, object_pairs_hook=_object)


def plain(value: object) -> tuple[Json, list[Fault]]:
    """Convert a value to pure JSON types (dict, list, str, int, float, bool, None).

    Tuples become lists, NumPy scalars become numbers, paths become text, and floats without fraction become integers.

    Returns:
        The converted value, and a fault for each part that cannot be converted: NaN, infinity, an integer beyond 64
            bits, a
        NUL or half of a surrogate pair in a text, a repeated key, nesting beyond 100 levels, and other types.
    """
    faults: list[Fault] = []
    return _plain(value, "", 0, faults), faults


def pointer(parts: Iterable[object]) -> str:
    """Return the JSON pointer (RFC 6901) with these parts."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def split_pair(text: str) -> tuple[str, str] | None:
    """Split `key=value` at the first `=`. Return None if there is no `=` or no key."""
    key, equals, value = text.partition("=")
    return (key, value) if key and equals else None


def json_or_text(text: str) -> Json:
    """Parse the value of an option: JSON if it is JSON, otherwise the text itself.

    Raises:
        UnusableJson: If the JSON cannot be used.
    """
    try:
        return parse_json(text)
    except json.JSONDecodeError:
        return text
    except (RecursionError, ValueError):
        raise UnusableJson("the value is nested too deeply, or has thousands of digits.") from None


def _plain(value: object, where: str, depth: int, faults: list[Fault]) -> Json:
    def fault(what: str, hint: str = "") -> None:
        faults.append(Fault(where or "/", what, hint, "bad value"))

    if depth > MAX_DEPTH:
        fault(f"values are nested more than {MAX_DEPTH} levels deep.")
        return None
    if isinstance(value, PurePath):
        value = str(value)
    elif hasattr(value, "item") and getattr(value, "shape", None) == ():
        value = value.item()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        _check_text(value, fault)
        return str(value)
    if isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            fault("an integer beyond 64 bits.", "Use a smaller number.")
            return None
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            fault(f"{value} is no JSON number.", "Use a finite number, or null where the key allows it.")
            return None
        return int(value) if value.is_integer() and abs(value) < 2**53 else float(value)
    if isinstance(value, dict):
        return _plain_object(value, where, depth, faults)
    if isinstance(value, (list, tuple)):
        return [_plain(part, f"{where}/{place}", depth + 1, faults) for place, part in enumerate(value)]
    fault(f"a {type(value).__name__} is no JSON value.", "Use objects, lists, texts, numbers, true, false and null.")
    return None


def _plain_object(value: dict[object, object], where: str, depth: int, faults: list[Fault]) -> JsonObject:
    for key in getattr(value, "repeated", ()):
        faults.append(
            Fault(where + pointer([key]), "this key occurs more than once.", "Keep one of them.", "repeated key")
        )
    found = {}
    for key, part in value.items():
        if not isinstance(key, str):
            what = f"the key {show(key)} is a {type(key).__name__}."
            faults.append(Fault(where or "/", what, "Keys are texts.", "bad value"))
            continue
        inside = where + pointer([key])
        _check_text(
            key, lambda what, hint, inside=inside: faults.append(Fault(printable(inside), what, hint, "bad value"))
        )
        found[key] = _plain(part, inside, depth + 1, faults)
    return found


def _check_text(text: str, fault: Callable[[str, str], None]) -> None:
    if "\0" in text or not is_unicode(text):
        fault("a text with a NUL or half a surrogate pair.", "Leave that character out.")
    elif len(text) > MAX_TEXT:
        fault(f"a text of {len(text):,} characters; the most is {MAX_TEXT:,}.", "Shorten it.")


def printable(text: str) -> str:
    """A pointer or path with characters that cannot be printed escaped."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")


def _object(pairs: list[tuple[str, Json]]) -> JsonObject:
    found = Repeated(pairs)
    if len(found) == len(pairs):
        return dict(found)
    seen: set[str] = set()
    found.repeated = tuple(dict.fromkeys(key for key, _ in pairs if key in seen or seen.add(key)))
    return found
