"""The three parts of a dataset (users, items, interactions) as tables, on their way to the types of `Tables`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from anyrec.core.scratch import Scratch
from anyrec.data.formats.arrow_types import UnreadableType, plain
from anyrec.data.formats.csv_file import whole_number_ids
from anyrec.data.formats.faults import Faults
from anyrec.data.formats.places import Place
from anyrec.data.formats.table_columns import Columns, normalised
from anyrec.data.ids import ID_COLUMNS, Side

PARTS = ("users", "items", "interactions")
SIDE_OF: dict[str, Side] = {"users": "user", "items": "item"}


@dataclass
class Part:
    """One of the three tables.

    Attributes:
        table: The columns, in the types of `Tables`.
        place: Where each row is in its source.
    """

    table: pa.Table
    place: Place


@dataclass
class Raw:
    """One of the three tables as it was read.

    Attributes:
        columns: The columns, in the types of their source.
        rows: The number of rows.
        source: The name of the file or the part, for messages.
        place: Where each row is in its source.
        is_csv: Whether all values are texts because the format has no types.
        scratch: Where the columns are kept, if they do not fit into memory.
    """

    columns: Columns
    rows: int
    source: str
    place: Place
    is_csv: bool = False
    scratch: Scratch | None = None


def no_records(part: str) -> pa.Table:
    """Return an empty table of users, items or interactions that has the id columns alone."""
    names = {"users": ["user_id"], "items": ["item_id"], "interactions": ["user_id", "item_id"]}[part]
    return pa.table({name: pa.array([], pa.string()) for name in names})


def finish_parts(
    parts: Mapping[str, Part | Raw],
    faults: Faults,
    notes: list[str],
    *,
    missing_ok: bool = False,
    known_ids: Mapping[str, pa.Array] | None = None,
) -> dict[str, Part]:
    """Convert parts to the types of `Tables`.

    Args:
        parts: Parts by name: users, items, interactions.
        faults: Gets the faults.
        notes: Gets what the user should know.
        missing_ok: Keep a null id for an interaction without a user or an item, which the caller drops.
        known_ids: By `user_id` and `item_id`, the ids that a model knows. Ids in CSV files take their types.

    Returns:
        The parts by name.
    """
    known_ids = known_ids or {}
    _type_csv_ids(parts, {key: [ids.type] for key, ids in known_ids.items()})
    item_ids: pa.Array | list[object] | None = known_ids.get("item_id")
    made: dict[str, Part] = {}
    for part in ("items", "users", "interactions"):  # items first: numerals of temporal columns may be item ids
        found = parts.get(part)
        if isinstance(found, Raw):
            if item_ids is None and part == "items":
                item_ids = next((column for name, column in found.columns if name == "item_id"), None)
            found = _normalised(found, part, item_ids, faults, notes, missing_ok)
        if found is not None:
            if item_ids is None and part == "items":
                item_ids = found.table.column("item_id").combine_chunks()
            made[part] = found
    return made


def _normalised(
    raw: Raw,
    part: str,
    item_ids: pa.Array | list[object] | None,
    faults: Faults,
    notes: list[str],
    missing_ok: bool,
) -> Part:
    table = normalised(
        raw.columns,
        raw.rows,
        SIDE_OF.get(part, ""),
        raw.source,
        raw.place,
        faults,
        notes,
        missing_ok=missing_ok and part not in SIDE_OF,
        item_ids=item_ids if isinstance(item_ids, pa.StringArray) else None,
        scratch=raw.scratch,
    )
    return Part(table, raw.place)


def _type_csv_ids(parts: Mapping[str, Part | Raw], known: dict[str, list[pa.DataType]]) -> None:
    """Convert the id columns of CSV files to the type that the ids have elsewhere."""
    raw = [part for part in parts.values() if isinstance(part, Raw) and part.is_csv]
    typed: dict[str, list[pa.DataType]] = {key: list(known.get(key, [])) for key in ID_COLUMNS}
    for part in parts.values():
        if isinstance(part, Part):
            if len(part.table):
                for key in ID_COLUMNS:
                    typed[key] += [field.type for field in part.table.schema if field.name == key]
        elif not part.is_csv:
            for name, column in part.columns:
                if name in ID_COLUMNS:
                    typed[name].append(_plain_type(column))
    for part, columns in zip(raw, whole_number_ids([part.columns for part in raw], typed), strict=True):
        part.columns = columns


def _plain_type(column: pa.Array | list[object]) -> pa.DataType:
    if isinstance(column, list):
        return pa.string()
    try:
        return plain(column)[0].type
    except UnreadableType:
        return column.type
