"""Where a column of a table is, for messages."""

from __future__ import annotations

from dataclasses import dataclass

from anyrec.data.formats.faults import Faults
from anyrec.data.formats.places import Pointer


@dataclass(frozen=True)
class At:
    """The source of a column.

    Attributes:
        name: Its name, for messages; with its table if there are several.
        where: Its place in the source, or the JSON pointer to its meaning in the config.
        pointer: The place of each of its rows.
        faults: Gets its faults.
        notes: Gets what was found out about it.
    """

    name: str
    where: str
    pointer: Pointer
    faults: Faults
    notes: list[str]
