"""Data frames (pandas, polars, Arrow) as columns."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

import pyarrow as pa

from anyrec.core.errors import DataError, Fault, InputError, MissingDependency, did_you_mean
from anyrec.core.scratch import Scratch, kept
from anyrec.data.formats.arrow_types import plain
from anyrec.data.formats.faults import Faults
from anyrec.data.formats.parts import PARTS, Part, Raw, finish_parts
from anyrec.data.formats.places import table_place
from anyrec.data.formats.table_columns import Columns

DataFrame: TypeAlias = Any
"""A pandas, polars or Arrow table, or a `datasets.Dataset`. These packages are optional, so no type can be named."""

Form: TypeAlias = Literal["arrow", "pandas", "polars"]
"""The kinds of tables that methods return."""


def check_form(form: object) -> None:
    """Check the kind of a table that is to be returned. Raises InputError if it is unknown."""
    if form not in get_args(Form):
        what = f"there is no kind of table {form!r:.60}."
        raise InputError(Fault("to", what, did_you_mean(str(form), get_args(Form)), "option"))


def in_form(table: pa.Table, form: Form) -> DataFrame:
    """Return an Arrow table as one of another kind.

    Raises:
        InputError: If the kind is unknown.
        MissingDependency: If its package is not installed.
    """
    check_form(form)
    try:
        if form == "pandas":
            return table.to_pandas()
        if form == "polars":
            import polars

            return polars.from_arrow(table)
    except ImportError:
        raise MissingDependency(form, form, f"A {form} table") from None
    return table


def dataframe_parts(
    tables: tuple[DataFrame, DataFrame, DataFrame], faults: Faults, notes: list[str], missing_ok: bool = False
) -> list[Part]:
    """Convert pandas, polars or Arrow tables of users, items and interactions.

    Args:
        tables: The three tables.
        faults: Gets the faults of their columns.
        notes: Gets what the user should know.
        missing_ok: Keep a null id for an interaction without a user or an item, which the caller drops.

    Raises:
        DataError: If one of them is no such table.
    """
    raw: dict[str, Part | Raw] = {part: of_frame(table, part) for part, table in zip(PARTS, tables, strict=True)}
    made = finish_parts(raw, faults, notes, missing_ok=missing_ok)
    return [made[part] for part in PARTS]


def of_frame(table: DataFrame, part: str) -> Raw:
    """Return a pandas, polars or Arrow table as one part of a dataset. Raises DataError for anything else."""
    columns, rows = as_columns(table, part)
    return Raw(columns, rows, part, table_place(part))


def is_table(source: object) -> bool:
    """Return whether `source` is a pandas, polars or Arrow table."""
    if isinstance(source, (pa.Table, pa.RecordBatch)) or _is_dataset(source) or _is_lazy(source):
        return True
    return hasattr(source, "columns") and (hasattr(source, "to_arrow") or type(source).__module__.startswith("pandas"))


def as_arrow(table: DataFrame) -> pa.Table:
    """Return a pandas, polars or Arrow table as Arrow.

    Raises:
        DataError: If it is no such table, or a column has values of several types.
    """
    columns, _ = as_columns(table)
    for name, column in columns:
        if isinstance(column, list):
            what = f"the column {name!r} has values of several types."
            raise DataError(Fault("/", what, "Give each column values of one type.", "mixed types"))
    return pa.Table.from_arrays([column for _, column in columns], [name for name, _ in columns])


def as_columns(table: DataFrame, part: str = "/") -> tuple[Columns, int]:
    """Return the columns of a pandas, polars or Arrow table, and its number of rows.

    Args:
        table: The table.
        part: Its name, for messages.

    Raises:
        DataError: If it is no such table.
    """
    if type(table).__module__.split(".")[0] == "pandas" and hasattr(table, "iloc") and hasattr(table, "columns"):
        names = [str(name) for name in table.columns]
        return [(name, _pandas_column(table.iloc[:, place])) for place, name in enumerate(names)], len(table)
    if _is_lazy(table):
        table = table.collect()
    if _is_dataset(table):
        table = table.with_format("arrow")[:].replace_schema_metadata()
    elif hasattr(table, "to_arrow"):
        table = table.to_arrow()
    elif not isinstance(table, pa.Table) and hasattr(table, "__arrow_c_stream__"):
        table = pa.table(table)
    elif isinstance(table, pa.RecordBatch):
        table = pa.Table.from_batches([table])
    if not isinstance(table, pa.Table):
        what = f"expected a pandas, polars or Arrow table; found a {type(table).__name__}."
        raise DataError(Fault(part, what, kind="shape"))
    return arrow_columns(table), len(table)


def _is_dataset(table: object) -> bool:
    """Return whether a table is a `datasets.Dataset` of Hugging Face."""
    return type(table).__module__.split(".")[0] == "datasets" and hasattr(table, "with_format")


def _is_lazy(table: object) -> bool:
    """Return whether a table is a LazyFrame of polars."""
    return (
        type(table).__module__.split(".")[0] == "polars"
        and hasattr(table, "collect_schema")
        and hasattr(table, "collect")
    )


def arrow_columns(table: pa.Table, scratch: Scratch | None = None) -> Columns:
    """Return the columns of an Arrow table, each as one array, which is kept in `scratch` if there is one."""
    columns = ((name, _one_array(table.column(place))) for place, name in enumerate(table.column_names))
    return [(name, kept(column, scratch)) for name, column in columns]


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    if column.num_chunks == 1:
        return column.chunk(0)
    try:
        return column.unify_dictionaries().combine_chunks()
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        return pa.concat_arrays([plain(chunk)[0] for chunk in column.chunks])


def _pandas_column(series: Any) -> pa.Array | list[object]:
    """Return an Arrow array, or the Python values if they are of several types; missing values are null."""
    try:
        column = pa.array(series, from_pandas=True)
        return _one_array(column) if isinstance(column, pa.ChunkedArray) else column
    except (pa.ArrowException, TypeError, ValueError, OverflowError, AttributeError):
        return [_python_value(value) for value in series.tolist()]


def _python_value(value: object) -> object:
    if isinstance(value, (tuple, set, frozenset)):
        return list(value)
    if hasattr(value, "tolist"):  # NumPy arrays and scalars
        return _python_value(value.tolist())
    missing = (
        value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value)
    )
    return None if missing else value
