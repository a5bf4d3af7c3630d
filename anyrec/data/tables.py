"""Tabular data: JSON Lines, CSV, Parquet, pandas, polars and Arrow tables, and writing a dataset as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from anyrec.data.columns import TIME, Faults, _epochs, feature_column, parse_times, show
from anyrec.data.dataset import Dataset
from anyrec.errors import DataError, Fault, did_you_mean
from anyrec.files import atomic_write

PARTS = ("users", "items", "interactions")
ENDINGS = (".parquet", ".csv", ".jsonl", ".ndjson")
FIELDS = ("user_id", "item_id", "interaction_type", "timestamp", "weight", "rating", "label")
LIST_MARK = "[]"
"""A CSV header that ends so holds several values a cell, separated by `|`."""


def is_table_folder(path: Path) -> bool:
    return all(_file(path, part) is not None for part in PARTS)


def read_table_folder(path: Path) -> tuple[pa.Table, pa.Table, pa.Table]:
    """users, items and interactions of a folder. Raises DataError for a file that cannot be parsed."""
    files = {part: _file(path, part) for part in PARTS}
    csv_files = [file for file in files.values() if file is not None and file.suffix == ".csv"]
    tables = [read_part(file) for file in files.values() if file is not None]
    if csv_files:
        tables = whole_number_ids(tables)
    return tables[0], tables[1], tables[2]


def as_arrow(table: Any) -> pa.Table:
    """A pandas, polars or Arrow table as Arrow."""
    if isinstance(table, pa.Table):
        return table
    if isinstance(table, pa.RecordBatch):
        return pa.Table.from_batches([table])
    try:
        if hasattr(table, "to_arrow"):
            return table.to_arrow()
        if type(table).__module__.startswith("pandas"):
            return pa.Table.from_pandas(table, preserve_index=False)
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        reason = "; ".join(str(part) for part in error.args) or type(error).__name__
        what = f"the table's values cannot be read: {reason}."
        raise DataError(Fault("/", what, "Give each column values of one type.", "mixed types")) from None
    raise DataError(
        Fault("/", f"expected a pandas, polars or Arrow table; found a {type(table).__name__}.", kind="shape")
    )


def normalised(table: pa.Table, side: str, faults: Faults, notes: list[str]) -> pa.Table:
    """A table's columns in the types that `Dataset` documents. side: user, item, or "" for interactions."""
    part = f"{side}s" if side else "interactions"
    keys = [f"{side}_id"] if side else ["user_id", "item_id"]
    columns: dict[str, pa.Array] = {}
    for key in keys:
        if key not in table.column_names:
            faults.add("shape", f"{part}: {key}", "this column is missing.", did_you_mean(key, table.column_names))
            columns[key] = pa.nulls(len(table), pa.string())
        else:
            columns[key] = _ids(table.column(key).combine_chunks(), f"{part}: {key}", faults)
    for name in table.column_names:
        if name in keys:
            continue
        column = _plain(table.column(name).combine_chunks())
        group, dot, field = name.partition(".")
        where = f"{part}: {name}"
        if not side and name in FIELDS:
            columns[name] = _field(name, column, where, faults)
        elif not dot or not field:
            notes.append(
                f"The column '{name}' of {part} is not used: a feature's column is named group.name, as text.title."
            )
        elif column.null_count == len(column):
            notes.append(f"The {side} feature '{name}' has a value in no record and is left out.")
        else:
            columns[name] = _feature(group, column, where, faults)
    return pa.table(columns)


def write_json(dataset: Dataset, path: Path) -> None:
    """The dataset as one JSON file of the published format; missing values are left out."""
    encoder = msgspec.json.Encoder()
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        for start, table in (
            (b'{"user_data":[\n', dataset.users),
            (b'],\n"item_data":[\n', dataset.items),
            (b'],\n"interactions":[\n', dataset.interactions),
        ):
            file.write(start)
            for place in range(0, len(table), 20_000):
                rows = [encoder.encode(_nested(row)) for row in table.slice(place, 20_000).to_pylist()]
                file.write((b",\n" if place else b"") + b",\n".join(rows))
            file.write(b"\n")
        file.write(b"]}\n")


