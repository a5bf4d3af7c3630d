"""The log of a server as a dataset: its events as interactions, and the records that were put."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.core.types import JsonObject
from anyrec.data.formats.faults import Faults
from anyrec.data.formats.parts import Part
from anyrec.data.formats.times import TIME
from anyrec.data.ids import ID_COLUMNS
from anyrec.data.sources.log_files import RECORDS, pieces, sizes
from anyrec.data.sources.log_lines import CONTEXT, NUMBERS, TIMES, context_types, event_of, one_type_each, parsed
from anyrec.data.sources.log_records import Id, LogRecords

USED = (*ID_COLUMNS, "interaction_type", "timestamp", "rating", "label", "weight")
"""Columns of events that are those of interactions, besides their contexts."""
OTHERS = ("value", "recommendation_id", "experiment", "variant", "event_id", "received")
"""Columns that `data.sources` can name as well."""
END = 8
"""Bytes at both ends of the ids of events that are compared first."""
PRIME = np.uint64(0x100000001B3)
"""The multiplier of FNV-1a (Fowler, Noll and Vo, 1991)."""


class EventLogReader:
    """What a log held at one moment, also while a server writes it.

    The sizes of the files are taken before the changes of records are read: a server logs the record of a new user or
    item before its first event. Events are read twice, once for their ids and the types of contexts, and only one piece
    is in memory.

    Args:
        path: The folder of the log, or one of its files of events.

    Attributes:
        records: What was put and removed.
        version: What identifies the content: the bytes that are read.
        notes: Contexts that are left out.
    """

    def __init__(self, path: Path):
        folder = path if path.is_dir() else path.parent
        self._files = {file: size for file, size in sizes(folder).items() if path in (folder, file)}
        changes = sizes(folder / RECORDS)
        self.records = LogRecords.read(changes)
        self.version = f"events {sum(self._files.values())} bytes, records {sum(changes.values())} bytes"
        self.notes: list[str] = []
        self._types = self._id_types()
        self._kept: list[np.ndarray] = []  # of each piece, which events `events` has yielded
        self._starts = [0]  # the number of the first event of each file

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of events that are those of interactions."""
        return (*USED, *(f"{CONTEXT}.{name}" for name in self._looked_at[1]))

    def schema(self, columns: tuple[str, ...]) -> pa.Schema:
        """Return the types of the columns that `events` yields."""
        return pa.schema([(name, TIME) if name in TIMES else (name, self._type(name)) for name in columns])

    def events(self, faults: Faults, columns: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
        """Yield the events in the order of arrival: each id once, and no event of a user that was forgotten later.

        Args:
            faults: Gets a fault for each line that is no event.
            columns: Which columns, of `columns` and OTHERS.
        """
        forgotten, repeated, start = self._forgotten(), self._looked_at[0], 0
        roots = [name if self._context_of(name) is None else CONTEXT for name in columns]
        needed = dict.fromkeys((*roots, *(() if forgotten is None else ("user_id", *TIMES))))
        schema = pa.schema([(name, self._type(name)) for name in needed])
        self._kept, self._starts = [], [0]
        for path, size in self._files.items():
            for piece in pieces(path, size):
                table = parsed(piece, schema, f"{path.name} line", start - self._starts[-1], faults)
                keep = np.ones(len(table), bool) if forgotten is None else _remembered(table, *forgotten)
                keep[_between(repeated, start, len(table))] = False
                start += len(table)
                self._kept.append(keep)
                cells = [self._cells(table, name) for name in columns]
                found = pa.table(cells, schema=self.schema(columns))
                yield from (found if keep.all() else found.filter(pa.array(keep))).to_batches()
            self._starts.append(start)

    def records_of(self, part: str, faults: Faults, notes: list[str]) -> Part:
        """Return the latest records of users or items. Removed items without events are left out.

        Args:
            part: users or items.
            faults: Gets the faults of the records.
            notes: Gets what the user should know.
        """
        had: set[Id] = set()
        if part == "items" and self.records.removed.keys() & self.records.items.keys():
            for batch in self.events(Faults(), ("item_id",)):
                had |= self.records.removed.keys() & pc.unique(batch.column(0)).to_pylist()
        return self.records.part(part, had, faults, notes)

    def place(self, row: int, column: str) -> str:
        """Return the file and the line of an event that `events` has yielded."""
        line = int(np.flatnonzero(np.concatenate(self._kept))[row])
        file = min(bisect_right(self._starts, line), len(self._files)) - 1
        where = f"{list(self._files)[file].name} line {line - self._starts[file] + 1}"
        return f"{where}, column '{column}'" if column else where

    def _type(self, name: str) -> pa.DataType:
        """Return the type of a column as it is parsed: times are seconds since 1970."""
        context = self._context_of(name)
        if context is not None:
            return self._looked_at[1][context]
        if name == CONTEXT:
            return pa.struct(list(self._looked_at[1].items()))
        return self._types.get(name, pa.float64() if name in NUMBERS else pa.string())

    @staticmethod
    def _context_of(name: str) -> str | None:
        """Return the name of a context in that of its column; None for other columns."""
        return name.removeprefix(f"{CONTEXT}.") if name.startswith(f"{CONTEXT}.") else None

    def _cells(self, table: pa.Table, name: str) -> pa.ChunkedArray:
        """Return a column that `events` yields from those that were parsed."""
        context = self._context_of(name)
        if context is not None:
            return pc.struct_field(table[CONTEXT], [context])
        return pc.round(pc.multiply(table[name], 1e6)).cast(pa.int64()).cast(TIME) if name in TIMES else table[name]

    def _id_types(self) -> dict[str, pa.DataType]:
        """Return the types of the ids: those of the first event, or else of the records."""
        first: JsonObject = {
            "user_id": next(iter(self.records.users), ""),
            "item_id": next(iter(self.records.items), ""),
        }
        path = next((path for path, size in self._files.items() if size), None)
        if path is not None:
            with path.open("rb") as file:
                first = event_of(file.readline(), "", Faults())
        return {key: pa.int64() if type(first.get(key)) is int else pa.string() for key in ID_COLUMNS}

    def _forgotten(self) -> tuple[pa.Array, np.ndarray] | None:
        """Return (users,) the ids of forgotten users, and when they were; None if there are none."""
        kind = int if pa.types.is_integer(self._types["user_id"]) else str
        found = {user: time for user, time in self.records.forgotten.items() if type(user) is kind}
        return (pa.array(list(found), self._types["user_id"]), np.array(list(found.values()))) if found else None

    @cached_property
    def _looked_at(self) -> tuple[np.ndarray, dict[str, pa.DataType]]:
        """The rows of events whose id an earlier event has, and the types of the contexts: what all events decide."""
        keys, types = [], []
        for piece, ids in self._ids():
            keys.append(_ends(ids))
            types.append(context_types(piece))
        contexts, left = one_type_each(types)
        if left:
            listed = ", ".join(map(repr, left))
            self.notes.append(
                f"Contexts of events with values of several types, or no valid name, are left out: {listed}."
            )
        return self._repeated(np.concatenate(keys) if keys else np.empty(0, np.uint64)), contexts

    def _repeated(self, keys: np.ndarray) -> np.ndarray:
        """Return the rows of events whose id an earlier event has: a log has a copy of one of its files, for example.

        Args:
            keys: (events,) as `_ends` returns them.
        """
        order = np.argsort(keys, kind="stable")
        same = keys[order[1:]] == keys[order[:-1]]
        if not same.any():
            return np.empty(0, np.int64)
        rows, texts, start = np.sort(order[np.append(same, False) | np.append(False, same)]), [], 0
        for _, ids in self._ids():
            texts.append(ids.take(pa.array(_between(rows, start, len(ids)))))
            start += len(ids)
        codes = pa.concat_arrays(texts).dictionary_encode().indices.fill_null(-1).to_numpy(zero_copy_only=False)
        again = codes >= 0
        again[np.unique(codes, return_index=True)[1]] = False
        return rows[again]

    def _ids(self) -> Iterator[tuple[bytes, pa.Array]]:
        """Yield each piece of the files and the ids of its events."""
        schema = pa.schema([("event_id", pa.string())])
        for path, size in self._files.items():
            for piece in pieces(path, size):
                yield piece, parsed(piece, schema, "", 0, Faults()).column(0).combine_chunks()


def _remembered(table: pa.Table, users: pa.Array, times: np.ndarray) -> np.ndarray:
    """Return (events,) bool, which are not of a user who was forgotten after the event was received.

    Args:
        table: The events.
        users: (users,) ids of forgotten users.
        times: (users,) when they were forgotten, in seconds since 1970.
    """
    place = pc.index_in(table["user_id"], value_set=users).to_numpy()
    received = pc.coalesce(table["received"], table["timestamp"]).to_numpy()
    own = np.flatnonzero(~np.isnan(place))
    keep = np.ones(len(table), bool)
    keep[own] = received[own] > times[place[own].astype(np.int64)]
    return keep


def _between(rows: np.ndarray, start: int, count: int) -> np.ndarray:
    """Return those of some ascending rows that are among `count` rows from `start` on, counted from there."""
    first, last = np.searchsorted(rows, [start, start + count])
    return rows[first:last] - start


def _ends(texts: pa.Array) -> np.ndarray:
    """Return (texts,) uint64 that are equal for equal texts, and seldom for others: of their lengths and both ends."""
    texts = texts.fill_null("").cast(pa.large_binary())
    offsets = np.frombuffer(texts.buffers()[1], np.int64, len(texts) + 1, texts.offset * 8)
    data = np.frombuffer(texts.buffers()[2] or b"", np.uint8)
    lengths, found = np.diff(offsets), np.zeros(len(texts), np.uint64)
    with np.errstate(over="ignore"):
        for place in (*range(END), *range(-END, 0)):
            inside = lengths > place if place >= 0 else lengths >= -place
            at = np.where(inside, (offsets[:-1] if place >= 0 else offsets[1:]) + place, 0)
            byte = np.where(inside, data[at] if len(data) else 0, 256).astype(np.uint64)
            found = found * PRIME + byte
        return found * PRIME + lengths.astype(np.uint64)
