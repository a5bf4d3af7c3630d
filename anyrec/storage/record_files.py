"""The files of the users and items that a model knows, and of what the users did. Nothing here loads torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.core.saved_files import check_pairs, check_parts, check_records, damaged, read_table
from anyrec.data.histories import COLUMN
from anyrec.data.ids import SIDES, Side
from anyrec.data.list_columns import flat, offsets_of, one_chunk
from anyrec.data.pairs import Pairs
from anyrec.model.known_records import KnownRecords
from anyrec.storage.states import write_table

SEEN, HISTORY = "seen.arrow", "history.arrow"


def write_records(model: KnownRecords, folder: Path) -> None:
    """Write the users, the items, the items that each user had, and the histories of the users, if there are any."""
    write_table(folder / "users.arrow", model.dataset.users)
    write_table(folder / "items.arrow", model.dataset.items)
    seen = {"user": pa.array(model.seen.owners()), "item": pa.array(model.seen.items)}
    if model.seen_parts is not None:
        seen["parts"] = pa.array(model.seen_parts)
    write_table(folder / SEEN, pa.table(seen))
    if model.history is not None:
        write_table(folder / HISTORY, pa.table(_events_by_part(model.history, model.history_parts)))


def read_tables(folder: Path) -> dict[Side, pa.Table]:
    """Read the users and items. Raises ModelError if a file is damaged."""
    tables: dict[Side, pa.Table] = {side: read_table(folder / f"{side}s.arrow") for side in SIDES}
    for side, table in tables.items():
        check_records(table, side, folder / f"{side}s.arrow")
    return tables


def read_seen(path: Path, users: int, items: int) -> tuple[Pairs, np.ndarray | None]:
    """Read the seen pairs, and (pairs,) the parts of the split that each occurs in, if saved. Raises ModelError."""
    pairs = read_table(path)
    owners, seen = check_pairs(pairs, users, items, path)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=users))])
    if "parts" not in pairs.column_names:
        return Pairs(seen, offsets), None
    with damaged(path):
        return Pairs(seen, offsets), check_parts(pairs.column("parts").to_numpy(), len(seen))


def read_history(path: Path, users: int, items: int) -> tuple[pa.Array | None, np.ndarray | None]:
    """Read (users,) list<EVENT>, and (events,) the part of the split of each event, if saved. Raises ModelError.

    Both are None if there is no such file.
    """
    if not path.is_file():
        return None, None
    with damaged(path, "this is not a column of histories"):
        table = read_table(path)
        history = one_chunk(table.column("events"))
        if history.type != COLUMN or len(history) != users:
            raise ValueError(f"{users} rows of {COLUMN} were expected")
        rows = history.flatten().field("item").to_numpy(zero_copy_only=False)
        if len(rows) and not 0 <= rows.min() <= rows.max() < items:  # a null is NaN, which compares as False
            raise ValueError(f"an item is not within 0 and {items - 1}")
        if "parts" not in table.column_names:
            return history, None
        parts = one_chunk(table.column("parts"))
        lengths, wanted = (pc.fill_null(pc.list_value_length(one), 0) for one in (parts, history))
        if not lengths.equals(wanted) or parts.flatten().null_count:
            raise ValueError("the parts are not those of the events")
        return history, check_parts(parts.flatten().to_numpy(), len(rows))


def _events_by_part(history: pa.Array, parts: np.ndarray | None) -> dict[str, pa.Array]:
    """Return the columns of history.arrow: `events`, and `parts` with the part of the split of each event, if known."""
    if parts is None:
        return {"events": history}
    _, owners = flat(history)
    offsets = pa.array(offsets_of(owners, len(history)).astype(np.int32))
    return {"events": history, "parts": pa.ListArray.from_arrays(offsets, pa.array(parts))}
