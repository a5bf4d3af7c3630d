"""JSON text to Python values at C speed. A slow second pass finds doubled keys, NaN and numbers that are too long."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from anyrec.core.errors import DataError, Fault
from anyrec.core.strict_yaml import is_yaml, parse_yaml
from anyrec.core.types import Json, JsonObject
from anyrec.data.formats.containers import WANTED, WANTED_HINT, not_utf8
from anyrec.data.formats.faults import Faults
from anyrec.data.formats.nested import inside, objects_and_lists

DOCUMENT_PARTS = ("user_data", "item_data", "interactions")
"""The keys of a document: its three lists."""
LONGEST_NUMBER = 4300
"""The most digits of a whole number that Python reads."""
CHUNK = 1 << 24
"""Bytes of JSON text that are searched for keys at a time."""
NEWLINE = b"\n"
QUOTE, COLON, BACKSLASH = ord('"'), ord(":"), ord("\\")
SPACES = np.frombuffer(b" \t\n\r", np.uint8)


class Interaction(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """An interaction as the bulk decoder reads it.

    A document that does not fit is read by the slow way, which reports where.
    """

    user_id: str | int
    item_id: str | int
    interaction_type: str | UnsetType | None = UNSET
    timestamp: str | int | float | UnsetType | None = UNSET
    weight: float | UnsetType | None = UNSET
    rating: float | UnsetType | None = UNSET
    label: int | UnsetType | None = UNSET
    context: JsonObject | UnsetType | None = UNSET


class _Document(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    user_data: list[JsonObject]
    item_data: list[JsonObject]
    interactions: list[Interaction]


FIELDS = Interaction.__struct_fields__


@dataclass
class Document:
    """A dataset of the expected form.

    Attributes:
        user_data: Records of users.
        item_data: Records of items.
        interactions: One list of values for each field.
        keys_left: How many keys the text has beyond those of the document itself and of the fields of interactions.
            Records and contexts have fewer if one of their keys is doubled.
    """

    user_data: list[JsonObject]
    item_data: list[JsonObject]
    interactions: dict[str, list[Json]]
    keys_left: int


def decode(data: bytes, path: Path, faults: Faults) -> Json:
    """Parse a dataset file.

    Returns:
        A Document if the file has the expected form, otherwise the parsed JSON, whose doubled keys are added to
        `faults`. The doubled keys of a Document are found when its records are columns, by `doubled_keys`.

    Raises:
        DataError: If the text is not JSON.
    """
    try:
        document = msgspec.json.decode(data, type=_Document)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return decode_any(data, path, faults)
    rows, document.interactions = document.interactions, []
    interactions, keys = _by_field(rows)
    return Document(document.user_data, document.item_data, interactions, keys_in_text(data) - keys - 3)


def doubled_keys(data: bytes, path: Path, keys_left: int, keys: int, faults: Faults) -> None:
    """Add the doubled keys of a Document's text to `faults`.

    Args:
        data: The text.
        path: Its file, for messages.
        keys_left: The Document's.
        keys: How many keys its records and contexts have.
        faults: Gets the faults.
    """
    if keys_in_text(data) - keys_left + keys != keys_in_text_exactly(data):
        _strictly(data, path, faults)


def decode_any(data: bytes, path: Path, faults: Faults | None = None) -> Json:
    """Parse JSON, or YAML if the file is named so.

    Args:
        data: The text.
        path: Its file, for messages.
        faults: Gets doubled keys of JSON; without it, and in YAML, they raise.

    Raises:
        DataError: If the text is neither, or for doubled keys.
    """
    if is_yaml(path):
        try:
            return parse_yaml(data.decode("utf-8"), path, DataError, data=True)
        except UnicodeDecodeError:
            raise not_utf8(data, path) from None
    found = Faults() if faults is None else faults
    try:
        document = msgspec.json.decode(data)
        keys = keys_of([document])
        if keys != keys_in_text(data) and keys != keys_in_text_exactly(data):
            document = _strictly(data, path, found)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        document = _strictly(data, path, found)
    if faults is None and found:
        raise found.error()
    return document


def _by_field(rows: list[Interaction]) -> tuple[dict[str, list[Json]], int]:
    """Return one list of values for each field, None if a row lacks it, and how many keys the rows have."""
    values: dict[str, list[Json]] = {}
    keys = 0
    for field in FIELDS:
        column = list(map(attrgetter(field), rows))
        types = list(map(type, column))
        missing = types.count(UnsetType)
        keys += len(column) - missing
        if missing:
            column = [None if value is UNSET else value for value in column]
        values[field] = column
    return values, keys


def keys_of(values: list[Json]) -> int:
    """Count the keys of all objects in the values, at any depth."""
    keys, level = 0, values
    while True:
        objects, lists = objects_and_lists(level)
        if not objects and not lists:
            return keys
        keys += sum(map(len, objects))
        level = inside(objects, lists)


def keys_in_text(data: bytes) -> int:
    """Count the keys of JSON text: quotes that a colon follows, perhaps after spaces.

    The count is exact if no text value begins with a colon, otherwise it is too high. If the parsed document has as
    many keys, no key is doubled, since each doubled key is one fewer there.
    """
    text = np.frombuffer(data, np.uint8)
    found = 0
    for start in range(0, len(text), CHUNK):
        before = np.flatnonzero(text[start : start + CHUNK] == COLON) + (start - 1)
        found += len(_after_quote(text, before))
    return found


def _after_quote(text: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Return the positions of quotes, perhaps before spaces, among the positions just before a colon."""
    before = before[before >= 0]
    quotes = [before[text[before] == QUOTE]]
    spaced = before[np.isin(text[before], SPACES)]
    while len(spaced):
        spaced = spaced[spaced > 0] - 1
        quotes.append(spaced[text[spaced] == QUOTE])
        spaced = spaced[np.isin(text[spaced], SPACES)]
    return np.concatenate(quotes)