def _nested(row: dict[str, Any]) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for name, value in row.items():
        if value is None:
            continue
        group, dot, field = name.partition(".")
        if dot:
            record.setdefault(group, {})[field] = value
        else:
            record[name] = value
    return record


def _file(folder: Path, part: str) -> Path | None:
    return next((folder / (part + ending) for ending in ENDINGS if (folder / (part + ending)).is_file()), None)


def read_part(path: Path) -> pa.Table:
    """The table of one file: Parquet, CSV or JSON Lines. Raises DataError if it cannot be parsed."""
    try:
        if path.suffix == ".parquet":
            return pyarrow.parquet.read_table(path)
        if path.suffix == ".csv":
            return _read_csv(path)
        return _read_lines(path)
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
        raise DataError(Fault(str(path), f"cannot be read: {str(error).splitlines()[0]}.", kind="unreadable")) from None


def _read_csv(path: Path) -> pa.Table:
    """Ids and texts stay as they are written; a header `name[]` makes lists of cells split at `|`."""
    with path.open("rb") as file:
        header = pyarrow.csv.read_csv(file, read_options=pyarrow.csv.ReadOptions(block_size=1 << 20)).column_names
    kept = {
        name: pa.string()
        for name in header
        if name.endswith(LIST_MARK)
        or name.split(".")[0] in ("user_id", "item_id", "text", "image", "categorical", "interaction_type")
    }
    convert = pyarrow.csv.ConvertOptions(column_types=kept, strings_can_be_null=True, null_values=[""])
    table = pyarrow.csv.read_csv(
        path, convert_options=convert, parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True)
    )
    for place, name in enumerate(table.column_names):
        if name.endswith(LIST_MARK):
            column = pc.split_pattern(table.column(name), "|")
            if name.startswith(("continuous.", "temporal.")):
                column = _numbers_if_all(column)
            table = table.set_column(place, name.removesuffix(LIST_MARK), column)
    return table


