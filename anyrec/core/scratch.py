"""Large arrays in temporary files, memory-mapped: the same arrays, but their pages leave memory when others are needed.

All code that reads an array in memory reads such an array unchanged, so results are the same bit by bit.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import threading
import time
import weakref
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TypeVar, cast

import numpy as np
import pyarrow as pa

from anyrec.core.outputs import output_errors

T = TypeVar("T")
SMALL = 1 << 20
"""Values of at most this many bytes stay in memory."""
MAPPED = 1 << 30
"""Pages of files that are released when there are more bytes of them in memory."""
PAUSE = 0.1
"""Seconds between two looks at the pages in memory."""


class Scratch:
    """Arrays in temporary files. A file has no name, and its space is free when nothing uses its array any more.

    A thread releases the pages of the files that are in memory when there are many (`MAPPED`). Nothing changes but the
    time of the next access, which maps them again without reading the disk as long as the system has free memory for
    its cache.

    Attributes:
        folder: The folder of the files.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._maps: weakref.WeakKeyDictionary[mmap.mmap, range] = weakref.WeakKeyDictionary()  # with their addresses
        self._changing = threading.Lock()
        threading.Thread(target=_watch, args=(weakref.ref(self),), daemon=True).start()

    @property
    def size(self) -> int:
        """The bytes of the files."""
        return sum(len(one) for one in self._maps)

    def keep(self, value: T) -> T:
        """Write a numpy array, a tensor, or an Arrow array or table to a file, and release memory.

        Returns:
            The same value, memory-mapped; a value of at most `SMALL` bytes, or that is in a file already, itself.

        Raises:
            OutputError: If the disk is full.
        """
        if value.nbytes <= SMALL or self._holds(value):  # type: ignore[attr-defined]
            return value
        if isinstance(value, pa.Table):
            return cast(T, self.keep_batches(value.schema, value.to_batches()))
        if isinstance(value, pa.Array):
            return cast(T, self.keep(pa.table({"value": value})).column(0).chunk(0))
        if isinstance(value, np.ndarray):
            return cast(T, self.keep_parts([{"value": value}])["value"])
        import torch

        assert isinstance(value, torch.Tensor)
        if value.device.type != "cpu":
            return value
        return cast(T, torch.from_numpy(self.keep(value.numpy())))

    def keep_columns(self, table: pa.Table) -> pa.Table:
        """Write the columns of a table one by one, and return a table of one chunk. Raises as `keep`."""
        return pa.Table.from_arrays([self.keep(_joined(column)) for column in table.columns], table.column_names)

    def keep_batches(self, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> pa.Table:
        """Write record batches one by one, and return a table with one chunk for each. Raises as `keep`."""
        with output_errors(self.folder), tempfile.TemporaryFile(dir=self.folder) as file:
            with pa.ipc.new_stream(
                pa.PythonFile(file, "w"), schema
            ) as writer:  # a file has one dictionary for a column
                for batch in batches:
                    writer.write_batch(batch)
            return pa.ipc.open_stream(pa.py_buffer(self._map(file))).read_all()

    def keep_parts(self, parts: Iterable[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Write arrays that are made in parts, one part after another, and return the whole arrays by name.

        Args:
            parts: At least one; each has the next rows of every array, (rows, ...).

        Raises:
            OutputError: If the disk is full.
        """
        with output_errors(self.folder), ExitStack() as opened:
            files: dict[str, IO[bytes]] = {}
            last: Mapping[str, np.ndarray] = {}
            for last in parts:
                for name, part in last.items():
                    if name not in files:
                        files[name] = opened.enter_context(tempfile.TemporaryFile(dir=self.folder))
                    files[name].write(np.ascontiguousarray(part).data)
            found = {}
            for name, file in files.items():
                kind, shape = last[name].dtype, last[name].shape[1:]
                found[name] = np.empty((0, *shape), kind)
                if file.tell():
                    found[name] = np.frombuffer(self._map(file), kind).reshape(-1, *shape)
            return found

    def release(self) -> None:
        """Give the memory of all arrays back to the system, which keeps them in its cache or on disk."""
        with self._changing:
            maps = list(self._maps)
        for one in maps:
            one.madvise(mmap.MADV_DONTNEED)
        pa.default_memory_pool().release_unused()

    def _holds(self, value: object) -> bool:
        """Return whether all of an Arrow or numpy array lies in the files."""
        spots: list[tuple[int, int]] = []
        if isinstance(value, pa.Array):
            spots = [(one.address, one.address + one.size) for one in value.buffers() if one is not None]
        elif isinstance(value, np.ndarray) and value.flags.c_contiguous:
            spots = [(value.ctypes.data, value.ctypes.data + value.nbytes)]
        with self._changing:
            held = list(self._maps.values())
        return bool(spots) and all(any(start in one and end in one for one in held) for start, end in spots)

    def _map(self, file: IO[bytes]) -> mmap.mmap:
        """Return the content of a file, which may be closed then, and release memory."""
        file.flush()
        made = mmap.mmap(file.fileno(), os.fstat(file.fileno()).st_size)
        start = pa.py_buffer(made).address
        with self._changing:
            self._maps[made] = range(start, start + len(made) + 1)
        self.release()
        return made


def _watch(owner: weakref.ref[Scratch]) -> None:
    """Release the pages of a scratch's files whenever there are more than `MAPPED`, until it is not used any more.

    Pages that are there after a release are of other files, such as the program's own.
    """
    others = _mapped()
    while (scratch := owner()) is not None:
        if _mapped() > others + MAPPED:
            scratch.release()
            others = _mapped()
        del scratch
        time.sleep(PAUSE)


def _mapped() -> int:
    """Return the bytes of file pages that this process has in memory, 0 if unknown."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[2]) * mmap.PAGESIZE
    except (OSError, ValueError, IndexError):  # no Linux
        return 0


def kept(value: T, scratch: Scratch | None) -> T:
    """Return an array as `scratch` keeps it, or itself without one."""
    return value if scratch is None else scratch.keep(value)


def filtered(table: pa.Table, chosen: np.ndarray, scratch: Scratch | None) -> pa.Table:
    """Return the rows of a table that `chosen: (rows,)` bool says, as `scratch` keeps them."""
    mask = pa.array(chosen)
    if scratch is None:
        return table.filter(mask)
    columns = [scratch.keep(_joined(column).filter(mask)) for column in table.columns]
    return pa.Table.from_arrays(columns, table.column_names)


def _joined(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def scratch_folder() -> Path:
    """Return the folder of temporary files: TMPDIR, or else /var/tmp, as /tmp may be in memory."""
    large = Path("/var/tmp")
    if "TMPDIR" in os.environ or not os.access(large, os.W_OK):
        return Path(tempfile.gettempdir())
    return large


def free_memory() -> int | None:
    """Return the bytes of memory that are free for this process, within its control group; None if unknown."""
    found = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")))
        most, used = (Path(f"/sys/fs/cgroup/memory.{name}").read_text().strip() for name in ("max", "current"))
        if most != "max":
            found.append(max(0, int(most) - int(used)))
    except (OSError, StopIteration, ValueError, IndexError):  # no Linux, or no control group
        pass
    return min(found, default=None)
