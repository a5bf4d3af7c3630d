"""Any Arrow type as one that the engine uses: bool, int64, float64, string, TIME, lists and structs of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.data.formats.times import typed_times
from anyrec.data.list_columns import as_lists, lengths_of

Test = Callable[[pa.DataType], bool]
Conversion = Callable[[pa.Array], tuple[pa.Array, np.ndarray]]
NOTHING = np.empty(0, np.int64)


class UnreadableType(Exception):
    """A column is of a type that is no text, number, time, list or object.

    The message names the type and the reason.
    """


def plain(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Convert a column to a type that the engine uses.

    Whole numbers beyond 64 bits stay uint64, so that ids can be refused while numbers become floats. NaN in a column of
    floats becomes null, since data frames write missing values as NaN.

    Args:
        column: (rows,) Any type.

    Returns:
        The column, and the rows that hold a time outside the years 1 to 9999.

    Raises:
        UnreadableType: If there is no such conversion.
    """
    kind = column.type
    if isinstance(column, pa.ExtensionArray):
        return _uuid(column.storage) if kind == pa.uuid() else plain(column.storage)
    for test, convert in _CONVERSIONS:
        if test(kind):
            return convert(column)
    raise UnreadableType(str(kind))


def _dictionary(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    return plain(column.dictionary_decode())


def _run_end(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    return plain(pc.run_end_decode(column))


def _null(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    return pa.nulls(len(column), pa.string()), NOTHING


def _same(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    return column, NOTHING


def _text(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    return column.cast(pa.string()), NOTHING


def _bytes(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Older Parquet writers store texts as bytes."""
    try:
        return column.cast(pa.binary()).cast(pa.string()), NOTHING
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise UnreadableType(f"{column.type} that is not UTF-8 text") from None


def _uuid(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Write UUIDs, 16 bytes each, in their usual form with dashes."""
    raw = b"".join(column.fill_null(bytes(16)).to_pylist()).hex()
    texts = pa.array(np.frombuffer(raw.encode(), "S32").astype(str) if raw else [], pa.string())
    ends = (0, 8, 12, 16, 20, 32)
    parts = [pc.utf8_slice_codeunits(texts, start, stop) for start, stop in itertools.pairwise(ends)]
    return pc.if_else(column.is_valid(), pc.binary_join_element_wise(*parts, "-"), None), NOTHING


def _whole(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    try:
        return column.cast(pa.int64()), NOTHING
    except pa.ArrowInvalid:
        return column, NOTHING


def _float(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    column = column.cast(pa.float64())
    return pc.if_else(pc.fill_null(pc.is_nan(column), False), None, column), NOTHING


def _decimal(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    if column.type.scale <= 0:
        try:
            return column.cast(pa.int64()), NOTHING
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            pass
    return column.cast(pa.float64()), NOTHING


def _clock(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Write times of day as HH:MM:SS."""
    return column.cast(pa.string()), NOTHING


def _duration(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Convert durations to seconds."""
    unit = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}[column.type.unit]
    return pc.divide(column.cast(pa.int64()).cast(pa.float64(), safe=False), unit), NOTHING


def _list(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    values, bad = plain(column.flatten())
    lengths = lengths_of(column)
    owners = np.searchsorted(np.cumsum(lengths), bad, side="right") if len(bad) else bad
    return as_lists(values, lengths, column.is_null()), owners


def _map(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    pair = pa.struct([("key", column.type.key_type), ("value", column.type.item_type)])
    return plain(column.cast(pa.list_(pair)))


def _struct(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    if not column.type.num_fields:  # objects without any field hold nothing
        return pa.nulls(len(column), pa.string()), NOTHING
    names = [column.type.field(place).name for place in range(column.type.num_fields)]
    parts = [plain(part) for part in column.flatten()]
    made = pa.StructArray.from_arrays([part[0] for part in parts], names, mask=column.is_null())
    return made, np.unique(np.concatenate([part[1] for part in parts]))


_CONVERSIONS: list[tuple[Test, Conversion]] = [
    (pa.types.is_null, _null),
    (pa.types.is_string, _same),
    (pa.types.is_boolean, _same),
    (pa.types.is_int64, _same),
    (pa.types.is_floating, _float),
    (pa.types.is_integer, _whole),
    (pa.types.is_list, _list),
    (pa.types.is_large_list, _list),
    (pa.types.is_fixed_size_list, _list),
    (pa.types.is_list_view, _list),
    (pa.types.is_large_list_view, _list),
    (lambda kind: pa.types.is_large_string(kind) or pa.types.is_string_view(kind), _text),
    (lambda kind: pa.types.is_timestamp(kind) or pa.types.is_date(kind), typed_times),
    (pa.types.is_dictionary, _dictionary),
    (pa.types.is_run_end_encoded, _run_end),
    (pa.types.is_decimal, _decimal),
    (pa.types.is_time, _clock),
    (pa.types.is_duration, _duration),
    (pa.types.is_struct, _struct),
    (pa.types.is_map, _map),
    (
        lambda kind: (
            pa.types.is_binary(kind)
            or pa.types.is_large_binary(kind)
            or pa.types.is_fixed_size_binary(kind)
            or pa.types.is_binary_view(kind)
        ),
        _bytes,
    ),
]