def _numbers_if_all(column: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        return column.cast(pa.list_(pa.float64()))
    except pa.ArrowInvalid:
        return column


def _read_lines(path: Path) -> pa.Table:
    """JSON Lines, its rows like the records of the JSON format."""
    rows = []
    decoder = msgspec.json.Decoder(dict[str, Any])
    faults = Faults()
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            rows.append(decoder.decode(line))
        except msgspec.MsgspecError:
            faults.add("json", f"{path}:{number}", "this line is no JSON object.", "Each line holds one record.")
    if faults:
        raise DataError(faults.shown, dict(faults.counts))
    flat = [
        {
            (f"{key}.{name}" if isinstance(value, dict) else key): inner
            for key, value in row.items()
            for name, inner in (value.items() if isinstance(value, dict) else [("", value)])
        }
        for row in rows
    ]
    names = list(dict.fromkeys(name for row in flat for name in row))
    columns = {}
    for name in names:
        values = [row.get(name) for row in flat]
        group = name.split(".")[0]
        if "." in name and group != "context":
            columns[name] = feature_column(group, values, lambda row, name=name: f"{path}:{row + 1}: {name}", faults)
        else:
            try:
                columns[name] = pa.array(values)
            except (pa.ArrowInvalid, pa.ArrowTypeError):
                kinds = sorted({type(value).__name__ for value in values if value is not None})
                faults.add(
                    "mixed types",
                    f"{path}: {name}",
                    f"its values are of several types: {', '.join(kinds)}.",
                    "Write all of one type.",
                )
    if faults:
        raise DataError(faults.shown, dict(faults.counts))
    return pa.table(columns)


def whole_number_ids(tables: list[pa.Table], keys: Sequence[str] = ("user_id", "item_id")) -> list[pa.Table]:
    """CSV knows no types: an id column is whole numbers where every id of it, in every file, is written as one."""
    for key in keys:
        holders = [table for table in tables if key in table.column_names]
        whole = all(
            pc.all(pc.match_substring_regex(table.column(key).cast(pa.string()), r"^(0|-?[1-9]\d{0,17})$")).as_py()
            is not False
            for table in holders
        )
        if whole:
            tables = [
                t.set_column(t.column_names.index(key), key, t.column(key).cast(pa.int64()))
                if key in t.column_names
                else t
                for t in tables
            ]
    return tables


def _plain(column: pa.Array) -> pa.Array:
    """Dictionary, large and view types as their plain ones."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _plain(column.dictionary_decode())
    if pa.types.is_large_string(kind) or kind == pa.string_view():
        return column.cast(pa.string())
    if pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind):
        values = _plain(column.flatten())
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), values, mask=column.is_null())
    return column


def _ids(column: pa.Array, where: str, faults: Faults) -> pa.Array:
    column = _plain(column)
    if pa.types.is_integer(column.type):
        column = column.cast(pa.int64())
    elif not pa.types.is_string(column.type):
        faults.add("bad id", where, f"ids are texts or whole numbers; this column holds {column.type}.", "Convert it.")
        return pa.nulls(len(column), pa.string())
    missing = np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))
    faults.add_rows("bad id", missing, lambda row: (f"{where}, row {row}", "the id is missing.", "Give it an id."))
    return column


def _field(name: str, column: pa.Array, where: str, faults: Faults) -> pa.Array:
    kind = column.type
    try:
        if name == "interaction_type":
            return column.cast(pa.string())
        if name != "timestamp":
            column = column.cast(pa.float64())
            _finite(column, where, faults)
            return pc.if_else(pc.fill_null(pc.is_finite(column), False), column, None)
        if pa.types.is_timestamp(kind):
            return (column if kind.tz else column.cast(pa.timestamp("us"))).cast(TIME)
        if pa.types.is_date(kind):
            return column.cast(pa.timestamp("us")).cast(TIME)
        made, bad = parse_times(column) if pa.types.is_string(kind) else _epochs(column.cast(pa.float64()))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        faults.add("bad value", where, f"cannot be read from a column of {kind}.", "Convert it.")
        return pa.nulls(len(column), TIME if name == "timestamp" else pa.float64())
    faults.add_rows(
        "bad timestamp",
        bad,
        lambda row: (
            f"{where}, row {row}",
            f"{show(column[row].as_py())} is not a time.",
            "Use ISO 8601 or epoch seconds.",
        ),
    )
    return made


def _feature(group: str, column: pa.Array, where: str, faults: Faults) -> pa.Array:
    """A feature's column in its group's type."""
    inner = column.type.value_type if pa.types.is_list(column.type) else column.type
    wanted = {"text": pa.string(), "image": pa.string(), "categorical": pa.string(), "continuous": pa.float64()}.get(
        group
    )
    if group == "temporal":
        if pa.types.is_integer(inner):
            wanted = pa.int64()
        elif pa.types.is_timestamp(inner):
            wanted = TIME
        else:
            wanted = pa.string() if pa.types.is_string(inner) else pa.float64()
    if wanted is None:
        return column
    if group in ("text", "image") and not pa.types.is_string(inner):
        faults.add(
            "bad value",
            where,
            f"a {group} feature holds texts; this column holds {column.type}.",
            "Convert it, or name another group.",
        )
        return pa.nulls(len(column), wanted)
    try:
        column = column.cast(pa.list_(wanted) if pa.types.is_list(column.type) else wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        faults.add(
            "bad value",
            where,
            f"a {group} feature cannot be read from {column.type}.",
            "Convert it, or name another group.",
        )
        return pa.nulls(len(column), wanted)
    if group == "temporal" and not pa.types.is_list(column.type):
        offsets = np.arange(len(column) + 1, dtype=np.int32)
        column = pa.ListArray.from_arrays(pa.array(offsets), column, mask=column.is_null())
    _finite(column, where, faults)
    return column


def _finite(column: pa.Array, where: str, faults: Faults) -> None:
    """Report infinities; NaN is how pandas says missing, and the encoders take it so."""
    flat = column.flatten() if pa.types.is_list(column.type) else column
    if not pa.types.is_floating(flat.type):
        return
    infinite = np.flatnonzero(pc.fill_null(pc.is_inf(flat), False).to_numpy(zero_copy_only=False))
    faults.add_rows(
        "not finite", infinite, lambda row: (f"{where}, value {row}", "infinity is not data.", "Leave it out.")
    )
