"""The log of a server as a data set, or as a request that a model is updated by."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from anyrec.data.formats.faults import Faults
from anyrec.data.formats.frames import arrow_columns
from anyrec.data.formats.parts import PARTS, Part, Raw, finish_parts
from anyrec.data.memory_limit import Room
from anyrec.data.sources.event_log import EventLogReader
from anyrec.data.sources.several import DataSet, check_ids

UNUSED = (
    "The value that events have ({count:,}) is not used: name the log in data.sources, and its column 'value' as "
    "rating, weight or a context."
)
REMOVED = (
    "Items that were removed from the server, which does not list them: {whole:,}. Those with events ({count:,}) "
    "stay in the data, since people had them."
)


def read_log(path: Path, faults: Faults, notes: list[str], room: Room | None = None) -> DataSet:
    """Read the events and the records of a log.

    Users and items whose records are not in the log have no record: a model or another data set has them.

    Args:
        path: The folder of the log, or one of its files of events.
        faults: Gets the faults of its lines.
        notes: Gets what the user should know.
        room: Where events are kept; None for memory.

    Raises:
        DataError: If the changes of records are damaged, or ids have several types.
    """
    log = EventLogReader(path)
    wanted = (*log.columns, "value")
    notes += log.notes
    schema, batches = log.schema(wanted), log.events(faults, wanted)
    events = pa.Table.from_batches(batches, schema) if room is None else room.table(schema, batches)
    values = len(events) - events.column("value").null_count
    if values:
        notes.append(UNUSED.format(count=values))
    had = log.records.removed.keys() & pc.unique(events.column("item_id")).to_pylist()
    scratch = None if room is None else room.scratch
    columns = arrow_columns(events.select(list(log.columns)), scratch)
    parts: dict[str, Part | Raw] = {
        "users": log.records.part("users", set(), faults, notes),
        "items": log.records.part("items", had, faults, notes),
        "interactions": Raw(columns, len(events), str(path), log.place, scratch=scratch),
    }
    if log.records.removed:
        notes.append(REMOVED.format(count=len(had), whole=len(log.records.removed)))
    made = finish_parts(parts, faults, notes)
    root = path if path.is_dir() else path.parent
    found = DataSet(str(path), [made[part] for part in PARTS], root, faults, notes, True, set(log.records.removed))
    check_ids([found])
    return found
