"""The records that a server's log holds: the latest of each user and item, and what was removed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Self

from anyrec.core.types import JsonObject
from anyrec.data.formats.faults import Faults
from anyrec.data.formats.parts import SIDE_OF, Part, no_records
from anyrec.data.formats.records import record_table
from anyrec.data.sources.log_files import RECORDS, blocks

Id = str | int


@dataclass
class LogRecords:
    """What some changes of records, one after another, amount to.

    Attributes:
        items: The latest record of each item that was put, in the order in which the items first came.
        users: The latest record of each user that was put and not removed afterwards.
        removed: Items that were removed, and not put afterwards.
        forgotten: When each user was last removed, in seconds since 1970: earlier events do not count.
    """

    items: dict[Id, JsonObject] = field(default_factory=dict)
    users: dict[Id, JsonObject] = field(default_factory=dict)
    removed: dict[Id, None] = field(default_factory=dict)
    forgotten: dict[Id, float] = field(default_factory=dict)

    @classmethod
    def of(cls, changes: Iterable[JsonObject]) -> Self:
        """Merge changes, as a server logs them, the first one first."""
        merged = cls()
        for change in changes:
            for item, record in change.get("items", ()):
                merged.items[item] = record
                merged.removed.pop(item, None)
            merged.users.update(change.get("users", ()))
            merged.removed.update(dict.fromkeys(change.get("removed_items", ())))
            for user in change.get("removed_users", ()):
                merged.users.pop(user, None)
                merged.forgotten[user] = change.get("time", -math.inf)
        return merged

    @classmethod
    def read(cls, files: Mapping[Path, int]) -> Self:
        """Read changes.

        Args:
            files: The files, and the bytes of the whole lines of each.

        Raises:
            DataError: At a line that is no JSON object.
        """
        return cls.of(chain.from_iterable(blocks(files)))

    def part(self, name: str, had: set[Id], faults: Faults, notes: list[str]) -> Part:
        """Return the records of one side as a table.

        Args:
            name: users or items.
            had: The removed items that have records nevertheless.
            faults: Gets the faults of the records.
            notes: Gets what the user should know.
        """
        side, records = SIDE_OF[name], self.users
        if name == "items":
            left = self.removed.keys() - had
            records = {one: record for one, record in self.items.items() if one not in left}
        ids = list(records)

        def place(row: int, column: str) -> str:
            return f"{RECORDS}: the {side} {ids[row]!r}" + (f", '{column}'" if column else "")

        rows = [{**record, f"{side}_id": one} for one, record in records.items()]
        table = record_table(rows, side, place, faults, notes, flat=True) if rows else no_records(name)
        return Part(table, place)
