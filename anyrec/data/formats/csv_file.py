"""CSV files as columns of texts. The header shows the separator; the column's name decides the type of its cells."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from anyrec.core.config.sources import FormatConfig
from anyrec.data.formats.columns import ALLOWED
from anyrec.data.formats.containers import GZIP, as_utf8, stem_and_kind
from anyrec.data.formats.faults import Faults
from anyrec.data.formats.places import Place
from anyrec.data.formats.table_columns import DOUBLED, FIELDS, NUMBER, Columns
from anyrec.data.ids import ID_COLUMNS
from anyrec.data.memory_limit import Room
from anyrec.data.sources.contract import Access, SourceFile
from anyrec.data.sources.csv_stream import CsvTable
from anyrec.data.sources.unpack import HEAD, Container, open_container, reading

LIST_MARK = "[]"
"""A CSV header with this ending means several values in each cell, separated by `|`."""
SEPARATORS = {",": "','", "\t": "tabs", ";": "';'", "|": "'|'"}
WHOLE = r"^(0|-?[1-9][0-9]{0,17})$"


def read_csv(path: Path, faults: Faults, notes: list[str], room: Room | None = None) -> tuple[pa.Table, Place]:
    """Read a CSV file.

    Args:
        path: The file.
        faults: Gets a fault for each row with more or fewer cells than the header.
        notes: Gets a sentence if the separator is not a comma.
        room: Where the rows are kept; None for memory.

    Returns:
        Columns of texts, empty cells as nulls, and the line of each row.

    Raises:
        DataError: If the file cannot be parsed.
    """
    file = _container(path)
    separator = separator_of(file.text_head)
    if separator != "," and stem_and_kind(path)[1] != ".tsv":
        notes.append(f"{path.name}: the file seems to be separated by {SEPARATORS[separator]} and is read so.")
    rows = CsvTable(file, FormatConfig(separator=separator), separator, file.text_head, Access(faults=faults))
    for name in rows.wanted:
        if rows.names.count(name) > 1:
            faults.add("doubled column", f"{path.name}: {name}", *DOUBLED)
    schema = pa.schema([(name, pa.string()) for name in rows.wanted])
    table = pa.Table.from_batches(rows.batches(), schema) if room is None else room.table(schema, rows.batches())
    return table, rows.place


def _container(path: Path) -> Container:
    """Open a file. Raises DataError for other formats than text, and other packing than gzip."""
    file = SourceFile(str(path), lambda: pa.OSFile(str(path)), "")
    with reading(file.name), file.open() as stream:
        start = stream.read(HEAD)
    if not start.startswith(GZIP):
        as_utf8(start, path)
    container = open_container(file, "utf-8", [])
    as_utf8(container.head, path)
    return container


def separator_of(text: str) -> str:
    """Return the separator with which the header of a text names an id, otherwise the most frequent one in it."""
    header = text.split("\n", 1)[0].split("\r", 1)[0]
    for separator in SEPARATORS:
        if set(ID_COLUMNS) & {name.strip().strip('"') for name in header.split(separator)} and separator in header:
            return separator
    return max(SEPARATORS, key=header.count) if any(mark in header for mark in SEPARATORS) else ","


def named(name: str, texts: pa.Array) -> tuple[str, pa.Array]:
    """Return a column of a CSV file under its own name.

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
