"""Tables: folders of JSON Lines, CSV and Parquet, data frames and Arrow tables; and writing a dataset as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet

from anyrec.core.config import DataConfig
from anyrec.core.errors import DataError, Fault
from anyrec.core.files import atomic_write
from anyrec.data.dataset import Dataset, Side
from anyrec.data.formats.arrow_types import UnreadableType, plain
from anyrec.data.formats.containers import read_bytes, stem_and_kind
from anyrec.data.formats.csv_file import IDS, read_csv, whole_number_ids
from anyrec.data.formats.decode import decode_any, keys_in_text, keys_in_text_exactly, keys_of
from anyrec.data.formats.faults import Faults
from anyrec.data.formats.places import LinePlace, Place, table_place
from anyrec.data.formats.records import interaction_table, record_table
from anyrec.data.formats.table_columns import Columns, normalised

PARTS = ("users", "items", "interactions")
KINDS = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson")
SIDES: dict[str, Side] = {"users": "user", "items": "item"}


@dataclass
class Part:
    """One of the three tables: its columns in the types of `Dataset`, and where each row is."""

    table: pa.Table
    place: Place


@dataclass
class Raw:
    """A table as it was read, its columns not yet in the types of `Dataset`."""

    columns: Columns
    rows: int
    source: str
    place: Place
    is_csv: bool = False


def read_table_folder(path: Path, options: DataConfig, faults: Faults, notes: list[str]) -> list[Part]:
    """users, items and interactions of a folder. Raises DataError for a file that cannot be parsed or is missing.

    Under `unknown_ids: keep` users and items may be missing.
    """
    optional = ("users", "items") if options.unknown_ids == "keep" else ()
    files = _files(path, optional, notes)
    missing_ok = options.unknown_ids == "drop"
    read = {part: read_part(file, part, faults, notes, missing_ok)[1] for part, file in files.items()}
    for part in set(SIDES) - set(read):
        read[part] = Part(pa.table({f"{SIDES[part]}_id": pa.array([], pa.string())}), table_place(part))
    made = finish_parts(read, faults, notes, missing_ok=missing_ok)
    return [made[part] for part in PARTS]


def dataframe_parts(
    tables: tuple[Any, Any, Any], faults: Faults, notes: list[str], missing_ok: bool = False
) -> list[Part]:
    """pandas, polars or Arrow tables of users, items and interactions. Raises DataError for anything else."""
    raw: dict[str, Part | Raw] = {part: of_frame(table, part) for part, table in zip(PARTS, tables, strict=True)}
    made = finish_parts(raw, faults, notes, missing_ok=missing_ok)
    return [made[part] for part in PARTS]


def of_frame(table: Any, part: str) -> Raw:
    """A pandas, polars or Arrow table. Raises DataError for anything else."""
    columns, rows = as_columns(table, part)
    return Raw(columns, rows, part, table_place(part))


def as_arrow(table: Any) -> pa.Table:
    """A pandas, polars or Arrow table as Arrow. Raises DataError, also for a column with values of several types."""
    columns, _ = as_columns(table)
    for name, column in columns:
        if isinstance(column, list):
            what = f"the column {name!r} has values of several types."
            raise DataError(Fault("/", what, "Give each column values of one type.", "mixed types"))
    return pa.Table.from_arrays([column for _, column in columns], [name for name, _ in columns])


def as_columns(table: Any, part: str = "/") -> tuple[Columns, int]:
    """The columns of a pandas, polars or Arrow table, and its number of rows. Raises DataError."""
    if type(table).__module__.split(".")[0] == "pandas" and hasattr(table, "iloc") and hasattr(table, "columns"):
        names = [str(name) for name in table.columns]
        return [(name, _pandas_column(table.iloc[:, place])) for place, name in enumerate(names)], len(table)
    if hasattr(table, "to_arrow"):
        table = table.to_arrow()
    elif not isinstance(table, pa.Table) and hasattr(table, "__arrow_c_stream__"):
        table = pa.table(table)
    elif isinstance(table, pa.RecordBatch):
        table = pa.Table.from_batches([table])
    if not isinstance(table, pa.Table):
        what = f"expected a pandas, polars or Arrow table; found a {type(table).__name__}."
        raise DataError(Fault(part, what, kind="shape"))
    return _columns_of(table), len(table)


def _columns_of(table: pa.Table) -> Columns:
    return [(name, _whole(table.column(place))) for place, name in enumerate(table.column_names)]


def _whole(column: pa.ChunkedArray) -> pa.Array:
    """One array of a column's chunks."""
    if column.num_chunks == 1:
        return column.chunk(0)
    try:
        return column.unify_dictionaries().combine_chunks()
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        return pa.concat_arrays([plain(chunk)[0] for chunk in column.chunks])


