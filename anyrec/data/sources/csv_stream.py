"""Separated text as a stream of batches of texts, in any dialect."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from anyrec.core.config.sources import FormatConfig
from anyrec.core.errors import DataError, Fault
from anyrec.data.formats.places import LinePlace
from anyrec.data.list_columns import flat
from anyrec.data.sources.contract import Access, Rows
from anyrec.data.sources.text_stream import MARK, CheckedText, not_text
from anyrec.data.sources.unpack import Container, reading

SEPARATORS = (",", "\t", ";", "|", "::")
BLOCK = 1 << 22
"""Bytes that are parsed at a time."""
LARGEST_BLOCK = 1 << 30
"""A single row of more bytes is refused."""
SAMPLED = 50
"""Lines in which the cells of each separator are counted."""


def open_csv(file: Container, options: FormatConfig, access: Access, notes: list[str]) -> Rows:
    """Open separated text.

    Args:
        file: The file.
        options: The dialect.
        access: Which columns are read, and where faults of rows go.
        notes: Gets the separator if it was found and is no comma.

    Raises:
        DataError: While rows are read, if the text is not in its encoding or cannot be parsed.
    """
    head = beginning(file, options)
    separator = options.separator or sniff_separator(head, options.quote)
    if options.separator is None and separator != "," and not file.stem.lower().endswith((".tsv", ".tab")):
        shown = {"\t": "tabs"}.get(separator, f"'{separator}'")
        notes.append(f"{file.name}: the file seems to be separated by {shown} and is read so.")
    table = CsvTable(file, options, separator, head, access)
    schema = pa.schema([(name, pa.string()) for name in table.wanted])
    return Rows(
        pa.RecordBatchReader.from_batches(schema, table.batches()),
        file.name,
        file.file.version,
        names=table.names,
        place=table.place,
        untyped=True,
        notes=notes,
    )


def open_adjacency(file: Container, options: FormatConfig, access: Access, notes: list[str]) -> Rows:
    """Open lines of a user and the items of that user, separated by spaces, as columns user_id and item_id."""
    line = options.model_copy(update={"separator": options.separator or MARK, "header": ["line"], "quote": None})
    rows = open_csv(file, line, replace(access, columns=None), notes)
    separator = options.separator or " "
    schema = pa.schema([("user_id", pa.string()), ("item_id", pa.string())])

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in rows.reader:
            cells = pc.split_pattern(pc.utf8_trim_whitespace(batch.column(0)), separator)
            values, owners = flat(cells)
            first = np.flatnonzero(np.diff(owners, prepend=-1))
            users = values.take(pa.array(first)).take(pa.array(np.cumsum(np.diff(owners, prepend=-1) != 0) - 1))
            items = np.ones(len(values), bool)
            items[first] = False
            yield pa.RecordBatch.from_arrays([users.filter(items), values.filter(items)], schema=schema)

    reader = pa.RecordBatchReader.from_batches(schema, batches())
    return Rows(reader, rows.name, rows.version, untyped=True, notes=notes)


def beginning(file: Container, options: FormatConfig) -> str:
    """Return the first lines of a file without those that are skipped, with \\n as the line end."""
    lines = file.text_head.replace("\r\n", "\n").replace("\r", "\n")
    for _ in range(options.skip):
        lines = lines.partition("\n")[2]
    return lines


def sniff_separator(lines: str, quote: str | None) -> str:
    """Return the separator that cuts the first lines into the same number of cells; a comma if there is none.

    Among several, the one that makes most cells wins.
    """
    best, most = ",", (0.0, 1)
    for separator in SEPARATORS:
        counts = [len(cells) for cells in first_rows(lines, separator, quote)[:SAMPLED]]
        if counts and counts[0] > 1:
            agreeing = sum(count == counts[0] for count in counts) / len(counts)
            if (agreeing, counts[0]) > most:
                best, most = separator, (agreeing, counts[0])
    return best


def first_rows(lines: str, separator: str, quote: str | None) -> list[list[str]]:
    """Return the cells of the rows in the beginning of a text, without the last of many, which may be cut off."""
    rows = []
    with suppress(csv.Error):  # a cell that is longer than the csv module reads
        rows = [cells for cells in cell_reader(io.StringIO(lines, newline=""), separator, quote) if cells]
    return rows[:-1] if len(rows) > 2 else rows


def cell_reader(text: io.TextIOBase, separator: str, quote: str | None, strict: bool = False) -> Any:
    """Return a reader of the csv module, whose type has no public name."""
    several = len(separator) > 1
    return csv.reader(
        (line.replace(separator, MARK) for line in text) if several else text,
        delimiter=MARK if several else separator,
        quotechar=quote if quote and not several else None,
        quoting=csv.QUOTE_MINIMAL if quote and not several else csv.QUOTE_NONE,
        strict=strict,
    )


class CsvTable:
    """A file of separated text that is parsed block by block.

    Attributes:
        names: The names of all columns. One that occurs again keeps its name here.
        wanted: The columns that are read.
        place: The line of each row. The file is read again for the first one.
    """

    def __init__(self, file: Container, options: FormatConfig, separator: str, head: str, access: Access):
        self.file, self.options, self.separator, self.access = file, options, separator, access
        self.quote = options.quote if len(separator) == 1 else None
        self._before = options.skip  # lines before the first row
        self.names = list(options.header or [])
        if options.header is None:
            reader = cell_reader(io.StringIO(head, newline=""), separator, self.quote)
            self.names = [cell.strip() for cell in next(filter(None, reader), [])]
            self._before += reader.line_num
        names = dict.fromkeys(self.names)
        self.wanted = [name for name in names if access.columns is None or name in access.columns]
        width, mark = len(self.names), separator if len(separator) == 1 else MARK
        self.place = LinePlace(file.name, self._text, mark, width, self._before, self.quote)
        self._ragged = 0

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows. Raises DataError for text that cannot be parsed."""
        done, block = 0, BLOCK
        while True:
            text, rows, self._ragged = CheckedText(self.file, self.separator), 0, 0
            try:
                for batch in self._parsed(text, block):
                    rows += len(batch)
                    if rows > done:
                        yield batch.slice(max(0, len(batch) - (rows - done))).select(self.wanted)
                        done = rows
                break
            except UnicodeDecodeError:
                raise not_text(self.file) from None
            except pa.ArrowInvalid as error:
                if "straddl" not in str(error) or block >= LARGEST_BLOCK:
                    what = f"cannot be read: {str(error).splitlines()[0].rstrip('.')}."
                    raise DataError(Fault(self.file.name, what, kind="unreadable")) from None
                block *= 16  # one row is longer than a block
        if rows + self._ragged + self._before < text.lines and text.quotes:
            self._refuse_open_quotes()  # a cell holds a line end, or a line is empty
        if self._ragged:
            self._report_ragged()

    def _text(self) -> bytes:
        with reading(self.file.file.name):
            return CheckedText(self.file, self.separator).read()

    def _parsed(self, text: CheckedText, block: int) -> Iterator[pa.RecordBatch]:
        """Yield the rows as Arrow parses them."""
        unique = [f"{name} ({n})" if name in self.names[:n] else name for n, name in enumerate(self.names)]
        with reading(self.file.file.name):
            stream = pa.PythonFile(text, "r")
        yield from pyarrow.csv.open_csv(
            stream,
            read_options=pyarrow.csv.ReadOptions(column_names=unique, skip_rows=self._before, block_size=block),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=self.separator if len(self.separator) == 1 else MARK,
                quote_char=self.quote or False,
                escape_char=self.options.escape or False,
                newlines_in_values=bool(self.quote),
                invalid_row_handler=self._skip,
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(unique, pa.string()),
                include_columns=self.wanted or unique[:1],  # none would mean all
                strings_can_be_null=True,
                null_values=[""],
            ),
        )

    def _skip(self, _: object) -> str:
        self._ragged += 1
        return "skip"

    def _report_ragged(self) -> None:
        """Add a fault for each row with more or fewer cells than the header."""
        ragged = self.place.ragged
        self.access.faults.add_rows(
            "ragged row",
            range(len(ragged)),
            lambda number: (
                f"{self.file.name} line {ragged[number][0]}",
                f"this row has {ragged[number][1]} cells, the header {len(self.names)}.",
                f"Put cells that hold {'tabs' if self.separator == chr(9) else repr(self.separator)} in quotes.",
            ),
        )

    def _refuse_open_quotes(self) -> None:
        """Raise DataError if a quoted cell is not closed: Arrow reads all lines up to the next quote into it."""
        before = csv.field_size_limit(1 << 30)
        begins = 1
        try:
            text = io.TextIOWrapper(io.BufferedReader(CheckedText(self.file, self.separator)), "utf-8", newline="")
            reader = cell_reader(text, self.separator, self.quote, strict=not self.options.escape)
            for _ in reader:
                begins = reader.line_num + 1
        except csv.Error:
            what = "a cell that begins with a quote in this row does not end with one."
            hint = 'Close the quote, and write a quote inside a quoted cell twice (""); or set format.quote of '
            hint += "data.sources to null if quotes are part of the texts."
            raise DataError(Fault(f"{self.file.name} line {begins}", what, hint, "open quote")) from None
        finally:
            csv.field_size_limit(before)
