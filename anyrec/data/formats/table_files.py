"""Folders of users, items and interactions as JSON Lines, CSV or Parquet files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from anyrec.core.errors import DataError, Fault
from anyrec.data.formats.containers import stem_and_kind
from anyrec.data.formats.csv_file import named, read_csv
from anyrec.data.formats.faults import Faults
from anyrec.data.formats.frames import arrow_columns
from anyrec.data.formats.json_lines import interactions_in_pieces, lines_place, read_lines
from anyrec.data.formats.parts import PARTS, SIDE_OF, Part, Raw, finish_parts, no_records
from anyrec.data.formats.places import table_place
from anyrec.data.formats.records import interaction_table, record_table
from anyrec.data.ids import ID_COLUMNS
from anyrec.data.memory_limit import Room

KINDS = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson")
"""Endings of the files that are read; the first one wins if a part is there in several."""


def read_table_folder(
    path: Path,
    faults: Faults,
    notes: list[str],
    *,
    ids_suffice: bool = False,
    missing_ok: bool = False,
    room: Room | None = None,
) -> list[Part]:
    """Read users, items and interactions from a folder.

    Args:
        path: The folder.
        faults: Gets the faults of the records.
        notes: Gets what the user should know.
        ids_suffice: Accept a folder without users or items, whose ids then come from the interactions.
        missing_ok: Keep a null id for an interaction without a user or an item, which the caller drops.
        room: Where interactions are kept; None for memory.

    Raises:
        DataError: If a file is missing or cannot be parsed.
    """
    files = part_files(path, notes, optional=tuple(SIDE_OF) if ids_suffice else ())
    read = {part: read_part(file, part, faults, notes, missing_ok, room)[1] for part, file in files.items()}
    for part in SIDE_OF:
        if part not in read:
            read[part] = Part(no_records(part), table_place(part))
    made = finish_parts(read, faults, notes, missing_ok=missing_ok)
    return [made[part] for part in PARTS]


def part_files(folder: Path, notes: list[str], optional: Sequence[str] = ()) -> dict[str, Path]:
    """Find the file of each part in a folder.

    Args:
        folder: The folder.
        notes: Gets a sentence for each file that is not used because the part is there in another format too.
        optional: Parts that may be missing.

    Returns:
        The files by part, in the order of `PARTS`.

    Raises:
        DataError: If the folder cannot be read, or lacks a part that is not optional; it names the missing parts.
    """
    found: dict[str, list[Path]] = {part: [] for part in PARTS}
    try:
        inside = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(Fault(str(folder), f"cannot be read: {error.strerror}.", kind="no file")) from None
    for file in inside:
        stem, kind = stem_and_kind(file)
        if stem in found and kind in KINDS and file.is_file():
            found[stem].append(file)
    missing = [part for part in PARTS if not found[part] and part not in optional]
    if missing:
        raise _missing_parts(folder, missing, [part for part in PARTS if found[part]], inside)
    chosen = {}
    for part, files in found.items():
        if files:
            files.sort(key=lambda file: KINDS.index(stem_and_kind(file)[1]))
            chosen[part] = files[0]
            notes += [f"{file.name} is not used: {files[0].name} is read." for file in files[1:]]
    return chosen


def _missing_parts(folder: Path, missing: list[str], there: list[str], inside: list[Path]) -> DataError:
    hint = "Put " + ", ".join(f"{part}.csv (or .parquet, .jsonl)" for part in missing) + " there."
    if "interactions" not in missing:
        hint += " Set data.unknown_ids to 'keep' for data without them: their ids are taken from the interactions."
    if not there:
        names = ", ".join(file.name for file in inside[:5]) or "nothing"
        what = f"this folder holds no users, items and interactions; found {names}."
    else:
        what = f"this folder has no {' and no '.join(missing)}; found {' and '.join(there)}."
    other = [file.name for file in inside if stem_and_kind(file)[0].lower() in missing]
    if other and there:
        what += f" {', '.join(other)} cannot be read as a table of a folder."
    return DataError(Fault(str(folder), what, hint, "no data"))


def read_part(
    path: Path,
    part: str | None,
    faults: Faults,
    notes: list[str],
    missing_ok: bool = False,
    room: Room | None = None,
) -> tuple[str, Part | Raw]:
    """Read one file of a folder.

    Args:
        path: The file.
        part: users, items or interactions. By default the columns decide: interactions if there are user_id and
            item_id, items if there is item_id, otherwise users.
        faults: Gets the faults of the records.
        notes: Gets what the user should know.
        missing_ok: Keep a null id for an interaction without a user or an item, which the caller drops.
        room: Where interactions are kept; None for memory.

    Returns:
        The name of the part, and its table.

    Raises:
        DataError: If the file cannot be parsed.
    """
    kind = stem_and_kind(path)[1]
    room = room if part == "interactions" else None
    if kind in (".csv", ".tsv", ".parquet"):
        is_csv, place = kind != ".parquet", table_place(path.name)
        if is_csv:
            table, place = read_csv(path, faults, notes, room)
        else:
            table = read_parquet(path, room)
        scratch = None if room is None else room.scratch
        columns = arrow_columns(table, scratch)
        if is_csv:
            columns = [(named(name, column)) for name, column in columns]
        raw = Raw(columns, len(table), path.name, place, is_csv, scratch)
        return part or _part_of(name for name, _ in columns), raw
    if room is not None and (table := interactions_in_pieces(path, missing_ok, notes, room)) is not None:
        return "interactions", Part(table, lines_place(path))
    rows, place = read_lines(path, faults)
    part = part or _part_of(name for row in rows if isinstance(row, dict) for name in row)
    if part in SIDE_OF:
        return part, Part(record_table(rows, SIDE_OF[part], place, faults, notes, flat=True), place)
    return part, Part(interaction_table(rows, place, faults, notes, flat=True, missing_ok=missing_ok), place)


def _part_of(names: Iterable[str]) -> str:
    """Return the part that has these columns."""
    ids = {name for name in names if name in ID_COLUMNS}
    return "interactions" if len(ids) == len(ID_COLUMNS) else "items" if "item_id" in ids else "users"


def read_parquet(path: Path, room: Room | None = None) -> pa.Table:
    """Read a Parquet file; batch by batch if its rows do not fit into memory.

    Args:
        path: The file.
        room: Where the rows are kept; None for memory.

    Raises:
        DataError: If it cannot be read.
    """
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            if room is None or room.made_for(file.metadata.num_rows) is None:
                return file.read()
            # Over all row groups at once, the reader holds the compressed columns of those that it has read.
            groups = (file.iter_batches(row_groups=[group]) for group in range(file.num_row_groups))
            return room.table(file.schema_arrow, chain.from_iterable(groups))
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise DataError(Fault(str(path), f"cannot be read as Parquet: {reason}.", kind="unreadable")) from None
