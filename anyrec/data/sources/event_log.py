"""The log of a server as a dataset: its events as interactions, and the records that were put."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from anyrec.core.types import JsonObject
from anyrec.core.values import show
from anyrec.data.formats.columns import time_column
from anyrec.data.formats.faults import Faults
from anyrec.data.formats.parts import Part
from anyrec.data.formats.times import TIME
from anyrec.data.ids import ID_COLUMNS
from anyrec.data.sources.log_files import pieces, sizes
from anyrec.data.sources.log_records import Id, LogRecords

USED = (*ID_COLUMNS, "interaction_type", "timestamp")
"""Columns of events that are those of interactions."""
OTHERS = ("value", "recommendation_id", "experiment", "variant", "event_id", "received")
"""Columns that `data.sources` can name as well."""
TIMES = ("timestamp", "received")
BLOCK = 1 << 24
"""Bytes that one thread parses at a time."""
END = 8
"""Bytes at both ends of the ids of events that are compared first."""
PRIME = np.uint64(0x100000001B3)
"""The multiplier of FNV-1a (Fowler, Noll and Vo, 1991)."""


class EventLogReader:
    """What a log held at one moment, also while a server writes it.

    The sizes of the files are taken before the changes of records are read: a server logs the record of a new user or
    item before its first event. Events are read twice, once for their ids alone, and only one piece is in memory.

    Attributes:
        folder: The folder of the log.
        records: What was put and removed.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._files = sizes(folder)
        self.records = LogRecords.read(folder)
        self._types = self._id_types()
        self._kept: list[np.ndarray] = []  # of each piece, which events `events` has yielded
        self._starts = [0]  # the number of the first event of each file

    @property
    def version(self) -> str:
        """What identifies the content: the bytes that are read."""
        return f"events {sum(self._files.values())} bytes, records {self.records.version}"

    def schema(self, columns: tuple[str, ...] = USED) -> pa.Schema:
        """Return the types of the columns that `events` yields."""
        return pa.schema([(name, TIME) if name in TIMES else (name, self._type(name)) for name in columns])

    def events(self, faults: Faults, columns: tuple[str, ...] = USED) -> Iterator[pa.RecordBatch]:
        """Yield the events in the order of arrival: each id once, and no event of a user that was forgotten later.

        Args:
            faults: Gets a fault for each line that is no event.
            columns: Which columns, of USED and OTHERS.
        """
        forgotten = self._forgotten()
        names = tuple(dict.fromkeys((*columns, *(() if forgotten is None else ("user_id", *TIMES)))))
        repeated, start = self._repeated(), 0
        self._kept, self._starts = [], [0]
        for path, size in self._files.items():
            for piece in pieces(path, size):
                table = self._parsed(piece, names, f"{path.name} line", start - self._starts[-1], faults)
                keep = np.ones(len(table), bool) if forgotten is None else _remembered(table, *forgotten)
                keep[_between(repeated, start, len(table))] = False
                start += len(table)
                self._kept.append(keep)
                found = table.select(columns) if keep.all() else table.select(columns).filter(pa.array(keep))
                cells = [
                    _times(one) if name in TIMES else one for name, one in zip(columns, found.columns, strict=True)
                ]
                yield from pa.table(cells, schema=self.schema(columns)).to_batches()
            self._starts.append(start)

    def records_of(self, part: str, faults: Faults, notes: list[str]) -> Part:
        """Return the latest records of users or items. Removed items without events are left out.

        Args:
            part: users or items.
            faults: Gets the faults of the records.
            notes: Gets what the user should know.
        """
        had: set[Id] = set()
        if part == "items" and self.records.removed & self.records.items.keys():
            for batch in self.events(Faults(), ("item_id",)):
                had |= self.records.removed.intersection(pc.unique(batch.column(0)).to_pylist())
        return self.records.part(part, had, faults, notes)

    def place(self, row: int, column: str) -> str:
        """Return the file and the line of an event that `events` has yielded."""
        line = int(np.flatnonzero(np.concatenate(self._kept))[row])
        file = min(bisect_right(self._starts, line), len(self._files)) - 1
        where = f"{list(self._files)[file].name} line {line - self._starts[file] + 1}"
        return f"{where}, column '{column}'" if column else where

    def _type(self, name: str) -> pa.DataType:
        """Return the type of a column as it is parsed: times are seconds since 1970."""
        return self._types.get(name, pa.float64() if name in (*TIMES, "value") else pa.string())

    def _id_types(self) -> dict[str, pa.DataType]:
        """Return the types of the ids: those of the first event, or else of the records."""
        first: JsonObject = {
            "user_id": next(iter(self.records.users), ""),
            "item_id": next(iter(self.records.items), ""),
        }
        path = next((path for path, size in self._files.items() if size), None)
        if path is not None:
            with path.open("rb") as file:
                first = _event(file.readline(), "", Faults())
        return {key: pa.int64() if type(first.get(key)) is int else pa.string() for key in ID_COLUMNS}

    def _forgotten(self) -> tuple[pa.Array, np.ndarray] | None:
        """Return (users,) the ids of forgotten users, and when they were; None if there are none."""
        kind = int if pa.types.is_integer(self._types["user_id"]) else str
        found = {user: time for user, time in self.records.forgotten.items() if type(user) is kind}
        return (pa.array(list(found), self._types["user_id"]), np.array(list(found.values()))) if found else None

    def _repeated(self) -> np.ndarray:
        """Return the rows of events whose id an earlier event has: a log is part of a copy of itself, for example."""
        keys = [*map(_ends, self._ids())]
        together = np.concatenate(keys) if keys else np.empty(0, np.uint64)
        order = np.argsort(together, kind="stable")
        same = together[order[1:]] == together[order[:-1]]
        if not same.any():
            return np.empty(0, np.int64)
        rows, texts, start = np.sort(order[np.append(same, False) | np.append(False, same)]), [], 0
        for ids in self._ids():
            texts.append(ids.take(pa.array(_between(rows, start, len(ids)))))
            start += len(ids)
        codes = pa.concat_arrays(texts).dictionary_encode().indices.fill_null(-1).to_numpy(zero_copy_only=False)
        again = codes >= 0
        again[np.unique(codes, return_index=True)[1]] = False
        return rows[again]

    def _ids(self) -> Iterator[pa.Array]:
        """Yield the ids of the events of each piece."""
        for path, size in self._files.items():
            for piece in pieces(path, size):
                yield self._parsed(piece, ("event_id",), "", 0, Faults()).column(0).combine_chunks()

    def _parsed(self, piece: bytes, names: tuple[str, ...], file: str, start: int, faults: Faults) -> pa.Table:
        """Return columns of the events on lines. The first one is the line `start` (from 0) of the file."""
        schema = pa.schema([(name, self._type(name)) for name in names])
        parse = pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
        try:
            return pyarrow.json.read_json(pa.BufferReader(piece), pyarrow.json.ReadOptions(block_size=BLOCK), parse)
        except pa.ArrowInvalid:  # times as texts, which programs can log, and lines that are no events
            rows = [_event(line, f"{file} {start + n}", faults) for n, line in enumerate(piece.splitlines(), 1)]
            columns = [_column([row.get(one.name) for row in rows], one, file, start, faults) for one in schema]
            return pa.table(columns, schema=schema)


