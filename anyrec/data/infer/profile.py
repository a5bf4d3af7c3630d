"""Tables with the names and the shapes of their columns."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.core.config.sources import FormatConfig, TableConfig
from anyrec.core.errors import DataError
from anyrec.core.registry import Registry
from anyrec.core.types import Json, JsonObject
from anyrec.data.formats.table_columns import NUMBER
from anyrec.data.infer.names import role_of, words_of
from anyrec.data.infer.shapes import Shape, shape_of
from anyrec.data.list_columns import is_list
from anyrec.data.sources.contract import Access, Rows
from anyrec.data.sources.nested import one_array
from anyrec.data.sources.open_table import open_table
from anyrec.data.sources.text_stream import LIKELY

MOST_ROWS = 1_000_000
"""Rows of a table that are looked at."""
MOST_COLUMNS = 2_000
"""Columns of a table that are looked at."""


@dataclass
class Column:
    """A column, and what it was taken for.

    Attributes:
        name: Its name.
        values: (rows,) values; those of formats without types are texts.
        shape: What the values look like.
        distinct: Number of different values, of those that are not missing.
        present: Number of values that are not missing.
        meaning: Role or feature, as the config has it: a text, an object, a list of both, or None if it is left out.
        why: Why it was taken for that, or left out.
    """

    name: str
    values: pa.Array
    shape: Shape
    distinct: int
    present: int
    meaning: Json = None
    why: str = ""

    @property
    def unique(self) -> bool:
        """Whether no value occurs twice and none is missing."""
        return self.distinct == len(self.values) > 0

    @property
    def texts(self) -> pa.Array:
        """(distinct,) the different values as texts."""
        found = pc.unique(self.values).drop_null()
        if pa.types.is_floating(found.type):
            found = found.cast(pa.int64(), safe=False)
        texts = pc.utf8_trim_whitespace(found.cast(pa.string()))
        return pc.replace_substring_regex(texts, r"\.0+$", "")


@dataclass
class Table:
    """A table, and what it was taken for.

    Attributes:
        name: Its name, for messages.
        config: Where it is and how it is decoded, as the config has it.
        columns: Its columns by name.
        rows: The number of rows that were looked at.
        whole: Whether these are all.
        part: users, items or interactions; empty for a table that is not one of them.
        joins: Side tables of it, as the config has them.
        constants: Roles with one value, as the config has them.
        options: Further keys of the table in the config.
        notes: What was found out about the format.
    """

    name: str
    config: JsonObject
    columns: dict[str, Column]
    rows: int
    whole: bool
    part: str = ""
    joins: list[JsonObject] = field(default_factory=list)
    constants: JsonObject = field(default_factory=dict)
    options: JsonObject = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def role(self, role: str) -> Column | None:
        """Return the column that was taken for a role."""
        return next((one for one in self.columns.values() if _target(one.meaning) == role), None)


def profile(config: JsonObject, access: Access, registry: Registry, where: str) -> Table:
    """Read the beginning of a table and look at its columns.

    Args:
        config: The table as the config has it.
        access: Folder of relative paths and permissions.
        registry: The components.
        where: The table, for messages.

    Raises:
        DataError: If it cannot be read.
    """
    rows, read, whole, config = _read(config, access, registry, where)
    notes = list(rows.notes)
    if rows.untyped and _is_adjacency(read):
        config = _with_format(config, type="adjacency")
        notes.append("each line holds a user and the items of that user")
        rows, read, whole, config = _read(config, access, registry, where)
    if rows.untyped and "header" not in config.get("format", {}) and _is_headless(read):
        names = [f"column_{n + 1}" for n in range(read.num_columns)]
        config = _with_format(config, header=names)
        notes.append("the first line seems to be data, so the columns are named column_1, column_2 and so on")
        rows, read, whole, config = _read(config, access, registry, where)
    if "encoding" in config.get("format", {}):
        notes.append(f"read as {config['format']['encoding']}: check letters with accents")
    nulls = FormatConfig().nulls if rows.untyped else []
    columns = {}
    for place, name in enumerate(read.column_names[:MOST_COLUMNS]):
        values = one_array(read.column(place))
        if pa.types.is_string(values.type) and nulls:
            values = pc.if_else(pc.is_in(values, value_set=pa.array(["", "NULL", "\\N"])), None, values)
        shape = shape_of(values, nulls)
        distinct, present = _counts(values)
        columns[name] = Column(name, values, shape, distinct, present)
    _flatten(columns)
    return Table(rows.name, config, columns, len(read), whole, notes=notes)


def _read(
    config: JsonObject, access: Access, registry: Registry, where: str
) -> tuple[Rows, pa.Table, bool, JsonObject]:
    """Return the rows, the first of them as a table, whether these are all, and the config, with an encoding."""
    try:
        rows = open_table(TableConfig.model_validate(config), access, registry, where)
        batches, count = [], 0
        for batch in rows.reader:
            batches.append(batch)
            count += len(batch)
            if count >= MOST_ROWS:
                break
        whole = count < MOST_ROWS
        table = pa.Table.from_batches(batches, rows.reader.schema).slice(0, MOST_ROWS)
        return rows, table.replace_schema_metadata(None), whole, config
    except DataError as error:
        given = config.get("format", {}).get("encoding")
        if given is not None or all(fault.kind != "encoding" for fault in error.faults):
            raise
        return _read(_with_format(config, encoding=LIKELY), access, registry, where)


def _with_format(config: JsonObject, **keys: Any) -> JsonObject:
    return {**config, "format": {**config.get("format", {}), **keys}}


def _is_adjacency(read: pa.Table) -> bool:
    """Return whether each line holds whole numbers that are separated by spaces, of different counts."""
    if read.num_columns != 1 or not len(read):
        return False
    lines = one_array(read.column(0)).slice(0, 1_000).drop_null()
    counts = pc.list_value_length(pc.utf8_split_whitespace(lines))
    numbers = pc.all(
        pc.match_substring_regex(pa.concat_arrays([lines, pa.array(read.column_names)]), "^[0-9 ]+$")
    ).as_py()
    return bool(numbers) and (pc.max(counts).as_py() or 0) > 1


def _is_headless(read: pa.Table) -> bool:
    """Return whether the header of a text looks like a row of data: cells that are numbers, as those below them."""
    names = pa.array(read.column_names, pa.string())
    numeric = pc.match_substring_regex(names, NUMBER).to_numpy(zero_copy_only=False)
    if not numeric.any() or any(role_of(name) for name in read.column_names) or not len(read):
        return False
    if [str(n) for n in range(len(names))] == [name for name in read.column_names if name]:
        return False  # the numbered columns of a data frame
    first = read.slice(0, 1_000)
    below = [
        pc.match_substring_regex(one_array(first.column(int(place))).drop_null(), NUMBER)
        for place in np.flatnonzero(numeric)
    ]
    return all(len(found) == 0 or pc.all(found).as_py() for found in below)


def _counts(values: pa.Array) -> tuple[int, int]:
    """Return the number of different values and of values, both without missing ones; 0 different for lists."""
    if is_list(values.type) or pa.types.is_nested(values.type):
        return 0, len(values) - values.null_count
    return len(pc.unique(values).drop_null()), len(values) - values.null_count


def _flatten(columns: dict[str, Column]) -> None:
    """Replace columns of objects by their fields, at any depth."""
    while names := [name for name, one in columns.items() if pa.types.is_struct(one.values.type)]:
        for name in names:
            one = columns.pop(name)
            for place, part in enumerate(one.values.flatten()):
                inner = f"{name}.{one.values.type.field(place).name}"
                columns[inner] = Column(inner, part, shape_of(part, []), *_counts(part))


def _target(meaning: Json) -> str | None:
    """Return the first role or feature of a meaning, also of one that is an open question."""
    first = meaning[0] if isinstance(meaning, list) else meaning
    target = first.get("to") if isinstance(first, dict) else first
    return target


def grouped(tables: list[Table]) -> list[Table]:
    """Join tables of files with the same columns whose names differ in numbers alone: parts of one table."""
    found: dict[tuple[tuple[str, ...], tuple[str, ...]], Table] = {}
    for table in tables:
        stem = table.name.rsplit(".", 1)[0]
        key = (tuple(table.columns), tuple(word for word in words_of(stem) if not word.isdigit()))
        first = found.get(key)
        if (
            first is None
            or not isinstance(table.config.get("path"), str)
            or first.config.get("format") != table.config.get("format")
        ):
            found[(*key, table.name) if first is not None else key] = table  # type: ignore[index]
            continue
        paths = first.config["path"] if isinstance(first.config["path"], list) else [first.config["path"]]
        merged = {name: _merged(one, table.columns[name]) for name, one in first.columns.items()}
        config = {**first.config, "path": [*paths, table.config["path"]]}
        found[key] = replace(first, config=config, columns=merged, rows=first.rows + table.rows)
    return list(found.values())


def _merged(one: Column, other: Column) -> Column:
    try:
        values = pa.concat_arrays([one.values, other.values])
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return one
    return Column(one.name, values, one.shape, *_counts(values))
