"""Files of any supported format as one stream of record batches."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

import pyarrow as pa

from anyrec.core.config.sources import FormatConfig
from anyrec.core.errors import DataError, Fault
from anyrec.data.formats.places import Place
from anyrec.data.sources.contract import Access, Rows, SourceFile
from anyrec.data.sources.csv_stream import open_adjacency, open_csv
from anyrec.data.sources.excel import open_excel
from anyrec.data.sources.json_stream import open_json
from anyrec.data.sources.typed_files import open_arrow, open_parquet
from anyrec.data.sources.unpack import Container, open_container

ENDINGS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".tab": "csv",
    ".txt": "csv",
    ".dat": "csv",
    ".data": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".xlsx": "excel",
    ".xlsm": "excel",
    ".xls": "excel",
    ".ods": "excel",
}
"""Format of each ending."""
SPREADSHEETS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
"""First bytes of spreadsheets; other zip archives are unpacked before."""
Opener = Callable[[Container, FormatConfig, Access, list[str]], Rows]
OPENERS: dict[str, Opener] = {
    "csv": open_csv,
    "jsonl": open_json,
    "json": open_json,
    "parquet": open_parquet,
    "arrow": open_arrow,
    "adjacency": open_adjacency,
    "excel": open_excel,
}


def decode(files: list[SourceFile], options: FormatConfig, access: Access) -> Rows:
    """Return the rows of files, one file after the other.

    Files need not have the same columns: a column that a file lacks is null in its rows. The types of a column in
    several files are brought to one type that holds the values of all.

    Args:
        files: The files, in the order of their rows.
        options: The format.
        access: Which columns are read, and where faults go.

    Raises:
        DataError: If a file cannot be opened or is of no known format.
    """
    notes: list[str] = []
    opened = [_open(file, options, access, notes) for file in files]
    if len(opened) == 1:
        return opened[0]
    starts, mixed = [0], dict[str, list[int]]()
    schema = _common_schema(opened)

    def batches() -> Iterator[pa.RecordBatch]:
        for rows in opened:
            count = 0
            for batch in rows.reader:
                count += len(batch)
                yield _as_schema(batch, schema)
            for name, found in rows.mixed.items():
                mixed[name] = [*mixed.get(name, []), *(starts[-1] + row for row in found)]
            starts.append(starts[-1] + count)

    names = list(dict.fromkeys(name for rows in opened for name in rows.names or rows.reader.schema.names))
    return Rows(
        pa.RecordBatchReader.from_batches(schema, batches()),
        name=f"{opened[0].name} and {len(opened) - 1} more",
        version="; ".join(f"{rows.name}: {rows.version}" for rows in opened),
        names=names,
        place=_place_in(opened, starts),
        untyped=all(rows.untyped for rows in opened),
        mixed=mixed,
        notes=notes,
    )


def format_of(file: Container, options: FormatConfig) -> str:
    """Return the format of a file: as the config says, by its first bytes, or by its ending.

    Raises:
        DataError: If it is none that is read.
    """
    if options.type != "auto":
        return options.type
    if file.head.startswith(b"PAR1"):
        return "parquet"
    if file.head.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
        return "arrow"
    if file.head.startswith(SPREADSHEETS):
        return "excel"
    ending = PurePosixPath(file.stem).suffix.lower()
    first = file.text_head.lstrip()[:1]
    if ending in (".jsonl", ".ndjson", ".json") or (ending not in ENDINGS and first == "{"):
        return "json" if first == "[" else "jsonl"
    return ENDINGS.get(ending, "csv")


def _open(file: SourceFile, options: FormatConfig, access: Access, notes: list[str]) -> Rows:
    container = open_container(file, options.encoding, notes)
    rows = OPENERS[format_of(container, options)](container, options, access, notes)
    return _with_partition(rows, file.partition) if file.partition else rows


def _with_partition(rows: Rows, partition: dict[str, str]) -> Rows:
    """Add the columns that the folders of a file name."""
    schema = rows.reader.schema
    added = [name for name in partition if name not in schema.names]
    for name in added:
        schema = schema.append(pa.field(name, pa.string()))

    def batches(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        for batch in reader:
            for name in added:
                batch = batch.append_column(name, pa.array([partition[name]] * len(batch), pa.string()))
            yield batch

    rows.names = [*(rows.names or rows.reader.schema.names), *added]
    rows.reader = pa.RecordBatchReader.from_batches(schema, batches(rows.reader))
    return rows


def _common_schema(opened: list[Rows]) -> pa.Schema:
    """Return a schema that holds the columns of all files. Raises DataError if a column has types without one."""
    try:
        return pa.unify_schemas([rows.reader.schema for rows in opened], promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        hint = "Write the column with one type, or name the files as separate tables."
        what = f"the files do not have the same types: {reason}."
        raise DataError(Fault(opened[0].name, what, hint, "column type")) from None


def _as_schema(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    columns = [
        batch.column(field.name).cast(field.type)
        if field.name in batch.schema.names
        else pa.nulls(len(batch), field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _place_in(opened: list[Rows], starts: list[int]) -> Place:
    """Return the places of rows of several files. starts: The first row of each file that was read."""

    def place(row: int, column: str) -> str:
        number = min(bisect_right(starts, row) - 1, len(opened) - 1)
        inner = opened[number].place
        return inner(row - starts[number], column) if inner is not None else f"row {row + 1}"

    return place
