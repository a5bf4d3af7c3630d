"""The files of a server's log: which they are, and the whole lines of each."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from anyrec.core.errors import DataError, Fault
from anyrec.core.types import JsonObject

RECORDS = "records"
"""Folder within the log of events with the log of changed records."""
_LINES = msgspec.json.Decoder(dict[str, Any])
PIECE, BLOCK = 1 << 26, 1 << 20
"""Bytes of a file that are read at a time: as columns, and as objects, which take many times as much memory."""


def is_event_log(path: Path) -> bool:
    """Return whether a path is the folder of a server's log of events, and not one of tables; or one of its files."""
    if path.is_file():
        return (path.parent / RECORDS).is_dir() and path in [file for _, file in segments(path.parent)]
    return path.is_dir() and bool(segments(path)) and not any(path.glob("interactions.*"))


def segments(folder: Path) -> list[tuple[int, Path]]:
    """Return the number and the path of each file of a log, in order."""
    paths = folder.glob("events-*.jsonl")
    return sorted((int(path.stem.split("-")[1]), path) for path in paths if path.stem.split("-")[1].isdecimal())


def sizes(folder: Path) -> dict[Path, int]:
    """Return the files of a log, in order, and the bytes of the whole lines of each."""
    found = {}
    for _, path in segments(folder):
        with path.open("rb") as file:
            found[path] = whole_bytes(file)
    return found


def whole_bytes(file: BinaryIO | FileIO) -> int:
    """Return the bytes of a file without an incomplete last line, whose write is not finished or was interrupted."""
    end = file.seek(0, os.SEEK_END)
    while end:  # look for the last line's end from behind, in blocks
        begin = max(0, end - 65536)
        file.seek(begin)
        place = file.read(end - begin).rfind(b"\n")
        if place >= 0:
            return begin + place + 1
        end = begin
    return 0


def pieces(path: Path, size: int, most: int | None = None) -> Iterator[bytes]:
    """Yield the first `size` bytes of a file, which end with a line, in pieces of whole lines.

    Args:
        path: The file.
        size: The bytes.
        most: About the bytes of a piece; by default PIECE.
    """
    with path.open("rb") as file:
        while size > 0:
            piece = file.read(min(most or PIECE, size))
            if len(piece) < size:
                piece += file.readline()
            size -= len(piece)
            yield piece


def blocks(files: Mapping[Path, int]) -> Iterator[list[JsonObject]]:
    """Yield the objects on the lines of files, those of about BLOCK bytes at a time.

    Args:
        files: The files, and the bytes of the whole lines of each.

    Raises:
        DataError: At a line that is no JSON object.
    """
    for path, size in files.items():
        before = 0
        for piece in pieces(path, size, BLOCK):
            yield _decoded(piece, path, before)
            before += piece.count(b"\n")


def _decoded(data: bytes, path: Path, before: int) -> list[JsonObject]:
    """Return the objects on some lines of a file.

    Args:
        data: The lines.
        path: The file.
        before: The number of lines before them.

    Raises:
        DataError: At a line that is no JSON object: another program has changed the file.
    """
    try:
        return _LINES.decode_lines(data)
    except msgspec.DecodeError:
        for number, line in enumerate(data.splitlines(), before + 1):
            try:
                _LINES.decode(line)
            except msgspec.DecodeError as error:
                where, what = f"{path}, line {number:,}", f"this is no JSON object: {error}."
                raise DataError(Fault(where, what, "Correct the line, or delete it.", "json")) from None
        raise
