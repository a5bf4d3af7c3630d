"""Records (JSON, or lines of JSON) to the three tables of a dataset. Every fault is reported."""

from __future__ import annotations

from itertools import repeat

import pyarrow as pa

from anyrec.core.errors import suggestion
from anyrec.core.types import Json, JsonObject
from anyrec.core.values import show
from anyrec.data.formats.columns import (
    ALLOWED,
    feature_column,
    id_column,
    name_fault,
    number_column,
    text_column,
    time_column,
)
from anyrec.data.formats.decode import FIELDS, Document, keys_of
from anyrec.data.formats.faults import Faults
from anyrec.data.formats.nested import check_nested, is_text
from anyrec.data.formats.places import Place, Pointer, column_of, json_place
from anyrec.data.ids import Side

GROUPS = ("image", "text", "categorical", "continuous", "temporal")


def document_tables(
    document: Document | dict[str, list[Json]], faults: Faults, notes: list[str], missing_ok: bool = False
) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Convert a document to tables.

    The lists of the document are emptied, so that rows are freed once they are columns.

    Args:
        document: The document.
        faults: Gets the faults.
        notes: Gets what the user should know.
        missing_ok: Keep a null id for an interaction without a user or an item, which the caller drops.

    Returns:
        Users, items and interactions.
    """

    def part(name: str) -> Json:
        rows = getattr(document, name) if isinstance(document, Document) else document[name]
        if isinstance(document, Document):
            setattr(document, name, [])
        else:
            document[name] = []
        return rows

    place = json_place("interactions")
    interactions = interaction_table(part("interactions"), place, faults, notes, missing_ok=missing_ok)
    users = record_table(part("user_data"), "user", json_place("user_data"), faults, notes)
    return users, record_table(part("item_data"), "item", json_place("item_data"), faults, notes), interactions


def record_table(
    rows: list[Json], side: Side, place: Place, faults: Faults, notes: list[str], flat: bool = False
) -> pa.Table:
    """Convert records of users or items to a table.

    Args:
        rows: (rows,) Records.
        side: Whose records these are.
        place: Where each row is in its source.
        faults: Gets the faults.
        notes: Gets what the user should know.
        flat: Accept keys named `group.name` as well, as in tables.

    Returns:
        (rows,) ids and one column for each feature, named `group.name`.
    """
    key = f"{side}_id"
    rows = _objects(rows, place, faults)
    faults.keys += sum(map(len, rows))
    columns = {key: id_column(_values(rows, key), column_of(place, key), faults)}
    keys = _keys(rows, place, faults)
    flat_names = [name for name in keys if flat and "." in name]
    for group in keys:
        if group == key or (group in flat_names and group.partition(".")[0] in keys):
            continue
        values = _values(rows, group)
        if group in flat_names:
            features = {group: values}
        else:
            features = _features(values, group, key, place, faults)
            for name in flat_names:
                if name.startswith(f"{group}."):
                    features[name] = _merged(_values(rows, name), features.get(name), column_of(place, name), faults)
        for column, cells in features.items():
            _add_feature(columns, column, cells, side, place, faults, notes)
    return pa.table(columns)


def _merged(given: list[Json], nested: list[Json] | None, pointer: Pointer, faults: Faults) -> list[Json]:
    """Return the values of a feature that some records give as `group.name` and others within the group."""
    if nested is None:
        return given
    both = [row for row, values in enumerate(zip(given, nested, strict=True)) if None not in values]
    faults.add_rows(
        "doubled key", both, lambda row: (pointer(row), "this feature is given twice.", "Keep one of them.")
    )
    return [inner if value is None else value for value, inner in zip(given, nested, strict=True)]


def _features(values: list[Json], group: str, key: str, place: Place, faults: Faults) -> dict[str, list[Json]]:
    """Return the features of a group, by column name."""
    wrong = [row for row, value in enumerate(values) if value is not None and type(value) is not dict]
    head, _, tail = group.partition(".")
    if wrong:
        hint = suggestion(group, [key, *GROUPS]) or f'Put it into a group: {{"text": {{"{group}": ...}}}}, for example.'
        faults.add_rows(
            "bad value",
            wrong,
            lambda row: (
                place(row, group),
                f"a feature group is an object of named features; found {show(values[row])}.",
                f'Write {{"{head}": {{"{tail or "name"}": ...}}}}.' if head in GROUPS else hint,
            ),
        )
    groups = [value if type(value) is dict else {} for value in values]
    faults.keys += sum(map(len, groups))
    if len(wrong) == len(values):
        return {}
    fault = name_fault(group)
    if fault:
        faults.add("bad name", place(0, ""), *fault)
        return {}
    return {f"{group}.{name}": _values(groups, name) for name in _keys(groups, place, faults, group)}


def _add_feature(
    columns: dict[str, pa.Array],
    column: str,
    values: list[Json],
    side: str,
    place: Place,
    faults: Faults,
    notes: list[str],
) -> None:
    """Add a feature to the columns, unless its name is a fault or no record has a value."""
    group, _, name = column.partition(".")
    first = next((row for row, value in enumerate(values) if value is not None), None)
    fault = name_fault(group, name)
    if fault:
        faults.add("bad name", place(first or 0, ""), *fault)
    elif first is None:
        notes.append(f"The {side} feature '{column}' has a value in no record and is left out.")
    else:
        if group not in ALLOWED:
            faults.keys += keys_of(values)
        columns[column] = feature_column(group, values, column_of(place, column), faults)


def interaction_table(
    rows: list[Json] | dict[str, list[Json]],
    place: Place,
    faults: Faults,
    notes: list[str],
    flat: bool = False,
    missing_ok: bool = False,
) -> pa.Table:
    """Convert interactions to a table.

    Args:
        rows: Records, or one list of values for each field.
        place: Where each row is in its source.
        faults: Gets the faults.
        notes: Gets what the user should know.
        flat: Accept keys named `context.name` as well, as in tables.
        missing_ok: Keep a null id for an interaction without a user or an item, which the caller drops.
    """
    contexts: dict[str, list[Json]] = {}
    if isinstance(rows, dict):
        values = rows
    else:
        rows = _objects(rows, place, faults)
        values = {field: _values(rows, field) for field in FIELDS}
        extra = [name for name in _keys(rows, place, faults) if name not in FIELDS]
        contexts = {name: _values(rows, name) for name in extra if flat and name.startswith("context.")}
        unused = [name for name in extra if name not in contexts]
        for name in unused:
            if not is_text((name,)):
                faults.add("bad name", place(0, ""), f"the key {show(name)} holds half characters.", "Rename it.")
            check_nested(_values(rows, name), column_of(place, name), faults)
        if unused:
            notes.append(unused_note(unused))
    columns = {}
    for key in ("user_id", "item_id"):
        columns[key] = id_column(values[key], column_of(place, key), faults, missing_ok)
    for name in ("weight", "rating", "label"):
        if set(map(type, values[name])) - {type(None)}:
            columns[name] = number_column(values[name], column_of(place, name), faults, name)
    if set(map(type, values["timestamp"])) - {type(None)}:
        columns["timestamp"] = time_column(values["timestamp"], column_of(place, "timestamp"), faults)
    kinds = set(map(type, values["interaction_type"])) - {type(None)}
    if kinds:
        columns["interaction_type"] = _types(values["interaction_type"], bool(kinds - {str}), place, faults)
    contexts = {**_contexts(values["context"], place, faults), **contexts}
    for column, cells in contexts.items():
        _add_feature(columns, column, cells, "interaction", place, faults, notes)
    return pa.table(columns)


def unused_note(names: list[str]) -> str:
    """Return a note on keys of interactions that are not used, and which fields they may be meant as."""
    meant = [f"'{name}': {near}" for name in names if (near := suggestion(name, FIELDS))]
    what = ", ".join(f"'{name}'" for name in names) + (", which is" if len(names) == 1 else ", which are")
    return f"Interactions also have {what} not used: further facts belong in 'context'." + (
        " " + " ".join(meant) if meant else ""
    )


def _types(values: list[Json], odd: bool, place: Place, faults: Faults) -> pa.Array:
    """Return interaction types as texts."""
    if odd:
        faults.add_rows(
            "bad value",
            [row for row, value in enumerate(values) if value is not None and type(value) is not str],
            lambda row: (place(row, "interaction_type"), f"expected a text; found {show(values[row])}.", ""),
        )
        texts = [value if type(value) is str else None for value in values]
    else:
        texts = values
    return text_column(texts, column_of(place, "interaction_type"), faults)


def _contexts(values: list[Json], place: Place, faults: Faults) -> dict[str, list[Json]]:
    """Return the values of each context feature, by column name."""
    kinds = set(map(type, values)) - {type(None)}
    if not kinds:
        return {}
    if kinds != {dict}:
        faults.add_rows(
            "bad value",
            [row for row, value in enumerate(values) if value is not None and type(value) is not dict],
            lambda row: (place(row, "context"), f"expected an object; found {show(values[row])}.", ""),
        )
    rows = [value if type(value) is dict else {} for value in values]
    faults.keys += sum(map(len, rows))
    return {f"context.{name}": _values(rows, name) for name in _keys(rows, place, faults, "context")}


def _keys(rows: list[JsonObject], place: Place, faults: Faults, group: str = "") -> list[str]:
    """Return the keys of all rows, sorted. A key that is no text, which Python mappings may have, is a fault."""
    keys = set().union(*rows)
    for key in sorted((key for key in keys if type(key) is not str), key=repr):
        row = next(row for row, value in enumerate(rows) if key in value)
        faults.add("bad name", place(row, group), f"a key is a text; found {show(key)}.", "Write it as a text.")
    return sorted(key for key in keys if type(key) is str)


def _values(rows: list[JsonObject], key: str) -> list[Json]:
    """Return the values of one key, None for a row without it."""
    return list(map(dict.get, rows, repeat(key)))


def _objects(rows: list[Json], place: Place, faults: Faults) -> list[JsonObject]:
    """Return the rows, with an empty object for each row that is no object, which is a fault."""
    if set(map(type, rows)) <= {dict}:
        return rows
    wrong = [row for row, value in enumerate(rows) if type(value) is not dict]
    faults.add_rows("shape", wrong, lambda row: (place(row, ""), f"expected an object; found {show(rows[row])}.", ""))
    return [value if type(value) is dict else {} for value in rows]  # the others keep their places, and their pointers
