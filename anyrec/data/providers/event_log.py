"""The log of a server."""

from __future__ import annotations

import pyarrow as pa

from anyrec.core.config.sources import TableConfig
from anyrec.core.errors import DataError, Fault
from anyrec.data.formats.parts import PARTS
from anyrec.data.sources.contract import Access, Provider, Rows
from anyrec.data.sources.event_log import OTHERS, EventLogReader


class EventLog(Provider):
    """The folder of a server's log: its events, or in `users` and `items` the records that were put."""

    type = "event_log"
    marks = "records/events-*.jsonl"

    def open(self, table: TableConfig, access: Access) -> Rows:
        """Open the events as interactions, or the latest records of users or items."""
        if len(table.places) != 1:
            what, hint = "several folders are one table.", "Name each log as a table of its own."
            raise DataError(Fault(", ".join(table.places) or "event_log", what, hint, "provider"))
        log, notes = EventLogReader(access.root / table.places[0]), list[str]()
        name = table.places[0]
        if access.part in PARTS[:2]:
            part = log.records_of(access.part, access.faults, notes)
            names = part.table.column_names
            wanted = [one for one in names if access.columns is None or one in access.columns]
            rows = part.table.select(wanted).to_reader()
            return Rows(rows, name, log.version, names=names, place=part.place, notes=notes)
        wanted, known = access.columns, (*log.columns, *OTHERS)
        columns = log.columns if wanted is None else tuple(one for one in known if wanted & {one, one.split(".")[0]})
        reader = pa.RecordBatchReader.from_batches(log.schema(columns), log.events(access.faults, columns))
        return Rows(reader, name, log.version, names=[*known], place=log.place, notes=log.notes)
