"""Sheets of spreadsheets as tables: xlsx, xls and ods."""

from __future__ import annotations

import datetime as dt
import io
from collections import Counter
from typing import Any

import pyarrow as pa

from anyrec.core.config.sources import FormatConfig
from anyrec.core.errors import DataError, Fault, MissingDependency, did_you_mean
from anyrec.core.values import show
from anyrec.data.formats.places import Place
from anyrec.data.sources.contract import Access, Rows
from anyrec.data.sources.unpack import Container


def open_excel(file: Container, options: FormatConfig, access: Access, notes: list[str]) -> Rows:
    """Open a sheet: the first, or the one that `sheet` names. Its first row is the header.

    Numbers of a column that all are whole are whole numbers, since a spreadsheet has only floats. A column of several
    types is read as text.

    Args:
        file: The spreadsheet.
        options: `sheet`, `header` and `skip`.
        access: Which columns are read.
        notes: Gets the name of the sheet if there are several.

    Raises:
        MissingDependency: If the package that reads spreadsheets is not installed.
        DataError: If the sheet is not there, or the file is no spreadsheet.
    """
    try:
        import python_calamine  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise MissingDependency("python-calamine", "excel", f"the spreadsheet {file.name}") from None
    try:
        book = python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(file.stream().read()))
    except python_calamine.CalamineError as error:
        raise DataError(Fault(file.name, f"cannot be read as a spreadsheet: {error}.", kind="unreadable")) from None
    sheets = list(book.sheet_names)
    sheet = options.sheet or sheets[0]
    if sheet not in sheets:
        what = f"this spreadsheet has no sheet {show(sheet)}."
        raise DataError(Fault(file.name, what, did_you_mean(sheet, sheets), "no data"))
    if options.sheet is None and len(sheets) > 1:
        first_of = f"{file.name}: the first of {len(sheets)} sheets is read, {show(sheet)}"
        notes.append(f"{first_of}; format.sheet names another.")
    cells = book.get_sheet_by_name(sheet).to_python(skip_empty_area=False)[options.skip :]
    names = options.header or [str(cell).strip() for cell in (cells.pop(0) if cells else [])]
    first = options.skip + (1 if options.header else 2)
    lines = [number for number, row in enumerate(cells) if any(cell != "" for cell in row)]
    rows = [cells[number] for number in lines]
    columns, mixed = {}, {}
    for number, name in enumerate(names):
        if (access.columns is None or name in access.columns) and name not in columns:
            columns[name], rarer = _column([row[number] if number < len(row) else "" for row in rows])
            if rarer:
                mixed[name] = rarer
    reader = pa.table(columns).to_reader()
    place = _place(file.name, [first + line for line in lines])
    return Rows(reader, file.name, file.file.version, names=names, place=place, mixed=mixed, notes=notes)


def _place(name: str, lines: list[int]) -> Place:
    """Return the places of rows as the spreadsheet numbers them, which `lines` has for each row."""
    return lambda row, column: f"{name} row {lines[row]}" + (f", column '{column}'" if column else "")


def _column(cells: list[Any]) -> tuple[pa.Array, list[int]]:
    """Return a column, and the rows of its rarer types if it has several; it is of texts then."""
    values = [None if cell == "" else cell for cell in cells]
    counts = Counter(_kind(value) for value in values if value is not None)
    kinds = set(counts)
    if kinds == {"number"}:
        whole = all(value is None or (float(value).is_integer() and abs(value) < 2**53) for value in values)
        return pa.array([None if value is None else int(value) if whole else float(value) for value in values]), []
    if kinds == {"time"}:
        return pa.array([_moment(value) for value in values], pa.timestamp("us")), []
    if len(kinds) <= 1:
        return pa.array(values, None if kinds - {"text"} else pa.string()), []
    common = counts.most_common(1)[0][0]
    rarer = [row for row, value in enumerate(values) if value is not None and _kind(value) != common]
    return pa.array([None if value is None else _text(value) for value in values], pa.string()), rarer


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "number"
    return "time" if isinstance(value, dt.date) else "text" if isinstance(value, str) else type(value).__name__


def _moment(value: dt.date | None) -> dt.datetime | None:
    if value is None or isinstance(value, dt.datetime):
        return value
    return dt.datetime.combine(value, dt.time())


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
