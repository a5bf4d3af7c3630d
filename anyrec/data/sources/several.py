"""Several data sets as one: their interactions follow one another, and later records replace earlier ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.core.errors import DataError, Fault
from anyrec.core.scratch import Scratch, filtered
from anyrec.data.formats.faults import Faults
from anyrec.data.formats.parts import Part
from anyrec.data.formats.places import Place, place_among
from anyrec.data.ids import SIDES, Side
from anyrec.data.list_columns import one_chunk
from anyrec.data.sources.assemble import stacked
from anyrec.data.sources.log_records import Id

USERS, ITEMS, INTERACTIONS = 0, 1, 2


@dataclass
class DataSet:
    """A data set as it was read, before it is checked as a whole.

    Attributes:
        name: Its path.
        parts: Users, items and interactions.
        root: The folder that relative file names start from.
        faults: The faults of its records.
        notes: What the user should know.
        log: Whether it is the log of a server.
        removed: Items that were removed from that server.
    """

    name: str
    parts: list[Part]
    root: Path
    faults: Faults = field(default_factory=Faults)
    notes: list[str] = field(default_factory=list)
    log: bool = False
    removed: set[Id] = field(default_factory=set)


def together(sets: Sequence[DataSet], scratch: Scratch | None, image_root: str | None) -> DataSet:
    """Return several data sets as one.

    A record replaces that of an earlier data set as a whole. Events of a log with removed items are left out if no data
    set has a record of them.

    Args:
        sets: The data sets, the first one first.
        scratch: Where interactions are kept; None for memory.
        image_root: `data.image_root` of the config.

    Raises:
        DataError: If ids or features have several types, or pictures are named relative to several folders.
    """
    if len(sets) == 1:
        return sets[0]
    sets = [_named(one) for one in sets]
    check_ids(sets)
    faults, notes = Faults(), [note for one in sets for note in one.notes]
    for one in sets:
        faults.extend(one.faults)
    try:
        users = reduce(lambda first, second: _replaced(first, second, "user"), [one.parts[USERS] for one in sets])
        items = reduce(lambda first, second: _replaced(first, second, "item"), [one.parts[ITEMS] for one in sets])
        known = items.table.column("item_id")
        interactions = [_without_removed(one, known, scratch, notes) for one in sets]
        table = stacked([one.table for one in interactions if len(one.table)] or [interactions[0].table])
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        what = f"a feature has several types: {str(error).splitlines()[0].rstrip('.')}."
        hint = "Give it one type in all data sets."
        raise DataError(Fault(" and ".join(one.name for one in sets), what, hint, "column type")) from None
    table = table.combine_chunks() if scratch is None else scratch.keep_columns(table)
    for part, one in (("users", users), ("items", items)):
        count = sum(len(other.parts[USERS if part == "users" else ITEMS].table) for other in sets) - len(one.table)
        if count:
            notes.append(f"{part.capitalize()} with records in several data sets: {count:,}. The last record counts.")
    parts = [
        users,
        items,
        Part(table, place_among([(len(one.table), one.place) for one in interactions if len(one.table)])),
    ]
    return DataSet("", parts, _root(sets, image_root), faults, notes)


def _named(one: DataSet) -> DataSet:
    """Return a data set whose messages name it."""
    faults = Faults()
    faults.extend(one.faults)
    faults.shown = [replace(fault, where=f"{one.name}: {fault.where}") for fault in faults.shown]
    parts = [Part(part.table, _place_within(one.name, part.place)) for part in one.parts]
    return replace(one, parts=parts, faults=faults, notes=[f"{one.name}: {note}" for note in one.notes])


def _place_within(name: str, place: Place) -> Place:
    return lambda row, column: f"{name}: {place(row, column)}"


def check_ids(sets: Sequence[DataSet]) -> None:
    """Raise DataError if ids of one side are texts in one data set and whole numbers in another."""
    faults = []
    for side in SIDES:
        tables = [(one, part.table) for one in sets for part in one.parts if f"{side}_id" in part.table.column_names]
        found = {
            pa.types.is_integer(table.schema.field(f"{side}_id").type): one.name for one, table in tables if len(table)
        }
        if len(found) > 1:
            what = f"the ids of {side}s are whole numbers here, and texts in {found[False]}."
            faults.append(Fault(found[True], what, "Write them in the same way.", "id type"))
    if faults:
        raise DataError(faults)


def _replaced(first: Part, second: Part, side: Side) -> Part:
    """Return the records of two data sets: of ids in both, those of the second one.

    A record without any value replaces none: the id alone only names the user or item. An id that one of the data sets
    has twice stays there twice, which is a fault.
    """
    if not len(second.table) or not len(first.table):
        return second if len(second.table) else first
    key, count = f"{side}_id", len(first.table)
    before, after = one_chunk(first.table.column(key)), one_chunk(second.table.column(key))
    counts = ~_within(after, before)
    for name in second.table.column_names:
        counts |= second.table.column(name).is_valid().to_numpy() if name != key else False
    kept = np.flatnonzero(~_within(before, after.filter(pa.array(counts))))
    rows = np.concatenate([kept, count + np.flatnonzero(counts)])

    def place(row: int, column: str) -> str:
        at = int(rows[row])
        return first.place(at, column) if at < count else second.place(at - count, column)

    return Part(stacked([first.table, second.table]).take(pa.array(rows)).combine_chunks(), place)


def _within(ids: pa.Array, others: pa.Array) -> np.ndarray:
    """Return (ids,) bool, which ids are among others."""
    return pc.is_in(ids, value_set=others).to_numpy(zero_copy_only=False)


def _without_removed(one: DataSet, known: pa.ChunkedArray, scratch: Scratch | None, notes: list[str]) -> Part:
    """Return the interactions of a data set without those with removed items that have no record any more."""
    part = one.parts[INTERACTIONS]
    if not one.removed or not len(part.table):
        return part
    items = part.table.column("item_id")
    whole = pa.types.is_integer(items.type)
    removed = pa.array([item for item in one.removed if (type(item) is int) == whole], items.type)
    lost = pc.and_(pc.is_in(items, value_set=removed), pc.invert(pc.is_in(items, value_set=one_chunk(known))))
    keep = ~lost.to_numpy()
    if keep.all():
        return part
    notes.append(
        f"{one.name}: events that are left out: {int((~keep).sum()):,}. Their items were removed, and no data set has "
        "them."
    )
    rows = np.flatnonzero(keep)
    return Part(filtered(part.table, keep, scratch), lambda row, column: part.place(int(rows[row]), column))


def _root(sets: Sequence[DataSet], image_root: str | None) -> Path:
    """Return the folder that relative names of files start from: that of the data set with pictures, or the first."""
    roots = {one.root: one.name for one in sets if not one.log and any(map(_has_pictures, one.parts))}
    if len(roots) > 1 and image_root is None:
        what = f"pictures are named relative to several folders: {', '.join(map(str, roots))}."
        hint = "Write their names relative to one folder, and set data.image_root to it."
        raise DataError(Fault(" and ".join(roots.values()), what, hint, "root"))
    return next(iter(roots), next((one.root for one in sets if not one.log), sets[0].root))


def _has_pictures(part: Part) -> bool:
    return any(name.startswith("image.") for name in part.table.column_names)