def _pandas_column(series: Any) -> pa.Array | list[Any]:
    """An Arrow array, or the Python values if they are of several types; missing values are null."""
    try:
        column = pa.array(series, from_pandas=True)
        return _whole(column) if isinstance(column, pa.ChunkedArray) else column
    except (pa.ArrowException, TypeError, ValueError, OverflowError, AttributeError):
        return [_python_value(value) for value in series.tolist()]


def _python_value(value: Any) -> Any:
    if isinstance(value, (tuple, set, frozenset)):
        return list(value)
    if hasattr(value, "tolist"):  # NumPy arrays and scalars
        return _python_value(value.tolist())
    missing = (
        value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value)
    )
    return None if missing else value


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


def _files(folder: Path, optional: tuple[str, ...], notes: list[str]) -> dict[str, Path]:
    """The file of each part. Raises DataError that names the parts that are missing."""
    found: dict[str, list[Path]] = {part: [] for part in PARTS}
    try:
        inside = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(Fault(str(folder), f"cannot be read: {error.strerror}.", kind="no file")) from None
    for file in inside:
        stem, kind = stem_and_kind(file)
        if stem in found and kind in KINDS and file.is_file():
            found[stem].append(file)
    missing = [part for part in PARTS if not found[part] and part not in optional]
    if missing:
        raise _missing_parts(folder, missing, [part for part in PARTS if found[part]], inside)
    chosen = {}
    for part, files in found.items():
        if files:
            files.sort(key=lambda file: KINDS.index(stem_and_kind(file)[1]))
            chosen[part] = files[0]
            notes += [f"{file.name} is not used: {files[0].name} is read." for file in files[1:]]
    return chosen


def _missing_parts(folder: Path, missing: list[str], there: list[str], inside: list[Path]) -> DataError:
    hint = "Put " + ", ".join(f"{part}.csv (or .parquet, .jsonl)" for part in missing) + " there."
    if "interactions" not in missing:
        hint += " Set data.unknown_ids to 'keep' for data without them: their ids are taken from the interactions."
    if not there:
        names = ", ".join(file.name for file in inside[:5]) or "nothing"
        what = f"this folder holds no users, items and interactions; found {names}."
    else:
        what = f"this folder has no {' and no '.join(missing)}; found {' and '.join(there)}."
    other = [file.name for file in inside if stem_and_kind(file)[0].lower() in missing]
    if other and there:
        what += f" {', '.join(other)} cannot be read as a table of a folder."
    return DataError(Fault(str(folder), what, hint, "no data"))


def read_part(
    path: Path, part: str | None, faults: Faults, notes: list[str], missing_ok: bool = False
) -> tuple[str, Part | Raw]:
    """One file of a folder, and which part it is.

    Args:
        part: users, items or interactions; by default as the columns decide: interactions if there are user_id and
            item_id, items if there is item_id, else users.
        missing_ok: Interactions without a user or an item keep a null id, for the caller to drop.

    Raises:
        DataError: The file cannot be parsed.
    """
    kind = stem_and_kind(path)[1]
    if kind in (".csv", ".tsv"):
        columns, rows, place = read_csv(path, faults, notes)
        return part or _part_of(name for name, _ in columns), Raw(columns, rows, path.name, place, is_csv=True)
    if kind == ".parquet":
        table = read_parquet(path)
        raw = Raw(_columns_of(table), len(table), path.name, table_place(path.name))
        return part or _part_of(table.column_names), raw
    rows, place = read_lines(path, faults)
    part = part or _part_of(name for row in rows if isinstance(row, dict) for name in row)
    if part in SIDES:
        return part, Part(record_table(rows, SIDES[part], place, faults, notes, flat=True), place)
    return part, Part(interaction_table(rows, place, faults, notes, flat=True, missing_ok=missing_ok), place)


