"""Whether a dataset fits into memory, or its arrays are kept on disk (`data.memory_limit`)."""

from __future__ import annotations

import shutil

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


def scratch_for(rows: int, options: DataConfig, notes: list[str]) -> Scratch | None:
    """Return where the arrays of a dataset are kept if its interactions do not fit into the memory limit, else None.

    Args:
        rows: The number of interactions.
        options: The config's `data` section.
        notes: Gets a sentence on the data that is kept on disk, and why.

    Raises:
        DataError: If the disk has too little space for a limit that the user set.
    """
    limit = limit_of(options)
    if limit is None or rows * BYTES <= limit:
        return None
    folder, needed = scratch_folder(), rows * DISK_BYTES
    free = shutil.disk_usage(folder).free
    if needed > free:
        what = f"{rows:,} interactions need about {_size(rows * BYTES)} of memory, more than data.memory_limit "
        what += f"({_size(limit)}), or about {_size(needed)} on disk: {folder} has {_size(free)}."
        if options.memory_limit == "auto":
            notes.append(f"{what} They are kept in memory; the variable TMPDIR names another folder.")
            return None
        hint = "Set the variable TMPDIR to a folder with more space, raise data.memory_limit, or limit the rows."
        raise DataError(Fault("data.memory_limit", what, hint, "no space"))
    notes.append(
        f"{rows:,} interactions take about {_size(rows * BYTES)} of memory to train on, and data.memory_limit is "
        f"{_size(limit)}: they are kept in temporary files in {folder}, about {_size(needed)}. The result is the same."
    )
    return Scratch(folder)


def _size(count: float) -> str:
    """Return a number of bytes as text."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
