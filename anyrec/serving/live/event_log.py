"""The append-only log of events: files of JSON Lines, whole after a crash; `anyrec.data` reads it as a dataset."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from io import FileIO
from itertools import chain
from pathlib import Path
from typing import Literal

import msgspec

from anyrec.core.errors import Fault, OutputError
from anyrec.core.files import exclusive, sync
from anyrec.core.types import JsonObject
from anyrec.data.sources.log_files import blocks, segments, sizes, whole_bytes

Flush = Literal["batch", "interval", "never"]
SEGMENT, LOCKED = "events-{:06d}.jsonl", "events"
INTERVAL = 1.0
"""Seconds between two flushes to the disk with `flush="interval"`."""
TRIAL, TRIAL_BYTES = "trial.tmp", 1 << 16
"""File that is written and removed to see whether the disk has space again, and its size."""


class EventLog:
    """A folder of files `events-000001.jsonl`, one event a line, in the order of arrival.

    A line is complete or absent: an incomplete last line, which only a crash during a write leaves, was never
    acknowledged and is cut off when the log is opened. One process at a time writes a log.

    Args:
        folder: The folder; it is created.
        flush: When events are forced to the disk, as `serving.events.flush` of the config.
        segment_bytes: Size at which a new file begins.

    Attributes:
        fault: Why the last write failed; None if it did not.

    Raises:
        OutputError: If the folder cannot be written, or another process writes it.
    """

    def __init__(self, folder: Path, flush: Flush = "batch", segment_bytes: int = 64 << 20):
        self.folder, self.flush, self.segment_bytes = folder, flush, segment_bytes
        self.fault: str | None = None
        self._writing = threading.Lock()
        self._stopped = threading.Event()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._held = ExitStack()
            # The lock file is in the folder itself, since the folder above can be read-only (a volume).
            self._held.enter_context(exclusive(folder / LOCKED))
            self._number = max((number for number, _ in segments(folder)), default=1)
            self._file, self._size = _open_whole(folder / SEGMENT.format(self._number))
            sync(folder)
        except OSError as error:
            hint = "Give a folder that this process may write."
            raise OutputError(Fault(str(folder), f"events cannot be written: {error.strerror}.", hint)) from None
        if flush == "interval":
            threading.Thread(target=self._flush_often, daemon=True).start()

    def read(self) -> Iterator[JsonObject]:
        """Yield all events, the first one first."""
        yield from read_events(self.folder)

    def blocks(self) -> Iterator[list[JsonObject]]:
        """Yield all events in blocks, the first one first."""
        yield from blocks(sizes(self.folder))

    def append(self, events: Sequence[JsonObject]) -> None:
        """Append events. With `flush="batch"` they are on the disk when this returns.

        Raises:
            OutputError: If they cannot be written; none of them is then in the log.
        """
        data = b"".join(msgspec.json.encode(event) + b"\n" for event in events)
        with self._writing:
            try:
                if self._size and self._size + len(data) > self.segment_bytes:
                    self._next_segment()
                _write_all(self._file, data)
                if self.flush == "batch":
                    self._sync()
            except OSError as error:
                self.fault = _reason(error)
                os.ftruncate(self._file.fileno(), self._size)
                what = f"events cannot be written: {self.fault}."
                raise OutputError(Fault(str(self.folder), what, "Free space on the disk.")) from None
            self._size, self.fault = self._size + len(data), None

    def look_again(self) -> str | None:
        """Return why events cannot be written; after a write that failed, by writing and removing another file."""
        if self.fault is not None:
            trial = self.folder / TRIAL
            try:
                with trial.open("wb", buffering=0) as file:
                    _write_all(file, bytes(TRIAL_BYTES))
                    os.fsync(file.fileno())
                self.fault = None
            except OSError as error:
                self.fault = _reason(error)
            with suppress(OSError):
                trial.unlink()
        return self.fault

    def close(self) -> None:
        """Force everything to the disk and close the log; a closed log stays closed."""
        with self._writing:
            if self._file.closed:
                return
            self._stopped.set()
            self._sync()
            self._file.close()
            self._held.close()

    def _next_segment(self) -> None:
        self._sync()
        file, size = _open_whole(self.folder / SEGMENT.format(self._number + 1))
        self._file.close()
        self._file, self._size, self._number = file, size, self._number + 1
        sync(self.folder)

    def _sync(self) -> None:
        os.fsync(self._file.fileno())

    def _flush_often(self) -> None:
        while not self._stopped.wait(INTERVAL):
            with self._writing:
                if not self._stopped.is_set():
                    try:
                        self._sync()
                    except OSError as error:
                        self.fault = _reason(error)


def read_events(folder: Path) -> Iterator[JsonObject]:
    """Yield all events of a log, the first one first, also while a server writes it; none if there is no log.

    Raises:
        DataError: At a line that is no JSON object.
    """
    yield from chain.from_iterable(blocks(sizes(folder)))


def log_bytes(folder: Path) -> int:
    """Return the size of a log, which only grows; 0 if there is none."""
    return sum(path.stat().st_size for _, path in segments(folder))


def _open_whole(path: Path) -> tuple[FileIO, int]:
    """Open a file to append to it, without an incomplete last line. Returns it and its size."""
    file = path.open("ab+", buffering=0)  # a buffer would keep, and write later, what the disk had no space for
    end = whole_bytes(file)
    if end < file.seek(0, os.SEEK_END):
        file.truncate(end)
    return file, end


def _write_all(file: FileIO, data: bytes) -> None:
    """Write data to a file without a buffer, which can take a part of them only."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
