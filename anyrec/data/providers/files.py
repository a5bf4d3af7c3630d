"""Files of this machine, and standard input."""

from __future__ import annotations

import glob
import io
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pyarrow as pa

from anyrec.core.config.sources import TableConfig
from anyrec.core.errors import DataError, Fault
from anyrec.data.formats.containers import STDIN
from anyrec.data.sources.contract import Access, Provider, Rows, SourceFile
from anyrec.data.sources.copies import Copy
from anyrec.data.sources.decode import decode

WILD = "*?["


class Files(Provider):
    """Files of this machine by path, pattern or folder; - is standard input."""

    type = "files"
    schemes = "file"

    def open(self, table: TableConfig, access: Access) -> Rows:
        """Open one or more files, whose rows follow one another in the order of their names."""
        files = [file for place in table.places for file in _files_at(place, access.root)]
        return decode(files, table.format, access)


def _files_at(place: str, root: Path) -> Iterator[SourceFile]:
    """Yield the files that a path, a pattern or a folder names. Raises DataError if there is none."""
    if place == STDIN:
        copy = Copy()
        with copy.writing() as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        yield SourceFile("standard input", copy.open, f"{os.path.getsize(copy.path)} bytes")
        return
    path = root / Path(_local(place)).expanduser()
    if any(mark in str(path) for mark in WILD) and not path.exists():
        names = sorted(glob.glob(str(path), recursive=True))
        found = [Path(name) for name in names if os.path.isfile(name)]
        if not found:
            raise DataError(Fault(str(path), "no file matches this pattern.", "Check the path.", "no file"))
        yield from map(_file, found)
    elif path.is_dir():
        found = sorted(one for one in path.rglob("*") if one.is_file() and not _is_hidden(one.relative_to(path)))
        if not found:
            raise DataError(Fault(str(path), "this folder holds no files.", "Check the path.", "no file"))
        yield from (_file(one, path) for one in found)
    else:
        yield _file(path)


def _file(path: Path, folder: Path | None = None) -> SourceFile:
    """Return one file. folder: The folder whose inner folders may name partitions."""
    try:
        found = path.stat()
    except FileNotFoundError:
        raise DataError(Fault(str(path), "there is no such file.", "Check the path.", "no file")) from None
    except OSError as error:
        raise DataError(Fault(str(path), f"cannot be read: {error.strerror}.", kind="no file")) from None
    parts = path.relative_to(folder).parts[:-1] if folder is not None else ()
    partition = dict(part.split("=", 1) for part in parts if "=" in part)
    version = f"{found.st_size} bytes, {found.st_mtime_ns}"
    return SourceFile(str(path), lambda: _stream(path), version, partition)


def _stream(path: Path) -> pa.NativeFile:
    try:
        return pa.OSFile(str(path)) if path.is_file() else pa.PythonFile(io.BytesIO(path.read_bytes()))
    except OSError as error:
        raise DataError(Fault(str(path), f"cannot be read: {error.strerror}.", kind="no file")) from None


def _local(place: str) -> str:
    """Return the path of a file: address, and any other path as it is."""
    return unquote(urlsplit(place).path) if place.lower().startswith("file:") else place


def _is_hidden(path: Path) -> bool:
    """Return whether a file, or a folder that it is in, is an auxiliary one, such as _SUCCESS and .crc files."""
    return any(part.startswith((".", "_")) for part in path.parts)
