"""JSON Lines, lists of JSON objects, and lines of Python objects as streams of record batches."""

from __future__ import annotations

import codecs
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from anyrec.core.config.sources import FormatConfig
from anyrec.core.errors import DataError, Fault
from anyrec.core.types import Json, JsonObject
from anyrec.core.values import show
from anyrec.data.formats.decode import decode_any
from anyrec.data.formats.faults import Faults
from anyrec.data.formats.places import table_place
from anyrec.data.list_columns import as_lists
from anyrec.data.sources.contract import Access, Rows
from anyrec.data.sources.python_text import is_python, python_as_json
from anyrec.data.sources.text_stream import not_text
from anyrec.data.sources.unpack import Container, reading

PIECE = 1 << 26
"""Bytes of text that are parsed at a time."""
ACCEPTED = "a table of JSON has one object on each line, or is one list of objects"


def open_json(file: Container, options: FormatConfig, access: Access, notes: list[str]) -> Rows:
    """Open JSON Lines, or a list of objects.

    The types of the columns are those of all rows, so a text that is longer than a piece is parsed twice.

    Args:
        file: The file.
        options: The format.
        access: Which columns are read, and where faults of lines go.
        notes: Gets what was found out about the text.

    Raises:
        DataError: If the file is no such table.
    """
    pieces = _pieces(file)
    first, second = next(pieces, b""), next(pieces, None)
    faults, mixed = access.faults, dict[str, list[int]]()
    if second is None:
        tables: Iterator[pa.Table] = iter([whole := _parse(first, 0, file, faults, mixed)])
        schema = whole.schema
    else:
        parts = [_parse(one, 0, file, Faults(), {}).schema for one in (first, second, *pieces)]
        schema = _unified(parts, file)
        tables = _later(file, schema, faults, mixed)
    wanted = [name for name in schema.names if access.columns is None or name in access.columns]

    def batches() -> Iterator[pa.RecordBatch]:
        for table in tables:
            yield from table.select(wanted).to_batches()

    reader = pa.RecordBatchReader.from_batches(pa.schema([schema.field(name) for name in wanted]), batches())
    place = table_place(file.name)
    return Rows(reader, file.name, file.file.version, names=schema.names, place=place, mixed=mixed, notes=notes)


