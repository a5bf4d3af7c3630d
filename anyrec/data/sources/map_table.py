"""One table of the config as columns that are named by their roles and features."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.core.config.sources import Cell, ColumnConfig, FormatConfig, SourceTable, TableConfig
from anyrec.core.errors import ConfigError, Fault, did_you_mean
from anyrec.core.registry import Registry
from anyrec.core.scratch import kept
from anyrec.core.strict_json import pointer
from anyrec.core.values import show
from anyrec.data.formats.at import At
from anyrec.data.formats.columns import ALLOWED
from anyrec.data.formats.csv_file import typed_texts
from anyrec.data.formats.faults import Faults
from anyrec.data.formats.frames import DataFrame, as_arrow
from anyrec.data.formats.places import Place, table_place
from anyrec.data.formats.table_columns import FIELDS
from anyrec.data.ids import ID_COLUMNS
from anyrec.data.list_columns import as_lists, is_list, lengths_of
from anyrec.data.memory_limit import Room
from anyrec.data.sources.contract import Access, Rows
from anyrec.data.sources.nested import column_named, names_of, roots_of
from anyrec.data.sources.open_table import open_table, title_of
from anyrec.data.sources.side_tables import joined, keys_of
from anyrec.data.sources.transforms import as_text, transformed

LONG = 1 << 20
"""Columns of tables of at least this many rows are freed as soon as they are used."""
TEXTS = (*ALLOWED, *FIELDS)
"""Groups and roles whose texts are read by their own rules; numbers in texts of other groups become numbers."""


@dataclass
class Mapped:
    """A table whose columns are named by roles and features.

    Attributes:
        config: The table in the config.
        where: JSON pointer to it.
        name: Its name, for messages.
        columns: (rows,) arrays by role or feature.
        specs: What the config says of each column.
        rows: The number of rows.
        place: Where each row is; the column is named by its role or feature.
        untyped: Whether its cells were texts because the format has no types.
        mixed: For columns that had values of several types, the rows of the rarer ones.
        times: (rows,) int64 the times of interactions in microseconds since 1970, for records that they describe.
    """

    config: SourceTable
    where: str
    name: str
    columns: dict[str, pa.Array]
    specs: dict[str, ColumnConfig]
    rows: int
    place: Place
    untyped: bool
    mixed: dict[str, list[int]] = field(default_factory=dict)
    times: np.ndarray | None = None

    def at(self, column: str, faults: Faults, notes: list[str]) -> At:
        """Return the place of a column."""
        return At(f"{self.name}: {column}", self.where, lambda row: self.place(row, column), faults, notes)


@dataclass
class Reader:
    """Everything that is needed to read the tables of a config.

    Attributes:
        registry: The components.
        access: Folder of relative paths and permissions; its faults get those of all columns.
        tables: Data frames by the paths that they stand for.
        notes: Gets what the user should know.
        room: Where interactions are kept.
        versions: Gets what identifies the content of each table.
    """

    registry: Registry
    access: Access
    tables: Mapping[str, DataFrame]
    notes: list[str]
    room: Room
    versions: dict[str, str] = field(default_factory=dict)

    def read(
        self, table: TableConfig, wanted: Iterable[str] | None, where: str, room: Room | None = None
    ) -> tuple[pa.Table, Rows]:
        """Read a table, with the rows that `only` keeps.

        Args:
            table: Where the rows are.
            wanted: Columns that are used; None for all.
            where: JSON pointer to the table.
            room: Where the rows are kept; None for memory.
        """
        names = None if wanted is None else frozenset(one for name in (*wanted, *table.only) for one in roots_of(name))
        if isinstance(table.path, str) and table.path in self.tables:
            found = as_arrow(self.tables[table.path])
            rows = Rows(found.to_reader(), table.path, "", names=found.column_names)
        else:
            rows = open_table(table, replace(self.access, columns=names), self.registry, where)
        schema = rows.reader.schema.remove_metadata()
        batches = _only(rows, table, where) if table.only else rows.reader
        read = pa.Table.from_batches(batches, schema) if room is None else room.table(schema, batches)
        self.notes += [note for note in rows.notes if note not in self.notes]
        if rows.version:
            self.versions[title_of(table)] = rows.version
        return read, rows


def map_table(table: SourceTable, where: str, reader: Reader, room: Room | None = None) -> Mapped:
    """Read a table, add its side tables, and make its columns of roles and features.

    Args:
        table: The table.
        where: JSON pointer to it.
        reader: Reads it.
        room: Where its rows are kept; None for memory.

    Raises:
        ConfigError: If a column is not there.
        DataError: If a table cannot be read.
    """
    faults, notes = reader.access.faults, reader.notes
    specs = _specs(table)
    wanted = _wanted(table, specs)
    read, rows = reader.read(table, wanted, where, room)
    scratch = None if room is None else room.scratch
    place = rows.place or table_place(rows.name)
    for number, side in enumerate(table.join):
        side_where = f"{where}/join/{number}"
        names = None if side.columns is None else [*keys_of(side).values(), *side.columns]
        other, side_rows = reader.read(side, names, side_where)
        other = _without_nulls(other, side.format, side_rows.untyped)
        side_place = side_rows.place or table_place(side_rows.name)
        at = At(rows.name, side_where, lambda row: place(row, ""), faults, notes)
        read = joined(read, side, other, side_place, side_rows.name, at)
    if not table.columns:
        specs = [(name, ColumnConfig(to=name)) for name in read.column_names]
    specs = _existing(read.schema, rows, specs, table, notes)
    _check_names(read.schema, rows, specs, where)
    counts: dict[str, dict[str, int]] = {}
    made: dict[str, pa.Array] = {}
    uses = Counter(root for name, spec in specs for one in (name, *spec.append) for root in roots_of(one))
    count = len(read)
    for name, spec in specs:
        at = At(f"{rows.name}: {name}", pointer_of(where, name), lambda row, n=name: place(row, n), faults, notes)
        made[spec.to] = kept(_column(read, name, spec, table.format, rows.untyped, counts, at), scratch)
        read = _without_used(read, uses, (name, *spec.append))
    _note_nulls(counts, rows.name, notes)
    mixed = {spec.to: rows.mixed[name] for name, spec in specs if name in rows.mixed}
    sources = {spec.to: name for name, spec in specs}
    mapped = Mapped(
        table, where, rows.name, made, {spec.to: spec for _, spec in specs}, count,
        lambda row, column: place(row, sources.get(column, column)), rows.untyped, mixed,
    )  # fmt: skip
    _explode(mapped, faults)
    for name, value in table.constants.items():
        mapped.columns[name] = pa.repeat(value, mapped.rows)
    mapped.columns = {name: kept(column, scratch) for name, column in mapped.columns.items()}
    return mapped


def pointer_of(where: str, column: str) -> str:
    """Return the JSON pointer to the meaning of a column. where: That of its table."""
    return where + pointer(["columns", column])


def _specs(table: SourceTable) -> list[tuple[str, ColumnConfig]]:
    """Return the columns with their meanings; a column of several meanings occurs several times."""
    found = []
    for name, target in table.columns.items():
        for one in target if isinstance(target, list) else [target]:
            if one is not None:
                found.append((name, ColumnConfig(to=one) if isinstance(one, str) else one))
    return found


def _wanted(table: SourceTable, specs: list[tuple[str, ColumnConfig]]) -> list[str] | None:
    """Return the columns that are read, also those that a side table may have; None for all."""
    if not table.columns:
        return None
    return [name for column, spec in specs for name in (column, *spec.append)] + [
        key for side in table.join for key in keys_of(side)
    ]


def _without_used(read: pa.Table, uses: Counter[str], used: Iterable[str]) -> pa.Table:
    """Return a long table without the columns that are not used again, which frees their memory.

    Args:
        read: The table.
        uses: How often each column is used from now on; the uses of this time are taken off.
        used: The columns, or fields of columns, that were used.
    """
    uses.subtract(root for name in used for root in roots_of(name))
    if len(read) < LONG:
        return read
    return read.select([place for place, name in enumerate(read.column_names) if uses[name] > 0])


def _existing(
    schema: pa.Schema, rows: Rows, specs: list[tuple[str, ColumnConfig]], table: SourceTable, notes: list[str]
) -> list[tuple[str, ColumnConfig]]:
    """Return the columns without those that are not there, if the config ignores them; ids must be there."""
    if table.missing == "error":
        return specs
    nothing = schema.empty_table()
    lost = [name for name, spec in specs if column_named(nothing, name) is None and spec.to not in ID_COLUMNS]
    if lost:
        notes.append(f"{rows.name} has no column {', '.join(dict.fromkeys(lost))}, so it is left out.")
    return [(name, spec) for name, spec in specs if name not in lost]


def _check_names(schema: pa.Schema, rows: Rows, specs: list[tuple[str, ColumnConfig]], where: str) -> None:
    """Raise ConfigError for columns that are not there, or that are there twice."""
    names, nothing = rows.names or schema.names, schema.empty_table()
    faults = []
    for name in dict.fromkeys(one for column, spec in specs for one in (column, *spec.append)):
        if column_named(nothing, name) is None:
            hint = did_you_mean(name, dict.fromkeys([*names, *names_of(schema)]))
            faults.append(
                Fault(pointer_of(where, name), f"{rows.name} has no column {show(name)}.", hint, "unknown column")
            )
        elif names.count(name) > 1:
            what, hint = f"{rows.name} has several columns {show(name)}.", "Rename them, or set format.header."
            faults.append(Fault(pointer_of(where, name), what, hint, "doubled column"))
    if faults:
        raise ConfigError(faults)


def _column(
    read: pa.Table,
    name: str,
    spec: ColumnConfig,
    options: FormatConfig,
    untyped: bool,
    counts: dict[str, dict[str, int]],
    at: At,
) -> pa.Array:
    """Return a column with its missing values and its changes. counts: Gets how often each null text occurs."""
    columns = [column_named(read, one) for one in (name, *spec.append)]
    found = [column for column in columns if column is not None]
    if untyped and spec.to not in ID_COLUMNS:
        found = [_nulled(column, options.nulls, counts.setdefault(name, {})) for column in found]
    while is_list(found[0].type) and is_list(found[0].type.value_type):  # lists of lists become lists
        inner = found[0].flatten()
        totals = np.add.reduceat(np.append(lengths_of(inner), 0), np.cumsum(np.append(0, lengths_of(found[0])))[:-1])
        totals = np.where(lengths_of(found[0]) > 0, totals, 0)
        found[0] = as_lists(inner.flatten(), totals, found[0].is_null())
    made = transformed(found[0], spec, found[1:], options.decimal, untyped, at)
    target = spec.to.split(".")
    kind = target[-2] if len(target) > 1 else target[0]
    if untyped and pa.types.is_string(made.type) and kind not in TEXTS and spec.to not in ID_COLUMNS:
        return typed_texts(made)
    return made


def _nulled(column: pa.Array, nulls: list[str], counts: dict[str, int]) -> pa.Array:
    """Return a column of texts without those that stand for a missing value."""
    if not pa.types.is_string(column.type) or not nulls:
        return column
    missing = pc.is_in(column, value_set=pa.array(nulls))
    if not pc.any(missing).as_py():
        return column
    for one in pc.value_counts(column.filter(missing)).to_pylist():
        if one["values"]:
            counts[one["values"]] = counts.get(one["values"], 0) + one["counts"]
    return pc.if_else(missing, pa.scalar(None, pa.string()), column)


def _without_nulls(table: pa.Table, options: FormatConfig, untyped: bool) -> pa.Table:
    """Return a side table without texts that stand for a missing value."""
    if not untyped:
        return table
    columns = [_nulled(column_named(table, name), options.nulls, {}) for name in table.column_names]
    return pa.Table.from_arrays(columns, table.column_names)


def _note_nulls(counts: dict[str, dict[str, int]], name: str, notes: list[str]) -> None:
    """Say which texts are read as missing values, and in which columns."""
    for text in dict.fromkeys(text for found in counts.values() for text in found):
        where = ", ".join(f"{column} ({found[text]:,})" for column, found in counts.items() if text in found)
        notes.append(f"{name}: {text!r} is read as a missing value in {where}; format.nulls of the table changes it.")


def _only(rows: Rows, table: TableConfig, where: str) -> Iterator[pa.RecordBatch]:
    """Yield the rows whose values `only` lists. The places of the rows follow."""
    texts = {
        name: pa.array([None if value is None else _as_cell(value) for value in values], pa.string())
        for name, values in table.only.items()
    }
    schema = rows.reader.schema
    for name in texts:
        if column_named(schema.empty_table(), name) is None:
            hint = did_you_mean(name, names_of(schema))
            fault = Fault(where + pointer(["only", name]), f"{rows.name} has no such column.", hint, "unknown column")
            raise ConfigError(fault)
    masks: list[np.ndarray] = []
    place, mixed, rows.mixed = rows.place or table_place(rows.name), rows.mixed, {}
    rows.place = lambda row, column: place(int(np.flatnonzero(np.concatenate(masks))[row]), column)
    for batch in rows.reader:
        keep = np.ones(len(batch), bool)
        for name, values in texts.items():
            column = column_named(pa.Table.from_batches([batch]), name)
            at = At(f"{rows.name}: {name}", where, str, Faults(), [])
            keep &= pc.is_in(as_text(column, at), value_set=values).to_numpy(zero_copy_only=False)
        masks.append(keep)
        yield batch.filter(pa.array(keep))
    if mixed:
        numbers = np.cumsum(kept := np.concatenate(masks)) - 1
        rows.mixed = {name: [int(numbers[row]) for row in found if kept[row]] for name, found in mixed.items()}


def _as_cell(value: Cell) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _explode(mapped: Mapped, faults: Faults) -> None:
    """Make a row for each value of the lists whose columns say `explode`. Rows without a value are left out."""
    names = [name for name, spec in mapped.specs.items() if spec.explode]
    if not names:
        return
    single = [name for name in names if not is_list(mapped.columns[name].type)]
    for name in single:
        what, hint = "this column has no lists.", "Set `split` or `json_list` as well."
        faults.add("column type", f"{mapped.name}: {name}", what, hint)
    if single:
        return
    lengths = lengths_of(mapped.columns[names[0]])
    for name in names:
        found = lengths_of(mapped.columns[name])
        if (found != lengths).any():
            row = int(np.flatnonzero(found != lengths)[0])
            what = f"{lengths[row]} values in one list and {found[row]} in the other."
            faults.add(
                "bad value", mapped.place(row, name), what, "Lists of one row that are exploded have one length."
            )
            return
    owners = np.repeat(np.arange(mapped.rows), lengths)
    rows, place = pa.array(owners), mapped.place
    mapped.columns = {
        name: column.flatten() if name in names else column.take(rows) for name, column in mapped.columns.items()
    }
    mapped.rows, mapped.mixed = len(owners), {}
    mapped.place = lambda row, column: place(int(owners[row]), column)
