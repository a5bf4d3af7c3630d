"""CSV files as columns of texts. The header shows the separator; the column's name decides the type of its cells."""

from __future__ import annotations

import csv
import io
from collections import deque
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from anyrec.core.errors import DataError, Fault
from anyrec.data.formats.columns import ALLOWED
from anyrec.data.formats.containers import not_utf8, read_bytes, stem_and_kind
from anyrec.data.formats.faults import Faults
from anyrec.data.formats.places import LinePlace
from anyrec.data.formats.table_columns import FIELDS, NUMBER, Columns
from anyrec.data.ids import ID_COLUMNS

LIST_MARK = "[]"
"""A CSV header with this ending means several values in each cell, separated by `|`."""
SEPARATORS = {",": "','", "\t": "tabs", ";": "';'", "|": "'|'"}
WHOLE = r"^(0|-?[1-9][0-9]{0,17})$"


def read_csv(path: Path, faults: Faults, notes: list[str]) -> tuple[Columns, int, LinePlace]:
    """Read a CSV file.

    Args:
        path: The file.
        faults: Gets a fault for each row with more or fewer cells than the header.
        notes: Gets a sentence if the separator is not a comma.

    Returns:
        Columns of texts (lists of texts if the header ends in `[]`), the number of rows, and the line of each row.

    Raises:
        DataError: If the file cannot be parsed.
    """
    data = read_bytes(path)
    if not _is_utf8(data):  # before parsing: the handler of ragged rows cannot receive other bytes
        raise not_utf8(data, path)
    separator = separator_of(data, path)
    if separator != "," and stem_and_kind(path)[1] != ".tsv":
        notes.append(f"{path.name}: the file seems to be separated by {SEPARATORS[separator]} and is read so.")
    try:
        table, ragged = _parse(data, separator)
    except (pa.ArrowException, OSError) as error:
        raise DataError(Fault(str(path), f"cannot be read: {str(error).splitlines()[0]}.", kind="unreadable")) from None
    place = LinePlace(path.name, partial(read_bytes, path), separator, table.num_columns)
    if len(table) + ragged + 1 < data.count(b"\n") and b'"' in data:  # a cell holds a line end, or a line is empty
        _refuse_open_quotes(data, separator, path)
    if ragged:
        faults.add_rows(
            "ragged row",
            range(len(place.ragged)),
            lambda number: (
                f"{path.name} line {place.ragged[number][0]}",
                f"this row has {place.ragged[number][1]} cells, the header {table.num_columns}.",
                f"Put cells that hold {SEPARATORS[separator]} in quotes.",
            ),
        )
    columns = [_named(name, table.column(number).combine_chunks()) for number, name in enumerate(table.column_names)]
    return columns, len(table), place


def _is_utf8(data: bytes) -> bool:
    try:
        pa.array([data], pa.large_binary()).cast(pa.large_string())
    except pa.ArrowInvalid:
        return False
    return True


def _refuse_open_quotes(data: bytes, separator: str, path: Path) -> None:
    """Raise DataError if a quoted cell is not closed.

    Arrow reads all lines up to the next quote into that cell.
    """
    before = csv.field_size_limit(len(data) + 1)
    try:
        deque(_strict_rows(data, separator), maxlen=0)
        return
    except csv.Error:
        begins, reader = 1, _strict_rows(data, separator)
        with suppress(csv.Error):
            for _ in reader:
                begins = reader.line_num + 1
    finally:
        csv.field_size_limit(before)
    what = "a cell that begins with a quote in this row does not end with one."
    hint = 'Close the quote, and write a quote inside a quoted cell twice ("").'
    raise DataError(Fault(f"{path.name} line {begins}", what, hint, "open quote"))


def _strict_rows(data: bytes, separator: str) -> Any:
    text = io.TextIOWrapper(io.BytesIO(data), "utf-8", newline="")
    return csv.reader(text, delimiter=separator, strict=True)


