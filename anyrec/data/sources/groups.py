"""Rows of one key as one value: aggregates, the latest value, and records that several tables hold parts of."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.core.config.sources import Aggregate
from anyrec.data.formats.at import At
from anyrec.data.list_columns import as_lists, flat, is_list, lengths_of
from anyrec.data.sources.nested import one_array
from anyrec.data.sources.transforms import as_text, numerals

NUMERIC = ("sum", "mean")


class Groups:
    """The rows of each key.

    Attributes:
        keys: (keys,) The distinct keys, in the order in which they first occur.
        codes: (rows,) int64, the key of each row; -1 without a key.
    """

    def __init__(self, keys: pa.Array):
        coded = keys.dictionary_encode()
        self.keys = coded.dictionary
        self.codes = pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)

    def __len__(self) -> int:
        return len(self.keys)

    def repeated(self) -> np.ndarray:
        """Return the rows whose key an earlier row has."""
        _, first = np.unique(self.codes, return_index=True)
        again = np.ones(len(self.codes), bool)
        again[first] = False
        again &= self.codes >= 0
        return np.flatnonzero(again)

    def first(self, column: pa.Array, order: np.ndarray | None = None) -> tuple[pa.Array, np.ndarray]:
        """Return the first value of each key that is not missing.

        Args:
            column: (rows,) Any type.
            order: (rows,) The rows in another order than that of the table.

        Returns:
            (keys,) the values, and the keys that have another value as well.
        """
        rows = np.arange(len(column)) if order is None else order
        rows = rows[column.is_valid().to_numpy(zero_copy_only=False)[rows] & (self.codes[rows] >= 0)]
        chosen = np.full(len(self), -1, np.int64)
        chosen[self.codes[rows[::-1]]] = rows[::-1]  # of several rows of one key, the last assignment stays
        different = codes_of(column)
        differ = different[rows] != different[chosen[self.codes[rows]]]
        return column.take(pa.array(chosen, mask=chosen < 0)), np.unique(self.codes[rows[differ]])

    def aggregate(self, column: pa.Array, how: Aggregate, at: At) -> pa.Array:
        """Return (keys,) one value of the rows of each key.

        Args:
            column: (rows,) Any type. sum and mean need numbers, also as texts; min and max compare texts if some are no
                numbers.
            how: list: the distinct values in the order of the rows. count: of the values that are not missing.
            at: Where the column comes from.
        """
        if how == "first":
            return self.first(column)[0]
        if how == "last":
            return self.first(column, np.arange(len(column))[::-1])[0]
        if how == "list":
            return self._lists(column)
        if how == "count":
            counted = self.codes[column.is_valid().to_numpy(zero_copy_only=False) & (self.codes >= 0)]
            return pa.array(np.bincount(counted, minlength=len(self)).astype(np.float64))
        values = numerals(column, at, required=how in NUMERIC)
        table = pa.table({"code": self.codes, "value": values}).filter(pa.array(self.codes >= 0))
        found = table.group_by("code", use_threads=False).aggregate([("value", how)])
        place = pc.index_in(pa.array(np.arange(len(self))), value_set=one_array(found["code"]))
        return one_array(found[f"value_{how}"]).take(place)

    def _lists(self, column: pa.Array) -> pa.Array:
        values, owners = flat(column)
        codes = self.codes[owners]
        values, codes = values.filter(pa.array(codes >= 0)), codes[codes >= 0]
        _, first = np.unique(_mixed(codes, codes_of(values)), return_index=True)
        first.sort()
        order = first[np.argsort(codes[first], kind="stable")]
        lengths = np.bincount(codes[order], minlength=len(self))
        return as_lists(values.take(pa.array(order)), lengths, pa.array(lengths == 0))


def codes_of(column: pa.Array) -> np.ndarray:
    """Return (rows,) int64 that are equal for equal values, -1 for missing ones; for lists, hashes of their values."""
    missing = column.is_null().to_numpy(zero_copy_only=False)
    if is_list(column.type):
        lengths = lengths_of(column)
        owners = np.repeat(np.arange(len(column)), lengths)
        places = np.arange(len(owners)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        hashes = _mixed(codes_of(column.flatten()), places)
        found = np.zeros(len(column), np.uint64)
        np.add.at(found, owners, hashes)
        found = _mixed(found.view(np.int64), lengths.astype(np.int64))
    elif pa.types.is_struct(column.type):
        found = np.zeros(len(column), np.uint64)
        for place, part in enumerate(column.flatten()):
            found += _mixed(codes_of(part), np.full(len(column), place))
    else:
        indices = column.dictionary_encode().indices
        return pc.fill_null(indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    return np.where(missing, -1, (found >> np.uint64(1)).view(np.int64))


def _mixed(codes: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return uint64 hashes of pairs of int64 (the finaliser of splitmix64, Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        found = codes.view(np.uint64) + places.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        found = (found ^ (found >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        found = (found ^ (found >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return found ^ (found >> np.uint64(31))


def key_of(columns: list[pa.Array], at: At) -> pa.Array:
    """Return one text for the key columns of each row, null if a part is missing."""
    texts = [as_text(column, at) for column in columns]
    return texts[0] if len(texts) == 1 else pc.binary_join_element_wise(*texts, "\x1f")