def keys_in_text_exactly(data: bytes) -> int:
    """Count the keys of JSON text: colons outside texts."""
    text = np.frombuffer(data, np.uint8)
    quotes = np.flatnonzero(text == QUOTE)
    escaped = quotes[(quotes > 0) & (text[np.maximum(quotes - 1, 0)] == BACKSLASH)]
    odd = np.zeros(len(escaped), bool)
    behind = escaped - 1
    live = np.arange(len(escaped))
    while len(live):  # an odd number of backslashes before a quote escapes it
        odd[live] = ~odd[live]
        behind[live] -= 1
        live = live[(behind[live] >= 0) & (text[np.maximum(behind[live], 0)] == BACKSLASH)]
    quotes = quotes[~np.isin(quotes, escaped[odd])]
    colons = np.flatnonzero(text == COLON)
    return int((np.searchsorted(quotes, colons) % 2 == 0).sum())


def _strictly(data: bytes, path: Path, faults: Faults) -> Json:
    """Parse JSON with Python's parser, which reads NaN and shows doubled keys.

    Raises:
        DataError: If the text is not JSON.
    """
    doubled: dict[int, tuple[JsonObject, list[str]]] = {}

    def pairs(items: list[tuple[str, Json]]) -> JsonObject:
        made = dict(items)
        if len(made) < len(items):
            names = [name for name, _ in items]
            doubled[id(made)] = (made, sorted({name for name in names if names.count(name) > 1}))
        return made

    try:
        document = json.loads(data.decode("utf-8"), object_pairs_hook=pairs)
    except UnicodeDecodeError:
        raise not_utf8(data, path) from None
    except json.JSONDecodeError as error:
        raise _syntax_fault(error, path) from None
    except RecursionError:
        raise DataError(Fault(str(path), "the JSON is nested too deeply to be a dataset.", kind="json")) from None
    except ValueError:
        raise _long_number_fault(data, path) from None
    if doubled:
        _point_at_doubled(document, doubled, faults)
    return document


def _point_at_doubled(document: Json, doubled: dict[int, tuple[JsonObject, list[str]]], faults: Faults) -> None:
    todo = [("", document)]
    while todo:
        where, value = todo.pop()
        if type(value) is dict:
            for name in doubled.get(id(value), (value, []))[1]:
                what = f"the key {name!r} stands here more than once."
                faults.add("doubled key", where or "/", what, "Keep one of them.")
            inner = [(str(key).replace("~", "~0").replace("/", "~1"), part) for key, part in value.items()]
        elif type(value) is list:
            inner = [(str(place), part) for place, part in enumerate(value)]
        else:
            continue
        todo += [(f"{where}/{key}", part) for key, part in reversed(inner)]
    if not faults.counts["doubled key"]:  # only inside a value that a doubled key replaced
        faults.add("doubled key", "/", "a key stands more than once in one object.", "Keep one of them.")


def _syntax_fault(error: json.JSONDecodeError, path: Path) -> DataError:
    first = error.doc.split("\n", 1)[0].strip()
    if error.msg == "Extra data" and first.startswith("{") and first.endswith("}"):
        what = f"this file holds one JSON object a line (JSON Lines); {WANTED}."
        return DataError(Fault(str(path), what, WANTED_HINT, "one table"))
    near = error.doc[max(0, error.pos - 30) : error.pos + 30].replace("\n", " ")
    where = f"{path}:{error.lineno}:{error.colno}"
    return DataError(Fault(where, f"not valid JSON: {error.msg}, near '{near}'.", "Correct the file there.", "json"))


def _long_number_fault(data: bytes, path: Path) -> DataError:
    found = re.search(rb"[0-9]{%d,}" % (LONGEST_NUMBER + 1), data)
    where = f"{path}:{data.count(NEWLINE, 0, found.start()) + 1}" if found else str(path)
    what = f"a whole number of more than {LONGEST_NUMBER:,} digits is not data."
    return DataError(Fault(where, what, "Write it as a text, or leave it out.", "json"))
