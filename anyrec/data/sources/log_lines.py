"""The lines of a log of events as columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from anyrec.core.types import JsonObject
from anyrec.core.values import show
from anyrec.data.formats.columns import name_fault, time_column
from anyrec.data.formats.faults import Faults
from anyrec.data.sources.json_stream import with_texts

TIMES = ("timestamp", "received")
NUMBERS = (*TIMES, "rating", "label", "weight", "value")
CONTEXT = "context"
BLOCK = 1 << 24
"""Bytes that one thread parses at a time."""
MIXED = object()
"""Stands for the type of a context with values of several types."""


def parsed(piece: bytes, schema: pa.Schema, file: str, start: int, faults: Faults) -> pa.Table:
    """Return columns of the events on lines.

    Args:
        piece: The lines.
        schema: The columns. Times are seconds since 1970.
        file: What precedes the number of a line in messages.
        start: How many lines precede these.
        faults: Gets a fault for each line that is no event, and each value of another type.
    """
    how = pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    try:
        return pyarrow.json.read_json(pa.BufferReader(piece), pyarrow.json.ReadOptions(block_size=BLOCK), how)
    except pa.ArrowInvalid:  # times as texts, which programs can log, and lines that are no events
        rows = [event_of(line, f"{file} {start + n}", faults) for n, line in enumerate(piece.splitlines(), 1)]
        columns = [_column([row.get(one.name) for row in rows], one, file, start, faults) for one in schema]
        return pa.table(columns, schema=schema)


def context_types(piece: bytes) -> dict[str, object]:
    """Return the types of the contexts of the events on lines, by name; MIXED for values of several types."""
    if b'"context":' not in piece:
        return {}
    try:
        table = pyarrow.json.read_json(pa.BufferReader(piece), pyarrow.json.ReadOptions(block_size=BLOCK))
        kind = table.schema.field(CONTEXT).type
        return {one.name: with_texts(one.type) for one in kind} if pa.types.is_struct(kind) else {}
    except (pa.ArrowInvalid, KeyError):
        rows = [event_of(line, "", Faults()).get(CONTEXT) for line in piece.splitlines()]
        contexts = [row for row in rows if isinstance(row, dict)]
        names = dict.fromkeys(name for row in contexts for name in row)
        return {name: _type_of([row.get(name) for row in contexts]) for name in names}


def _type_of(values: list[object]) -> object:
    try:
        return pa.array(values).type
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return MIXED


def one_type_each(found: Iterable[Mapping[str, object]]) -> tuple[dict[str, pa.DataType], list[str]]:
    """Return the type of each context in all pieces, and the names of those that have none or no valid name.

    Args:
        found: What `context_types` returned for each piece.
    """
    kinds: dict[str, list[object]] = {}
    for types in found:
        for name, kind in types.items():
            kinds.setdefault(name, []).append(kind)
    made, left = {}, []
    for name, several in kinds.items():
        try:
            if MIXED in several or name_fault(CONTEXT, name) is not None:
                raise pa.ArrowInvalid
            schemas = [pa.schema([(name, kind)]) for kind in several]
            kind = pa.unify_schemas(schemas, promote_options="permissive").field(0).type
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            left.append(name)
            continue
        if not pa.types.is_null(kind):
            made[name] = kind
    return made, left


def event_of(line: bytes, where: str, faults: Faults) -> JsonObject:
    """Return the event on a line; without any values if it is none, which is a fault."""
    try:
        found = msgspec.json.decode(line)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        found = None
    if not isinstance(found, dict):
        faults.add("json", where, "this line is no event.", "Restore the file from a backup, or remove the line.")
    return found if isinstance(found, dict) else {}


def _column(values: list[object], kind: pa.Field, file: str, start: int, faults: Faults) -> pa.Array:
    """Return values of events as a column; those of another type are faults, but for times in texts."""

    def pointer(row: int) -> str:
        return f"{file} {start + row + 1}, column '{kind.name}'"

    if pa.types.is_struct(kind.type):
        names = [one.name for one in kind.type]
        return pa.array([_chosen(value, names) for value in values], kind.type)
    expected = {pa.int64(): (int,), pa.float64(): (int, float)}.get(kind.type, (str,))
    other = [None if type(value) in expected else value for value in values]
    found = pa.array([value if type(value) in expected else None for value in values], kind.type)
    if kind.name in TIMES:
        return pc.coalesce(
            found, pc.divide(time_column(other, pointer, faults).cast(pa.int64()).cast(pa.float64()), 1e6)
        )
    wrong = [row for row, value in enumerate(other) if value is not None]
    what = "is of another type than in the first event."
    faults.add_rows("bad value", wrong, lambda row: (pointer(row), f"{show(values[row])} {what}", "Correct it."))
    return found


def _chosen(context: object, names: list[str]) -> JsonObject | None:
    return {name: context.get(name) for name in names} if isinstance(context, dict) else None