def _unified(schemas: list[pa.Schema], file: Container) -> pa.Schema:
    try:
        return pa.unify_schemas(schemas, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        what = f"a column has values of several types: {str(error).splitlines()[0].rstrip('.')}."
        raise DataError(Fault(file.name, what, "Write the column with one type.", "column type")) from None


def _later(file: Container, schema: pa.Schema, faults: Faults, mixed: dict[str, list[int]]) -> Iterator[pa.Table]:
    """Yield the pieces of a long text as tables of one schema."""
    start = 0
    for piece in _pieces(file):
        table = _parse(piece, start, file, faults, mixed)
        start += len(table)
        yield pa.concat_tables([schema.empty_table(), table], promote_options="permissive").cast(schema)


def _pieces(file: Container) -> Iterator[bytes]:
    """Yield the text in pieces of whole lines; a list of objects, and Python objects, as JSON Lines."""
    with reading(file.file.name):
        stream = file.text()
        if file.text_head.lstrip().startswith("["):
            yield _lines_of_list(stream.read(), file)
            return
        python = is_python(file.text_head)
        kept = b""
        while chunk := stream.read(PIECE):
            cut = chunk.rfind(b"\n") + 1
            piece, kept = (kept + chunk[:cut], chunk[cut:]) if cut else (b"", kept + chunk)
            if piece:
                yield python_as_json(_checked(piece, file)) if python else piece
        if kept:
            yield python_as_json(_checked(kept, file)) if python else kept


def _lines_of_list(data: bytes, file: Container) -> bytes:
    """Return the objects of a list, one on each line."""
    try:
        objects = msgspec.json.decode(data.replace(b"\n", b" "), type=list[msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        decode_any(data, Path(file.file.name))  # raises for text that is not JSON
        raise DataError(Fault(file.name, f"{ACCEPTED}.", kind="shape")) from None
    return b"\n".join(map(bytes, objects)) + b"\n"


def _parse(piece: bytes, start: int, file: Container, faults: Faults, mixed: dict[str, list[int]]) -> pa.Table:
    """Parse lines. Times stay texts, since the mapping of the columns decides which are times.

    Args:
        piece: The lines.
        start: Number of the first row.
        file: The file, for messages.
        faults: Gets a fault for each line that is no object.
        mixed: Gets the rows of the rarer types of each column of several types.
    """
    piece = _checked(piece, file)
    try:
        table = _fast(piece)
        times = [field for field in table.schema if with_texts(field.type) != field.type]
        if times:
            table = _fast(piece, pa.schema([(field.name, with_texts(field.type)) for field in times]))
    except pa.ArrowInvalid:
        return _slow(piece, start, file, faults, mixed)
    return table


def _fast(piece: bytes, schema: pa.Schema | None = None) -> pa.Table:
    options = pyarrow.json.ParseOptions(explicit_schema=schema)
    longest = pyarrow.json.ReadOptions(block_size=max(1 << 20, min(len(piece), 1 << 24)))
    try:
        return pyarrow.json.read_json(pa.BufferReader(piece), longest, options)
    except pa.ArrowInvalid as error:
        if "straddl" not in str(error):
            raise
        whole = pyarrow.json.ReadOptions(block_size=len(piece) + 1)
        return pyarrow.json.read_json(pa.BufferReader(piece), whole, options)


def with_texts(kind: pa.DataType) -> pa.DataType:
    """Return a type with texts in place of times."""
    if pa.types.is_timestamp(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(with_texts(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, with_texts(field.type)) for field in kind])
    return kind


def _slow(piece: bytes, start: int, file: Container, faults: Faults, mixed: dict[str, list[int]]) -> pa.Table:
    """Parse lines one by one: reports those that are no objects, and reads columns of several types as texts."""
    rows: list[JsonObject] = []
    for number, line in enumerate(filter(bytes.strip, piece.split(b"\n")), start + 1):
        try:
            row = decode_any(line, Path(file.name))
        except DataError as error:
            row = error.faults[0].what
        if not isinstance(row, dict):
            what = f"this is no JSON object: {show(row)}."
            faults.add("json", f"{file.name} row {number}", what, f"{ACCEPTED.capitalize()}.")
        rows.append(row if isinstance(row, dict) else {})
    columns = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        columns[name], rarer = _column([row.get(name) for row in rows])
        if rarer is not None:
            mixed[name] = [*mixed.get(name, []), *(start + row for row in rarer)]
    return pa.table(columns)


def _column(values: list[Json]) -> tuple[pa.Array, list[int] | None]:
    """Return a column, and the rows of its rarer types if it has several; it is of texts then."""
    try:
        return pa.array(values), None
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        kinds = Counter(type(value) for value in values if value is not None)
        common = kinds.most_common(1)[0][0]
        texts = [value if value is None or isinstance(value, str) else _as_text(value) for value in values]
        rarer = [row for row, value in enumerate(values) if value is not None and type(value) is not common]
        return pa.array(texts, pa.string()), rarer


def _as_text(value: Json) -> str:
    return msgspec.json.encode(value).decode()


def _checked(piece: bytes, file: Container) -> bytes:
    """Return bytes that are UTF-8. Raises DataError for others."""
    try:
        codecs.decode(piece, "utf-8")
    except UnicodeDecodeError:
        raise not_text(file) from None
    return piece


class JsonFault(ValueError):
    """Texts that are not JSON.

    Attributes:
        rows: Their rows.
    """

    def __init__(self, rows: list[int]):
        super().__init__(f"{len(rows)} texts are not JSON")
        self.rows = rows


def parse_values(texts: pa.Array) -> pa.Array:
    """Parse one JSON value in each text.

    Args:
        texts: (rows,) string.

    Returns:
        (rows,) lists of texts, or of another type if all values have it; a single value is a list of one.

    Raises:
        JsonFault: With the rows that are not JSON.
    """
    if texts.null_count == len(texts):
        return pa.nulls(len(texts), pa.list_(pa.string()))
    one_line = pc.replace_substring_regex(pc.fill_null(texts, "null"), r"[\r\n]", " ")
    lines = pc.binary_join_element_wise('{"value":', one_line, "}\n", "").cast(pa.large_string())
    start, end = np.frombuffer(lines.buffers()[1], np.int64)[[lines.offset, lines.offset + len(lines)]]
    piece = lines.buffers()[2].slice(start, end - start).to_pybytes()
    try:
        table = _fast(piece)
        kind = with_texts(table.schema.field("value").type)
        table = _fast(piece, pa.schema([("value", kind)])) if kind != table.schema.field("value").type else table
        values = table.column("value").combine_chunks()
    except pa.ArrowInvalid:
        values = _value_by_value(one_line)
    if len(values) != len(texts):
        raise JsonFault([])
    if pa.types.is_list(values.type):
        return values
    return as_lists(values.drop_null(), values.is_valid().to_numpy(zero_copy_only=False), values.is_null())


def _value_by_value(texts: pa.Array) -> pa.Array:
    """Parse texts whose values have several types, as lists of texts. Raises JsonFault."""
    found: list[list[str | None] | None] = []
    wrong = []
    for row, text in enumerate(texts.to_pylist()):
        try:
            value = msgspec.json.decode(text)
        except (msgspec.MsgspecError, RecursionError):
            wrong.append(row)
            continue
        parts = value if isinstance(value, list) else [value]
        texts_of = [part if part is None or isinstance(part, str) else _as_text(part) for part in parts]
        found.append(None if value is None else texts_of)
    if wrong:
        raise JsonFault(wrong)
    return pa.array(found, pa.list_(pa.string()))