def _event(line: bytes, where: str, faults: Faults) -> JsonObject:
    """Return the event on a line; without any values if it is none, which is a fault."""
    try:
        found = msgspec.json.decode(line)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        found = None
    if not isinstance(found, dict):
        faults.add("json", where, "this line is no event.", "Restore the file from a backup, or remove the line.")
    return found if isinstance(found, dict) else {}


def _column(values: list[object], kind: pa.Field, file: str, start: int, faults: Faults) -> pa.Array:
    """Return values of events as a column; those of another type are faults, but for times in texts."""

    def pointer(row: int) -> str:
        return f"{file} {start + row + 1}, column '{kind.name}'"

    expected = {pa.int64(): (int,), pa.float64(): (int, float)}.get(kind.type, (str,))
    other = [None if type(value) in expected else value for value in values]
    found = pa.array([value if type(value) in expected else None for value in values], kind.type)
    if kind.name in TIMES:
        return pc.coalesce(
            found, pc.divide(time_column(other, pointer, faults).cast(pa.int64()).cast(pa.float64()), 1e6)
        )
    wrong = [row for row, value in enumerate(other) if value is not None]
    what = "is of another type than in the first event."
    faults.add_rows("bad value", wrong, lambda row: (pointer(row), f"{show(values[row])} {what}", "Correct it."))
    return found


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


def _times(seconds: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.round(pc.multiply(seconds, 1e6)).cast(pa.int64()).cast(TIME)


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
