"""Features as rules read them (`item.continuous.price`, `user.id`): flat values and the rows they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.core.errors import Fault, InputError, did_you_mean
from anyrec.data.list_columns import flat
from anyrec.model.model_data import ModelData
from anyrec.pipeline.contracts import Request

Kind = Literal["number", "text", "time", "flag", "other"]
SIDES = ("item", "user", "context")


class Type(NamedTuple):
    """The type of a feature.

    Attributes:
        kind: Kind of its values.
        many: Whether a record may have several.
    """

    kind: Kind
    many: bool


@dataclass(frozen=True)
class Values:
    """The values of one feature; records without a value have no entry.

    Attributes:
        kind: Kind of the values.
        many: Whether a record may have several.
        rows: The number of records.
        owners: (values,) int64 record of each value, ascending; a record's values are distinct.
        data: (values,) float64 numbers, microseconds since 1970, or flags as 0 and 1; for texts int64 places in
            `names`.
        names: The distinct texts; None for other kinds.
    """

    kind: Kind
    many: bool
    rows: int
    owners: np.ndarray
    data: np.ndarray
    names: pa.Array | None = None

    @property
    def counts(self) -> np.ndarray:
        """(rows,) number of values of each record."""
        return np.bincount(self.owners, minlength=self.rows)

    def single(self) -> np.ndarray:
        """Return (rows,) float64, the last value of each record, texts as places in `names`; NaN if missing."""
        found = np.full(self.rows, np.nan)
        found[self.owners] = self.data
        return found

    def take(self, rows: np.ndarray) -> Values:
        """Return the values of the records `rows: (taken,)`, in that order."""
        starts = np.searchsorted(self.owners, rows)
        lengths = np.searchsorted(self.owners, rows, side="right") - starts
        owners = np.repeat(np.arange(len(rows)), lengths)
        places = np.arange(len(owners)) + np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
        return Values(self.kind, self.many, len(rows), owners, self.data[places], self.names)

    def padded(self) -> np.ndarray:
        """Return texts as (rows, n) int64 places in `names`, -1 past the end; n is the largest number of a record."""
        counts = self.counts
        table = np.full((self.rows, max(1, counts.max(initial=0))), -1)
        table[self.owners, np.arange(len(self.owners)) - np.repeat(np.cumsum(counts) - counts, counts)] = self.data
        return table


class Features:
    """Reads features for one rule. The values of item features are cached for the latest table of items."""

    def __init__(self) -> None:
        self._made: tuple[pa.Table | None, dict[str, Values]] = (None, {})

    def of(self, request: Request, name: str) -> Values:
        """Return the values of a feature.

        Args:
            request: The request.
            name: `item.` or `user.`, and `id` or the name of a feature. A feature that the table does not have is
                missing in all records.
        """
        side, column = split_name(name)
        if side == "user":
            return values_of(request.users, column, len(request.rows))
        items = request.items
        table, made = self._made  # read once: another thread may replace it
        if table is not items:
            made = {}
            self._made = (items, made)
        if name not in made:
            made[name] = values_of(items, column, len(items))
        return made[name]

    def allowed(self, request: Request, name: str | None, missing: Literal["keep", "drop"]) -> np.ndarray | None:
        """Return (items,) bool, the items that have the feature, if `missing` is "drop"; else None for all."""
        return None if name is None or missing == "keep" else self.of(request, name).counts > 0


def values_of(table: pa.Table, name: str, rows: int) -> Values:
    """Return a column as values. A temporal list of numbers or times counts as its last value.

    Args:
        table: Records.
        name: Name of the column.
        rows: The number of records.
    """
    if name not in table.column_names or pa.types.is_null(table.schema.field(name).type):
        return Values("other", False, rows, np.empty(0, np.int64), np.empty(0))
    column = _plain(table.column(name).combine_chunks())
    found = type_of(name, column.type)
    if found == Type("other", False):  # Arrow cannot filter every such type; is_null needs no values
        owners = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
        return Values("other", False, rows, owners, np.zeros(len(owners)))
    values, owners = flat(column)
    if found.kind == "text":
        coded = values.cast(pa.string()).dictionary_encode()
        data, names = coded.indices.to_numpy(zero_copy_only=False).astype(np.int64), coded.dictionary
    else:
        data, names = _numbers(values, found.kind), None
        if found.kind == "number" and np.isnan(data).any():  # NaN is a missing value
            owners, data = owners[~np.isnan(data)], data[~np.isnan(data)]
    if found.many:
        order = np.lexsort((data, owners))
        owners, data = owners[order], data[order]
        first = np.ones(len(data), bool)
        first[1:] = (owners[1:] != owners[:-1]) | (data[1:] != data[:-1])
        owners, data = owners[first], data[first]
    elif pa.types.is_list(column.type):
        last = np.append(owners[1:] != owners[:-1], np.ones(min(1, len(owners)), bool))
        owners, data = owners[last], data[last]
    return Values(found.kind, found.many, rows, owners.astype(np.int64), data, names)


def _plain(column: pa.Array) -> pa.Array:
    """Cast dictionary-encoded and view texts, also within lists, to types that Arrow's functions accept."""
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        inner = _plain_type(column.type.value_type)
        return column if inner == column.type.value_type else column.cast(pa.large_list(inner))
    return column.cast(_plain_type(column.type))


