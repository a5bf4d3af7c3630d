"""A dataset as Arrow columns: users, items, interactions. Nothing past this point sees a dict per row."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.core.config import DataConfig

Side = Literal["user", "item"]
NO_TIME = np.iinfo(np.int64).min
"""Stands for a time that is not known: the earliest there can be."""
FEW = 16
"""Ids that `rows_of` finds one by one: a hash table of a million known ids takes 60 to 100 ms, bisection 0.01 ms an id."""


@dataclass
class Dataset:
    """Users, items and interactions, validated.

    users: `user_id` (int64 or string) and one column a feature, named `group.name` (`text.title`).
    items: the same with `item_id`.
    interactions: `user_id`, `item_id`, and, each with nulls where absent: `interaction_type` (string),
        `timestamp` (timestamp[us, UTC]), `weight`, `rating` (float64), `label` (int8, 0 or 1), `context.*`.
        An optional column that no row has is left out of the table.
    root: folder that relative file names start from.
    roles: what each temporal feature holds: {"user.history": "numbers" | "timestamps" | "items"}.
    notes: sentences about the data that the user should read (what was inferred, dropped or ignored).

    Column types by group: text: string or list<string>; categorical: string or list<string>; continuous: float64
    (or list<float64>); image: string or list<string>; temporal: list<float64> (numbers), list<timestamp[us, UTC]>
    (timestamps) or list<id type> (items); any other group: as Arrow infers it.
    """

    users: pa.Table
    items: pa.Table
    interactions: pa.Table
    root: Path = field(default_factory=Path)
    roles: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, path: str | Path, options: DataConfig | None = None) -> Dataset:
        """A JSON file, or a folder of JSON Lines, CSV or Parquet. Raises DataError with every fault."""
        from anyrec.data.read import read_dataset

        return read_dataset(path, options)

    @classmethod
    def from_tables(
        cls,
        users: Any,
        items: Any,
        interactions: Any,
        options: DataConfig | None = None,
        root: str | Path | None = None,
    ) -> Dataset:
        """A dataset from pandas, polars or Arrow tables, their feature columns named `group.name`.

        Args:
            users: Table with `user_id`.
            items: Table with `item_id`.
            interactions: Table with `user_id`, `item_id` and any of `interaction_type`, `timestamp`, `weight`, `rating`,
                `label` and `context.name`.
            options: The config's `data` section.
            root: Folder that relative image names start from; by default the working directory.

        Raises:
            DataError: With every fault found, by column and row.
        """
        from anyrec.data.checks.row_limits import apply_limits
        from anyrec.data.read import dataset_from_tables

        options = options or DataConfig()
        return apply_limits(dataset_from_tables(users, items, interactions, options, Path(root or "")), options)

    def table(self, side: Side) -> pa.Table:
        return self.users if side == "user" else self.items

    def ids(self, side: Side) -> pa.Array:
        """(rows,) the ids of one side, in row order."""
        return self.table(side).column(f"{side}_id").combine_chunks()

    def features(self, side: Side) -> list[str]:
        """Names of one side's feature columns (`group.name`), sorted."""
        return sorted(name for name in self.table(side).column_names if name != f"{side}_id")

    @cached_property
    def user_rows(self) -> np.ndarray:
        """(interactions,) int64: the row in `users` of each interaction's user."""
        return rows_of(self.interactions.column("user_id"), self.ids("user"))

    @cached_property
    def item_rows(self) -> np.ndarray:
        """(interactions,) int64: the row in `items` of each interaction's item."""
        return rows_of(self.interactions.column("item_id"), self.ids("item"))

    @cached_property
    def times(self) -> np.ndarray:
        """(interactions,) int64 microseconds since 1970, NO_TIME where there is none."""
        column = self.column("timestamp")
        if column is None:
            return np.full(len(self.interactions), NO_TIME)
        return pc.fill_null(column.cast(pa.int64()), NO_TIME).to_numpy(zero_copy_only=False)

    def column(self, name: str) -> pa.Array | None:
        """An interactions column, or None where no interaction has it."""
        if name not in self.interactions.column_names:
            return None
        return self.interactions.column(name).combine_chunks()

    def sorted(self) -> Dataset:
        """Users and items in the order of their ids, so that the order of the file's records changes nothing.

        Interactions stay in file order, which settles ties in time.
        """
        users, items = self.users.sort_by("user_id").combine_chunks(), self.items.sort_by("item_id").combine_chunks()
        return Dataset(users, items, self.interactions, self.root, self.roles, self.notes)

    def fingerprint(self) -> str:
        """sha256 of the three tables' content."""
        digest = hashlib.sha256()
        for table in (self.users, self.items, self.interactions):
            sink = HashSink(digest)
            with pa.ipc.new_stream(pa.PythonFile(sink, mode="w"), table.schema) as writer:
                writer.write_table(table.combine_chunks())
        return digest.hexdigest()


class HashSink:
    """A file that only hashes what is written to it."""

    closed = False

    def __init__(self, digest: Any):
        self.digest = digest

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return len(memoryview(data))

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


def rows_of(ids: pa.ChunkedArray | pa.Array, among: pa.Array) -> np.ndarray:
    """(rows,) int64: where each id stands in `among`; -1 for one that is not there or of another type."""
    if not len(ids):
        return np.empty(0, np.int64)
    if ids.type != among.type and not _same_kind(ids.type, among.type):
        return np.full(len(ids), -1, np.int64)
    ids = ids.cast(among.type)
    if len(ids) <= FEW and not ids.null_count and not among.null_count:
        return np.array([_row_of(one, among) for one in ids.to_pylist()], np.int64)
    found = pc.index_in(ids, value_set=among)
    return pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int64)


def _row_of(value: Any, among: pa.Array) -> int:
    """Where `value` stands in `among`, -1 if it does not. Found by bisection if `among` is sorted, as a dataset's ids are."""
    place = bisect_left(range(len(among)), value, key=lambda row: among[row].as_py())
    if place < len(among) and among[place].as_py() == value:
        return place
    return pc.index(among, pa.scalar(value, among.type)).as_py()


def _same_kind(a: pa.DataType, b: pa.DataType) -> bool:
    text = (pa.types.is_string, pa.types.is_large_string)
    return (any(t(a) for t in text) and any(t(b) for t in text)) or (pa.types.is_integer(a) and pa.types.is_integer(b))
