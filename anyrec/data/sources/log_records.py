"""The records that a server's log holds: the latest of each user and item, and what was removed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from anyrec.core.errors import DataError, Fault
from anyrec.core.types import JsonObject
from anyrec.data.formats.faults import Faults
from anyrec.data.formats.parts import SIDE_OF, Part, no_records
from anyrec.data.formats.records import record_table
from anyrec.data.sources.log_files import RECORDS, read_lines, sizes

Id = str | int


@dataclass
class LogRecords:
    """What the changes of a log led to.

    Attributes:
        users: The latest record of each user that was put, by id.
        items: The same of items, also of those that were removed.
        removed: Items that were removed and not put again.
        forgotten: When users were removed, in seconds since 1970, by id: their events until then are not read.
        version: What identifies the content.
    """

    users: dict[Id, JsonObject] = field(default_factory=dict)
    items: dict[Id, JsonObject] = field(default_factory=dict)
    removed: set[Id] = field(default_factory=set)
    forgotten: dict[Id, float] = field(default_factory=dict)
    version: str = "0 bytes"

    @staticmethod
    def read(folder: Path) -> LogRecords:
        """Read the changes of a log of events. Raises DataError if they are damaged."""
        found, files = LogRecords(), sizes(folder / RECORDS)
        found.version = f"{sum(files.values())} bytes"
        for path, size in files.items():
            try:
                for change in read_lines(path, size):
                    found.apply(change)
            except msgspec.MsgspecError as error:
                hint = "Restore it from a backup."
                raise DataError(Fault(str(path), f"this file is damaged: {error}.", hint, "json")) from None
        return found

    def apply(self, change: JsonObject) -> None:
        """Apply a change, as `anyrec.serving.live.service.Service` logs it."""
        items = dict(change.get("items", ()))
        self.items |= items
        self.removed -= items.keys()
        self.users |= dict(change.get("users", ()))
        self.removed |= set(change.get("removed_items", ()))
        for one in change.get("removed_users", ()):
            self.users.pop(one, None)
            self.forgotten[one] = change.get("time", float("-inf"))

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
            left = self.removed - had
            records = {one: record for one, record in self.items.items() if one not in left}
        ids = list(records)

        def place(row: int, column: str) -> str:
            return f"{RECORDS}: the {side} {ids[row]!r}" + (f", '{column}'" if column else "")

        rows = [{**record, f"{side}_id": one} for one, record in records.items()]
        table = record_table(rows, side, place, faults, notes, flat=True) if rows else no_records(name)
        return Part(table, place)