def _plain_type(kind: pa.DataType) -> pa.DataType:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.large_string() if kind == pa.string_view() else kind


def type_of(name: str, column: pa.DataType) -> Type:
    """Return the type as which rules read a column; kind `other` for Arrow types that rules cannot read."""
    listed = pa.types.is_list(column) or pa.types.is_large_list(column)
    value = _plain_type(column.value_type if listed else column)
    if pa.types.is_integer(value) and (name.endswith("_id") or (listed and name.startswith("temporal."))):
        return Type("text", listed)  # ids
    kind: Kind = "other"
    if pa.types.is_string(value) or pa.types.is_large_string(value):
        kind = "text"
    elif pa.types.is_boolean(value):
        kind = "flag"
    elif pa.types.is_integer(value) or pa.types.is_floating(value) or pa.types.is_decimal(value):
        kind = "number"
    elif pa.types.is_timestamp(value) or pa.types.is_date(value):
        kind = "time"
    series = listed and name.startswith("temporal.") and kind in ("number", "time")
    return Type(kind, listed and not series)


def known_types(model: ModelData) -> dict[str, Type]:
    """Return the type of each feature of items and users, by its full name (`item.continuous.price`)."""
    found = {}
    for side, table in (("item", model.dataset.items), ("user", model.dataset.users)):
        for column in table.schema:
            name = "id" if column.name == f"{side}_id" else column.name
            found[f"{side}.{name}"] = type_of(column.name, column.type)
    return found


def check_feature(
    model: ModelData, name: str | None, where: str, side: str, kinds: Sequence[Kind] = (), many: bool = True
) -> list[Fault]:
    """Check a feature that an option names.

    Args:
        model: The model.
        name: The feature; None if the option is not set, which has no fault.
        where: JSON pointer of the option.
        side: The side of the feature.
        kinds: The kinds that it may have; () for any.
        many: Whether a record may have several values.
    """
    if name is None:
        return []
    types = {known: type_ for known, type_ in known_types(model).items() if known.startswith(f"{side}.")}
    if name not in types:
        return [Fault(where, f"the data has no {side} feature '{name}'.", did_you_mean(name, types), "unknown feature")]
    found = types[name]
    if kinds and found.kind not in kinds:
        what = f"'{name}' holds {PLURAL[found.kind]}, and {' or '.join(PLURAL[kind] for kind in kinds)} are needed."
        return [Fault(where, what, "Name another feature.", "wrong type")]
    if found.many and not many:
        return [Fault(where, f"'{name}' holds several values a record, and one is needed.", "", "wrong type")]
    return []


def split_name(name: str) -> tuple[str, str]:
    """Return the side and the column of a name: ("item", "item_id") for `item.id`."""
    side, _, column = name.partition(".")
    return side, f"{side}_id" if column == "id" else column


def wrong_value(where: str, what: str) -> InputError:
    """Return the error for a value of a request that a rule cannot read."""
    return InputError(Fault(where, what, kind="wrong type"))


MICROSECONDS = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3, "date32[day]": 86_400e6, "date64[ms]": 1e3}
"""Microseconds in one unit of an Arrow type of times."""
PLURAL = {
    "number": "numbers",
    "text": "texts",
    "time": "times",
    "flag": "true or false",
    "other": "values that rules cannot read",
}


def _numbers(values: pa.Array, kind: Kind) -> np.ndarray:
    """Return (values,) float64: times as microseconds since 1970, zeros for kinds that rules cannot read."""
    if kind == "time":
        unit = values.type.unit if pa.types.is_timestamp(values.type) else str(values.type)
        width = pa.int32() if unit == "date32[day]" else pa.int64()
        return values.view(width).to_numpy(zero_copy_only=False) * MICROSECONDS[unit]  # float64: no date overflows
    elif kind == "other":
        return np.zeros(len(values))
    elif kind == "flag":
        values = values.cast(pa.int8())
    return pc.cast(values, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
