"""Whether a dataset fits into memory, or its arrays are kept on disk (`data.memory_limit`)."""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain

import pyarrow as pa

from anyrec.core.config import DataConfig
from anyrec.core.config.data import SIZE
from anyrec.core.errors import DataError, Fault
from anyrec.core.scratch import Scratch, free_memory, scratch_folder

BYTES = 400
"""Memory that training takes for each interaction, measured for the sequence model of the defaults."""
DISK_BYTES = 400
"""Disk space that an interaction takes if the arrays are kept there, measured for the same model."""
UNITS = ("", "k", "M", "G", "T")


def limit_of(options: DataConfig) -> int | None:
    """Return the limit in bytes; None for none. With "auto" it is half of the memory that is free."""
    found = SIZE.fullmatch(options.memory_limit)
    if found is None:
        free = free_memory()
        return None if free is None else free // 2
    number, unit, binary = found.groups()
    return int(float(number) * (1024 if binary else 1000) ** UNITS.index(unit or ""))


class Room:
    """Where the interactions of a dataset are kept: in memory, or in temporary files if they are too many for it.

    Attributes:
        scratch: The temporary files; None as long as the interactions fit into memory.
    """

    def __init__(self, options: DataConfig, notes: list[str]):
        """
        Args:
            options: The config's `data` section.
            notes: Gets a sentence on data that is kept on disk, and why.
        """
        self.scratch: Scratch | None = None
        self._options, self._notes, self._limit, self._rows = options, notes, limit_of(options), 0

    def table(self, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> pa.Table:
        """Read interactions, which go to the files as soon as there are too many.

        Raises:
            DataError: As `made_for`.
            OutputError: If the disk is full.
        """
        rest, read = iter(batches), deque[pa.RecordBatch]()
        for batch in rest:
            read.append(batch)
            self._rows += len(batch)
            scratch = self.made_for(self._rows)
            if scratch is not None:
                del batch
                return scratch.keep_batches(schema, chain(self._freed(read), self._counted(rest)))
        return pa.Table.from_batches(read, schema)

    @staticmethod
    def _freed(batches: deque[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        while batches:
            yield batches.popleft()

    def _counted(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            self._rows += len(batch)
            yield batch

    def made_for(self, rows: int) -> Scratch | None:
        """Return the files if that many interactions do not fit into memory, else None.

        Raises:
            DataError: If the disk has too little space for a limit that the user set.
        """
        if self.scratch is None and self._limit is not None and rows * BYTES > self._limit:
            folder, needed = scratch_folder(), rows * DISK_BYTES
            free = shutil.disk_usage(folder).free
            if needed <= free:
                self.scratch = Scratch(folder)
                return self.scratch
            what = f"{rows:,} interactions need about {_size(rows * BYTES)} of memory, more than data.memory_limit "
            what += f"({_size(self._limit)}), or about {_size(needed)} on disk: {folder} has {_size(free)}."
            if self._options.memory_limit != "auto":
                hint = (
                    "Set the variable TMPDIR to a folder with more space, raise data.memory_limit, or limit the rows."
                )
                raise DataError(Fault("data.memory_limit", what, hint, "no space"))
            self._notes.append(f"{what} They are kept in memory; the variable TMPDIR names another folder.")
            self._limit = None
        return self.scratch

    def finished(self, rows: int) -> Scratch | None:
        """Return where the interactions are kept now that all are read, and note it. Raises as `made_for`."""
        scratch = self.made_for(rows)
        if scratch is not None:
            self._notes.append(
                f"{rows:,} interactions take about {_size(rows * BYTES)} of memory to train on, and data.memory_limit "
                f"is {_size(self._limit or 0)}: they are kept in temporary files in {scratch.folder}, about "
                f"{_size(rows * DISK_BYTES)}. The result is the same."
            )
        return scratch


def _size(count: float) -> str:
    """Return a number of bytes as text."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
