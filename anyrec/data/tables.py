"""The tables of a dataset as Arrow columns: users, items and interactions. No later stage handles a dict per row."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.core.scratch import Scratch, kept
from anyrec.data.formats.places import Origin
from anyrec.data.hashing import hash_stream, hash_values
from anyrec.data.ids import NO_TIME, Side, rows_of
from anyrec.data.list_columns import one_chunk
from anyrec.data.sorting import order_by

ROWS: dict[Side, str] = {"user": "user_rows", "item": "item_rows"}
COMPUTED = (*ROWS.values(), "times", "time_order")
"""Cached properties of `Tables` that depend on ids and times alone."""
T = TypeVar("T", bound="Tables")
Kept = TypeVar("Kept")


@dataclass
class Tables:
    """Users, items and interactions in the types that every later stage expects.

    The formats build these tables, the checks validate them, and `anyrec.data.dataset.Dataset` is their public form.

    Column types by group: text: string or list<string>; categorical: string or list<string>; continuous: float64
    (or list<float64>); image: string or list<string>; temporal: list<float64> (numbers), list<timestamp[us, UTC]>
    (timestamps) or list<id type> (items); any other group: as Arrow infers it.

    Attributes:
        users: `user_id` (int64 or string) and one column for each feature, named `group.name` (`text.title`).
        items: The same with `item_id`.
        interactions: `user_id`, `item_id`, and, each with nulls if absent: `interaction_type` (string), `timestamp`
            (timestamp[us, UTC]), `weight`, `rating` (float64), `label` (int8, 0 or 1), `context.*`. An optional column
            without any value is left out of the table.
        root: The folder that relative file names start from.
        roles: What each temporal feature holds: {"user.history": "numbers" | "timestamps" | "items"}.
        notes: Sentences about the data that the user should read: what was inferred, dropped or ignored.
        origins: Where the records of each side were read from.
        versions: What identifies the content of each table of `data.sources`, by its name.
        scratch: Where arrays of all interactions are kept, if they do not fit into memory (`data.memory_limit`).
    """

    users: pa.Table
    items: pa.Table
    interactions: pa.Table
    root: Path = field(default_factory=Path)
    roles: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    origins: dict[Side, Origin] = field(default_factory=dict, repr=False, compare=False)
    versions: dict[str, str] = field(default_factory=dict)
    scratch: Scratch | None = field(default=None, repr=False, compare=False)

    def keep(self, value: Kept) -> Kept:
        """Return an array of all interactions, kept in `scratch` if there is one."""
        return kept(value, self.scratch)

    def table(self, side: Side) -> pa.Table:
        """Return the table of one side."""
        return self.users if side == "user" else self.items

    def ids(self, side: Side) -> pa.Array:
        """Return (rows,) the ids of one side, in row order."""
        return one_chunk(self.table(side).column(f"{side}_id"))

    def features(self, side: Side) -> list[str]:
        """Return the names of one side's feature columns (`group.name`), sorted."""
        return sorted(name for name in self.table(side).column_names if name != f"{side}_id")

    @cached_property
    def user_rows(self) -> np.ndarray:
        """(interactions,) int64: the row in `users` of each interaction's user."""
        return self.keep(rows_of(self.interactions.column("user_id"), self.ids("user")))

    @cached_property
    def item_rows(self) -> np.ndarray:
        """(interactions,) int64: the row in `items` of each interaction's item."""
        return self.keep(rows_of(self.interactions.column("item_id"), self.ids("item")))

    @cached_property
    def times(self) -> np.ndarray:
        """(interactions,) int64 microseconds since 1970; NO_TIME if an interaction has no timestamp."""
        column = self.column("timestamp")
        if column is None:
            return self.keep(np.full(len(self.interactions), NO_TIME))
        times = column.cast(pa.int64())
        return self.keep((pc.fill_null(times, NO_TIME) if times.null_count else times).to_numpy())

    @cached_property
    def time_order(self) -> np.ndarray:
        """(interactions,) int64: their rows by user and then by time.

        File order breaks ties; interactions without a time come first.
        """
        return self.keep(order_by(self.user_rows, self.times))

    def rows(self, side: Side) -> np.ndarray:
        """Return (interactions,) int64, the row of each interaction's user or item."""
        return self.user_rows if side == "user" else self.item_rows

    def column(self, name: str) -> pa.Array | None:
        """Return a column of the interactions, or None if no interaction has it."""
        if name not in self.interactions.column_names:
            return None
        return one_chunk(self.interactions.column(name))

    def sorted(self) -> Self:
        """Return the tables with users and items in the order of their ids.

        The order of records in the file then changes no result. Interactions stay in file order, which breaks ties in
        time.
        """
        tables, computed = {}, self.computed()
        for side, name in ROWS.items():
            order = pc.sort_indices(self.ids(side)).to_numpy()
            tables[side] = self.table(side)
            if (order[1:] < order[:-1]).any():
                tables[side] = tables[side].take(pa.array(order))
                computed.pop("time_order", None)
                if name in computed:
                    place = np.full(len(order) + 1, -1)  # the last one is that of an unknown id
                    place[order] = np.arange(len(order))
                    computed[name] = self.keep(place[computed[name]])
        users, items = (table.combine_chunks() for table in tables.values())
        return with_computed(replace(self, users=users, items=items), computed)

    def with_features(self, *, users: pa.Table | None = None, items: pa.Table | None = None) -> Self:
        """Return the tables with other features of the same users and items, in the same order.

        What was computed from the interactions is passed on, unlike by `dataclasses.replace`.
        """
        users, items = self.users if users is None else users, self.items if items is None else items
        return with_computed(replace(self, users=users, items=items), self.computed())

    def computed(self) -> dict[str, np.ndarray]:
        """Return the arrays that were computed from the ids and times of the interactions, by property."""
        return {name: self.__dict__[name] for name in COMPUTED if name in self.__dict__}

    def fingerprint(self) -> str:
        """Return the sha256 of the content of the three tables: the same for the same data in any file format."""
        return hash_values([_by_value(table) for table in (self.users, self.items, self.interactions)])

    def has_fingerprint(self, known: str) -> bool:
        """Return whether these tables have a hash that `fingerprint` returned, in this or an earlier version."""
        return known in (self.fingerprint(), hash_stream(self.users, self.items, self.interactions))


def with_computed(tables: T, computed: dict[str, np.ndarray]) -> T:
    """Set cached properties of tables, such as those of others with the same ids, and return the tables."""
    tables.__dict__.update(computed)
    return tables


def _by_value(table: pa.Table) -> dict[str, pa.ChunkedArray]:
    """Return the columns with whole numbers as floats if that loses nothing, since formats differ in this."""
    columns = {name: table.column(name) for name in table.column_names}
    for name, column in columns.items():
        if pa.types.is_integer(column.type) and not name.endswith("_id"):
            try:
                columns[name] = column.cast(pa.float64())
            except pa.ArrowInvalid:  # past 53 bits
                continue
    return columns