def separator_of(data: bytes, path: Path) -> str:
    """Return the separator with which the header names an id, otherwise the most frequent one in the header."""
    header = data[:65_536].split(b"\n", 1)[0].split(b"\r", 1)[0].decode("utf-8", "replace")
    for separator in SEPARATORS:
        if set(ID_COLUMNS) & {name.strip().strip('"') for name in header.split(separator)} and separator in header:
            return separator
    return max(SEPARATORS, key=header.count) if any(mark in header for mark in SEPARATORS) else ","


def _parse(data: bytes, separator: str) -> tuple[pa.Table, int]:
    """Return all cells as texts, empty ones as nulls, and how many rows were skipped for their number of cells."""
    ragged: list[None] = []

    def skip(_: object) -> str:
        ragged.append(None)
        return "skip"

    parse = pyarrow.csv.ParseOptions(delimiter=separator, newlines_in_values=True, invalid_row_handler=skip)
    names = pyarrow.csv.open_csv(
        pa.BufferReader(data),
        read_options=pyarrow.csv.ReadOptions(block_size=len(data)) if len(data) < 1 << 20 else None,
        parse_options=parse,
    ).schema.names
    convert = pyarrow.csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""]
    )
    ragged.clear()
    try:
        read = pyarrow.csv.ReadOptions(block_size=1 << 22)
        table = pyarrow.csv.read_csv(
            pa.BufferReader(data), read_options=read, parse_options=parse, convert_options=convert
        )
    except pa.ArrowInvalid as error:
        if "straddl" not in str(error):
            raise
        ragged.clear()
        read = pyarrow.csv.ReadOptions(block_size=len(data))  # one row is longer than a block
        table = pyarrow.csv.read_csv(
            pa.BufferReader(data), read_options=read, parse_options=parse, convert_options=convert
        )
    return table, len(ragged)


def _named(name: str, texts: pa.Array) -> tuple[str, pa.Array]:
    """Return the column under its own name.

    Cells are split at `|` if the header says so, and typed here if no known group types them later.
    """
    column = texts
    if name.endswith(LIST_MARK):
        name = name.removesuffix(LIST_MARK)
        column = pc.split_pattern(texts, "|")
    group = name.split(".")[0]
    if name in (*ID_COLUMNS, *FIELDS) or group in ALLOWED:
        return name, column
    if pa.types.is_list(column.type):
        typed = typed_texts(column.flatten())
        return name, pa.ListArray.from_arrays(column.offsets, typed, mask=column.is_null())
    return name, typed_texts(column)


def typed_texts(texts: pa.Array) -> pa.Array:
    """Return whole numbers, numbers or booleans if all texts are written so, otherwise the texts."""
    if texts.null_count == len(texts):
        return texts
    if pc.all(pc.match_substring_regex(texts, WHOLE)).as_py():
        return texts.cast(pa.int64())
    if pc.all(pc.match_substring_regex(texts, NUMBER)).as_py():
        return pc.utf8_ltrim(texts, "+").cast(pa.float64())
    if pc.all(pc.is_in(texts.drop_null(), value_set=pa.array(["true", "false"]))).as_py():
        return pc.equal(texts, "true")
    return texts


def whole_number_ids(parts: list[Columns], typed: dict[str, list[pa.DataType]]) -> list[Columns]:
    """Give ids in CSV files, which have no types, the type that they have in other files.

    If all files are CSV, ids are whole numbers if every id of the kind is written as one.

    Args:
        parts: The columns of each CSV file.
        typed: The types of `user_id` and `item_id` in files that have types.

    Returns:
        The columns of each file.
    """
    for key in ID_COLUMNS:
        texts = [column for columns in parts for name, column in columns if name == key]
        known = [*typed.get(key, []), *(column.type for column in texts if pa.types.is_list(column.type))]
        if any(not pa.types.is_integer(kind) for kind in known):
            continue  # lists of ids, by a header as item_id[], are refused later
        if all(pc.all(pc.match_substring_regex(column, WHOLE)).as_py() is not False for column in texts):
            parts = [
                [(name, column.cast(pa.int64()) if name == key else column) for name, column in columns]
                for columns in parts
            ]
    return parts
