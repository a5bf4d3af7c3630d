"""Tables of lists as files: Parquet, CSV, JSON Lines or JSON, by the ending of the name."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from anyrec.core.errors import Fault, InputError
from anyrec.core.files import atomic_write

TABLES = (".parquet", ".csv", ".jsonl", ".ndjson")
JSON = ".json"
OTHER_TABLES = (".tsv", ".xls", ".xlsx", ".ods", ".arrow", ".feather", ".orc", ".gz", ".bz2", ".xz", ".zst", ".zip")
"""Endings of formats that are not supported; a result document may have any other ending."""


def check_result_ending(path: Path) -> None:
    """Raise InputError if the ending is that of a table format in which a result cannot be written."""
    if path.suffix.lower() in OTHER_TABLES:
        check_ending(path)


def check_ending(path: Path) -> None:
    """Raise InputError unless lists can be written to a file of this name. Without an ending it is Parquet."""
    if path.suffix.lower() not in ("", *TABLES, JSON):
        what = f"lists cannot be written as '{path.suffix}'."
        raise InputError(Fault("--output", what, f"Name a file that ends in {', '.join([*TABLES, JSON])}.", "option"))


@contextmanager
def open_lists(path: Path, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """Write a table in parts.

    Args:
        path: The file; it is replaced when the block ends without an error.
        schema: Schema of all parts.

    Yields:
        A function that appends a table.
    """
    ending = path.suffix.lower()
    with atomic_write(path) as temporary, ExitStack() as opened:
        if ending in ("", ".parquet"):
            sink = opened.enter_context(_Counted(temporary))
            yield opened.enter_context(pyarrow.parquet.ParquetWriter(sink, schema)).write_table
        elif ending == ".csv":
            yield opened.enter_context(pyarrow.csv.CSVWriter(temporary, schema)).write_table
        else:
            file, encoder, count = opened.enter_context(temporary.open("wb")), msgspec.json.Encoder(), 0
            before, between, after = (b"[\n", b",\n", b"\n]\n") if ending == JSON else (b"", b"\n", b"\n")

            def append(table: pa.Table) -> None:
                nonlocal count
                for row in table.to_pylist():
                    file.write((between if count else b"") + encoder.encode(row))
                    count += 1

            file.write(before)
            yield append
            file.write(after if count or ending == JSON else b"")


class _Counted(io.RawIOBase):
    """A file that counts its bytes: the Parquet writer needs the position, which a pipe does not have."""

    def __init__(self, path: Path):
        self.file, self.count = path.open("wb", buffering=0), 0

    def writable(self) -> bool:
        """Return True."""
        return True

    # pyarrow writes bytes and memoryviews, not any buffer.
    def write(self, data: bytes | memoryview, /) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Write all bytes and return their number."""
        left = memoryview(data)
        size = left.nbytes
        while left.nbytes:
            left = left[self.file.write(left) :]
        self.count += size
        return size

    def tell(self) -> int:
        """Return the number of bytes written."""
        return self.count

    def close(self) -> None:
        """Close the file."""
        self.file.close()
        super().close()


def write_table(table: pa.Table, path: Path) -> None:
    """Write a table as a file in the format of its ending."""
    with open_lists(path, table.schema) as append:
        append(table)
