"""Columns by name, also fields of nested objects: `details.price`, and `images.large` of a list of objects."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from anyrec.data.list_columns import as_lists, is_list, lengths_of


def column_named(table: pa.Table, name: str) -> pa.Array | None:
    """Return a column, or a field of one; None if there is none of the name. A column of the whole name comes first."""
    if name in table.column_names:
        return one_array(table.column(table.column_names.index(name)))
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        start = ".".join(parts[:cut])
        if start in table.column_names:
            found: pa.Array | None = one_array(table.column(start))
            for part in parts[cut:]:
                found = None if found is None else _field(found, part)
            return found
    return None


def roots_of(name: str) -> list[str]:
    """Return the names of columns that a column, or a field of one, can be in: `a.b.c`, `a.b`, `a`."""
    parts = name.split(".")
    return [".".join(parts[:cut]) for cut in range(len(parts), 0, -1)]


def names_of(schema: pa.Schema) -> list[str]:
    """Return the names of all columns and of the fields of nested objects."""
    return [name for field in schema for name in _names(field.name, field.type)]


def one_array(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array; dictionaries are decoded."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def _names(name: str, kind: pa.DataType) -> list[str]:
    while is_list(kind):
        kind = kind.value_type
    inner = [one for field in kind for one in _names(f"{name}.{field.name}", field.type)] if _is_struct(kind) else []
    return [name, *inner]


def _is_struct(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind)


def _field(column: pa.Array, name: str) -> pa.Array | None:
    kind = column.type
    if _is_struct(kind):
        return pc.struct_field(column, name) if kind.get_field_index(name) >= 0 else None
    if pa.types.is_map(kind):
        return pc.map_lookup(column, pa.scalar(name, kind.key_type), "first")
    if is_list(kind):
        inner = _field(column.flatten(), name)
        return None if inner is None else as_lists(inner, lengths_of(column), column.is_null())
    return None
