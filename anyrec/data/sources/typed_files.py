"""Parquet, Arrow IPC and Feather files as streams of record batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet

from anyrec.core.config.sources import FormatConfig
from anyrec.core.errors import DataError, Fault
from anyrec.data.formats.places import table_place
from anyrec.data.sources.contract import Access, Rows
from anyrec.data.sources.unpack import Container

ROWS = 1 << 17
"""Rows of a batch of a Parquet file."""


def open_parquet(file: Container, options: FormatConfig, access: Access, notes: list[str]) -> Rows:
    """Open a Parquet file. Raises DataError if it cannot be read."""
    with _readable(file, "Parquet"):
        parquet = pyarrow.parquet.ParquetFile(_seekable(file))
        schema = parquet.schema_arrow
        columns = _wanted(schema, access)

    def batches() -> Iterator[pa.RecordBatch]:
        with _readable(file, "Parquet"):
            yield from parquet.iter_batches(ROWS, columns=columns)

    return _rows(file, schema, columns, batches())


def open_arrow(file: Container, options: FormatConfig, access: Access, notes: list[str]) -> Rows:
    """Open an Arrow IPC file or stream, or a Feather file. Raises DataError if it cannot be read."""
    with _readable(file, "Arrow"):
        if file.head.startswith(b"FEA1"):
            table = pyarrow.feather.read_table(_seekable(file))
            schema, parts = table.schema, iter(table.to_batches())
        elif file.head.startswith(b"ARROW1"):
            reader = pa.ipc.open_file(_seekable(file))
            schema, parts = reader.schema, (reader.get_batch(n) for n in range(reader.num_record_batches))
        else:
            stream = pa.ipc.open_stream(file.stream())
            schema, parts = stream.schema, iter(stream)
    columns = _wanted(schema, access)

    def batches() -> Iterator[pa.RecordBatch]:
        with _readable(file, "Arrow"):
            for batch in parts:
                yield batch.select(columns)

    return _rows(file, schema, columns, batches())


def _rows(file: Container, schema: pa.Schema, columns: list[str], batches: Iterator[pa.RecordBatch]) -> Rows:
    wanted = pa.schema([schema.field(name) for name in columns])
    reader = pa.RecordBatchReader.from_batches(wanted, batches)
    return Rows(reader, file.name, file.file.version, names=schema.names, place=table_place(file.name))


def _wanted(schema: pa.Schema, access: Access) -> list[str]:
    names = dict.fromkeys(schema.names)
    return [name for name in names if access.columns is None or name in access.columns]


def _seekable(file: Container) -> pa.NativeFile:
    stream = file.stream()
    return stream if stream.seekable() else pa.BufferReader(stream.read())


@contextmanager
def _readable(file: Container, kind: str) -> Iterator[None]:
    """Turn errors of reading a file into DataError."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise DataError(Fault(file.name, f"cannot be read as {kind}: {reason}.", kind="unreadable")) from None
