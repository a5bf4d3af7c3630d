"""Writing a dataset as one JSON file of the published format."""

from __future__ import annotations

from pathlib import Path

import msgspec

from anyrec.core.files import atomic_write
from anyrec.core.types import JsonObject
from anyrec.data.tables import Tables

ROWS_AT_A_TIME = 20_000
"""Records that are Python objects at the same time, which bounds memory."""


def write_json(dataset: Tables, path: Path) -> None:
    """Write users, items and interactions as one JSON file. Missing values are left out."""
    encoder = msgspec.json.Encoder()
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        for start, table in (
            (b'{"user_data":[\n', dataset.users),
            (b'],\n"item_data":[\n', dataset.items),
            (b'],\n"interactions":[\n', dataset.interactions),
        ):
            file.write(start)
            for place in range(0, len(table), ROWS_AT_A_TIME):
                rows = [encoder.encode(nested_record(row)) for row in table.slice(place, ROWS_AT_A_TIME).to_pylist()]
                file.write((b",\n" if place else b"") + b",\n".join(rows))
            file.write(b"\n")
        file.write(b"]}\n")


def nested_record(row: JsonObject) -> JsonObject:
    """Return a table's row as a record: the column `group.name` becomes `{"group": {"name": ...}}`."""
    record: JsonObject = {}
    for name, value in row.items():
        if value is None:
            continue
        group, dot, field = name.partition(".")
        if dot:
            record.setdefault(group, {})[field] = value
        else:
            record[name] = value
    return record
