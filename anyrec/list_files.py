"""Tables of lists as files: Parquet, CSV, JSON Lines or JSON, by the file's ending."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from anyrec.errors import Fault, InputError
from anyrec.files import atomic_write

TABLES = (".parquet", ".csv", ".jsonl", ".ndjson")
JSON = ".json"


OTHER_TABLES = (".tsv", ".xls", ".xlsx", ".ods", ".arrow", ".feather", ".orc", ".gz", ".bz2", ".xz", ".zst", ".zip")
"""Endings of formats that are not written; a result document may have any other ending."""


def check_result_ending(path: Path) -> None:
    """Raises InputError if the ending names a format of tables that a result cannot be written in."""
    if path.suffix.lower() in OTHER_TABLES:
        check_ending(path)


def check_ending(path: Path) -> None:
    """Raises InputError unless lists can be written to a file of this name. Without an ending it is Parquet."""
    if path.suffix.lower() not in ("", *TABLES, JSON):
        what = f"lists are not written as '{path.suffix}'."
        raise InputError(Fault("--output", what, f"Name a file that ends in {', '.join([*TABLES, JSON])}.", "option"))


@contextmanager
def open_lists(path: Path, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """Yield a function that appends a table of `schema` to the file; when the block ends the file replaces `path`."""
    ending = path.suffix.lower()
    with atomic_write(path) as temporary, ExitStack() as opened:
        if ending in ("", ".parquet"):
            yield opened.enter_context(pyarrow.parquet.ParquetWriter(temporary, schema)).write_table
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


def write_table(table: pa.Table, path: Path) -> None:
    """One table as a file, in the format of its ending."""
    with open_lists(path, table.schema) as append:
        append(table)