def _part_of(names: Iterable[str]) -> str:
    ids = {name for name in names if name in IDS}
    return "interactions" if len(ids) == len(IDS) else "items" if "item_id" in ids else "users"


def read_parquet(path: Path) -> pa.Table:
    """A Parquet file's table. Raises DataError."""
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            return file.read()
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise DataError(Fault(str(path), f"cannot be read as Parquet: {reason}.", kind="unreadable")) from None


def read_lines(path: Path, faults: Faults) -> tuple[list[Any], LinePlace]:
    """The records of a JSON Lines file, like those of the JSON format, and the line of each."""
    data = read_bytes(path)
    place = LinePlace(path.name, data)
    try:
        rows = msgspec.json.Decoder().decode_lines(data)
        keys = keys_of(rows)
        if keys == keys_in_text(data) or keys == keys_in_text_exactly(data):
            return rows, place
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        pass
    rows = []
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.strip():
            rows.append(_line(line, path, number, faults))
    return rows, place


def _line(line: bytes, path: Path, number: int, faults: Faults) -> Any:
    where = f"{path.name} line {number}"
    found = Faults()
    try:
        value = decode_any(line, Path(path.name), found)
    except DataError as error:
        what = "this line is no JSON object"
        reason = error.faults[0].what if error.faults[0].kind == "encoding" else f"{what}: {error.faults[0].what}"
        faults.add(error.faults[0].kind, where, reason, "Each line holds one record.")
        return {}
    for fault in found.shown:
        faults.add(fault.kind, f"{where}, {fault.where}", fault.what, fault.hint)
    return value


def finish_parts(
    parts: Mapping[str, Part | Raw],
    faults: Faults,
    notes: list[str],
    *,
    missing_ok: bool = False,
    known_ids: Mapping[str, pa.Array] | None = None,
) -> dict[str, Part]:
    """The parts in the types of `Dataset`.

    Args:
        known_ids: By `user_id` and `item_id`, the ids that a model knows, whose types ids in CSV files take.
    """
    known_ids = known_ids or {}
    _type_csv_ids(parts, {key: [ids.type] for key, ids in known_ids.items()})
    item_ids: Any = known_ids.get("item_id")
    made: dict[str, Part] = {}
    for part in ("items", "users", "interactions"):  # numerals of temporal columns may be item ids that are texts
        found = parts.get(part)
        if isinstance(found, Raw):
            if item_ids is None and part == "items":
                item_ids = next((column for name, column in found.columns if name == "item_id"), None)
            found = _normalised(found, part, item_ids, faults, notes, missing_ok)
        if found is not None:
            if item_ids is None and part == "items":
                item_ids = found.table.column("item_id").combine_chunks()
            made[part] = found
    return made


def _normalised(raw: Raw, part: str, item_ids: Any, faults: Faults, notes: list[str], missing_ok: bool) -> Part:
    among = item_ids if isinstance(item_ids, pa.StringArray) else None
    table = normalised(
        raw.columns,
        raw.rows,
        SIDES.get(part, ""),
        raw.source,
        raw.place,
        faults,
        notes,
        missing_ok=missing_ok and part not in SIDES,
        item_ids=among,
    )
    return Part(table, raw.place)


def _type_csv_ids(parts: Mapping[str, Part | Raw], known: dict[str, list[pa.DataType]]) -> None:
    raw = [part for part in parts.values() if isinstance(part, Raw) and part.is_csv]
    typed: dict[str, list[pa.DataType]] = {key: list(known.get(key, [])) for key in IDS}
    for part in parts.values():
        if isinstance(part, Part):
            if len(part.table):
                for key in IDS:
                    typed[key] += [field.type for field in part.table.schema if field.name == key]
        elif not part.is_csv:
            for name, column in part.columns:
                if name in IDS:
                    typed[name].append(_plain_type(column))
    for part, columns in zip(raw, whole_number_ids([part.columns for part in raw], typed), strict=True):
        part.columns = columns


def _plain_type(column: Any) -> pa.DataType:
    if isinstance(column, list):
        return pa.string()
    try:
        return plain(column)[0].type
    except UnreadableType:
        return column.type
