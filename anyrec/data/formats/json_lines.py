"""JSON Lines files of the records of the JSON format."""

from __future__ import annotations

import gzip
import zlib
from codecs import BOM_UTF8
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec
import pyarrow as pa

from anyrec.core.errors import DataError
from anyrec.core.types import Json
from anyrec.data.formats.containers import GZIP, read_bytes
from anyrec.data.formats.decode import decode_any, keys_in_text, keys_in_text_exactly, keys_of
from anyrec.data.formats.faults import Faults
from anyrec.data.formats.places import LinePlace
from anyrec.data.formats.records import interaction_table
from anyrec.data.formats.times import are_dates
from anyrec.data.memory_limit import Room

PIECE = 1 << 26
"""Bytes of a long file that are parsed at a time."""
LEAST_PACKED = 20
"""Shorter files than a piece divided by this hold less than a piece, even if they are packed."""
FIRST = ("user_id", "item_id", "weight", "rating", "label", "timestamp", "interaction_type")
"""The order of the columns of interactions, which contexts follow."""


def lines_place(path: Path) -> LinePlace:
    """Return the line of each record of a file."""
    return LinePlace(path.name, partial(read_bytes, path))


def interactions_in_pieces(path: Path, missing_ok: bool, notes: list[str], room: Room) -> pa.Table | None:
    """Read the interactions of a long file piece by piece, so that only one piece is Python objects at a time.

    Args:
        path: The file.
        missing_ok: Keep a null id for an interaction without a user or an item, which the caller drops.
        notes: Gets what the user should know.
        room: Where interactions are kept.

    Returns:
        The interactions, as from one piece. None if it is not sure that they are: if a line is at fault, or what can be
        found from all values (types of ids and contexts, numbers that are dates, unused keys) differs between
        pieces. Then the file has to be read as a whole.
    """
    if path.stat().st_size <= PIECE // LEAST_PACKED:
        return None
    tables: list[pa.Table] = []
    found: set[tuple[bool, tuple[str, ...]]] = set()
    count, place = 0, lines_place(path)
    try:
        for piece in _pieces(path):
            faults, remarks = Faults(), list[str]()
            rows = _decoded(piece)
            if rows is None:
                return None
            table = interaction_table(rows, place, faults, remarks, flat=True, missing_ok=missing_ok)
            found.add((_dated(rows), tuple(remarks)))
            if faults or len(found) > 1:
                return None
            count += len(table)
            scratch = room.made_for(count)
            tables.append(table if scratch is None else scratch.keep_columns(table))
        whole = pa.concat_tables(tables, promote_options="default")
    except (pa.ArrowInvalid, pa.ArrowTypeError, OSError, EOFError, zlib.error):  # several types, or damaged
        return None
    notes += found.pop()[1]
    names = sorted(whole.column_names, key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name))
    whole = whole.select(names)
    return whole.combine_chunks() if room.scratch is None else room.scratch.keep_columns(whole)


def _pieces(path: Path) -> Iterator[bytes]:
    """Yield the text of a file in pieces of whole lines. Raises OSError, EOFError or zlib.error if it is damaged."""
    with path.open("rb") as plain:
        packed = plain.read(len(GZIP)) == GZIP
    kept = b""
    with gzip.open(path) if packed else path.open("rb") as file:
        while chunk := file.read(PIECE):
            chunk = kept + chunk
            cut = chunk.rfind(b"\n") + 1
            if cut:
                yield chunk[:cut].removeprefix(BOM_UTF8)
            kept = chunk[cut:]
    if kept:
        yield kept.removeprefix(BOM_UTF8)


def _dated(rows: list[Json]) -> bool:
    """Return whether all timestamps of records that are numbers are dates such as 20240517."""
    times = [row.get("timestamp") for row in rows if isinstance(row, dict)]
    numbers = [time for time in times if type(time) in (int, float)]
    return bool(numbers) and are_dates(pa.array(numbers, pa.float64()))


def _decoded(piece: bytes) -> list[Json] | None:
    """Return the records of lines; None if a line is no JSON or has a key twice."""
    try:
        rows = msgspec.json.Decoder().decode_lines(piece)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None
    keys = keys_of(rows)
    return rows if keys == keys_in_text(piece) or keys == keys_in_text_exactly(piece) else None


def read_lines(path: Path, faults: Faults) -> tuple[list[Json], LinePlace]:
    """Read a JSON Lines file, one record of the JSON format a line.

    Args:
        path: The file.
        faults: Gets a fault for each line that is not a JSON object.

    Returns:
        The records, and the line of each.
    """
    data, place = read_bytes(path), lines_place(path)
    rows = _decoded(data)
    if rows is not None:
        return rows, place
    rows = []
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.strip():
            rows.append(_line(line, path, number, faults))
    return rows, place


def _line(line: bytes, path: Path, number: int, faults: Faults) -> Json:
    """Return the record on one line."""
    where = f"{path.name} line {number}"
    found = Faults()
    try:
        value = decode_any(line, Path(path.name), found)
    except DataError as error:
        what = "this line is no JSON object"
        reason = error.faults[0].what if error.faults[0].kind == "encoding" else f"{what}: {error.faults[0].what}"
        faults.add(error.faults[0].kind, where, reason, "Each line holds one record.")
        return {}
    for fault in found.shown:
        faults.add(fault.kind, f"{where}, {fault.where}", fault.what, fault.hint)
    return value
