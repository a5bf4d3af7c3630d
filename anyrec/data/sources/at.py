"""Where a column of a table is: in its source and in the config."""

from __future__ import annotations

from dataclasses import dataclass

from anyrec.data.formats.faults import Faults
from anyrec.data.formats.places import Pointer


@dataclass(frozen=True)
class At:
    """The source of a column.

    Attributes:
        name: Its name and table, for messages.
        where: JSON pointer to its meaning in the config.
        pointer: The place of each row.
        faults: Gets its faults.
        notes: Gets what was found out about it.
    """

    name: str
    where: str
    pointer: Pointer
    faults: Faults
    notes: list[str]
