"""The unpacked bytes of a file, and its text as UTF-8: gzip, bzip2, zstd, xz, lz4 and zip; byte order marks."""

from __future__ import annotations

import codecs
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath

import pyarrow as pa

from anyrec.core.errors import DataError, Fault
from anyrec.data.sources.contract import SourceFile

HEAD = 1 << 18
"""Bytes at the beginning of a file from which its format is found."""
PACKED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bz2",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ": "xz",
    b"\x04\x22\x4d\x18": "lz4",
    b"PK\x03\x04": "zip",
}
"""First bytes of packed files, and how Arrow calls the codec."""
PACKED_ENDINGS = (".gz", ".bz2", ".zst", ".zstd", ".xz", ".lz4", ".zip")
BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
SPREADSHEETS = {"xl/workbook.xml", "xl/workbook.bin", "content.xml"}
"""Members of spreadsheets, which are zip archives."""


@dataclass(frozen=True)
class Container:
    """A file whose packing and encoding are known.

    Attributes:
        file: The file.
        stem: Its name without the ending of its packing.
        packing: How it is packed: a codec of Arrow, xz or zip; empty if it is not packed.
        head: Its first bytes, unpacked.
        encoding: Encoding of its text.
    """

    file: SourceFile
    stem: str
    packing: str
    head: bytes
    encoding: str

    @property
    def name(self) -> str:
        """The last part of the file's name, for messages about rows."""
        return PurePosixPath(self.file.name.replace("\\", "/")).name

    @property
    def text_head(self) -> str:
        """The beginning of its text without a byte order mark."""
        return self.head.decode(self.encoding, "replace").removeprefix("\ufeff")

    def stream(self) -> pa.NativeFile:
        """Return a new stream of the unpacked bytes."""
        return _unpacked(self.file, self.packing)

    def text(self) -> pa.NativeFile:
        """Return a new stream of the text in UTF-8 without a byte order mark."""
        stream = self.stream()
        if self.encoding == "utf-8":
            if self.head.startswith(codecs.BOM_UTF8):
                stream.read(len(codecs.BOM_UTF8))
            return stream
        return pa.transcoding_input_stream(stream, self.encoding, "utf-8")


def open_container(file: SourceFile, encoding: str | None, notes: list[str]) -> Container:
    """Find out how a file is packed and encoded.

    Args:
        file: The file.
        encoding: Encoding that the config declares.
        notes: Gets a sentence if the text is UTF-16 or UTF-32.

    Raises:
        DataError: If the file is empty or damaged, or the encoding does not exist.
    """
    with reading(file.name):
        start = file.open().read(16)
        packing = next((name for magic, name in PACKED.items() if start.startswith(magic)), "")
        packing = "" if packing == "zip" and _is_spreadsheet(file) else packing
        head = _unpacked(file, packing).read(HEAD)
    if not head:
        raise DataError(Fault(file.name, "this file is empty.", kind="empty data"))
    stem = file.name
    if packing and stem.lower().endswith(PACKED_ENDINGS):
        stem = stem[: stem.rindex(".")]
    if packing == "zip":
        stem = _member(file).filename
    found = _codec(encoding, file.name) if encoding is not None else _detected(head)
    if encoding is None and found != "utf-8":
        notes.append(f"{file.name} is read as {found.upper()}.")
    return Container(file, stem, packing, head, found)


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn errors of reading and unpacking into DataError. name: The file."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(Fault(name, "there is no such file.", "Check the path.", "no file")) from None
    except (pa.ArrowException, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise DataError(Fault(name, f"cannot be unpacked: {reason}.", "Pack or copy it again.", "unreadable")) from None
    except OSError as error:
        reason = (error.strerror or str(error)).splitlines()[0].rstrip(".")
        raise DataError(Fault(name, f"cannot be read: {reason}.", kind="unreadable")) from None


def _unpacked(file: SourceFile, packing: str) -> pa.NativeFile:
    stream = file.open()
    if not packing:
        return stream
    if packing == "xz":
        return pa.PythonFile(lzma.open(stream), "r")
    if packing == "zip":
        return pa.PythonFile(zipfile.ZipFile(stream).open(_member(file)), "r")
    return pa.CompressedInputStream(stream, packing)


def _member(file: SourceFile) -> zipfile.ZipInfo:
    """Return the only file of a zip archive. Raises DataError if there are several."""
    members = [one for one in zipfile.ZipFile(file.open()).infolist() if not one.is_dir()]
    members = [one for one in members if not one.filename.startswith("__MACOSX/")]
    if len(members) != 1:
        names = ", ".join(one.filename for one in members[:5]) or "nothing"
        what = f"a zip archive is read if it holds one file; found {names}."
        raise DataError(Fault(file.name, what, "Unpack it.", "format"))
    return members[0]


def _is_spreadsheet(file: SourceFile) -> bool:
    return bool(SPREADSHEETS & set(zipfile.ZipFile(file.open()).namelist()))


def _codec(encoding: str, name: str) -> str:
    try:
        return codecs.lookup(encoding).name
    except LookupError:
        hint = "Write it like latin-1, cp1252, utf-16 or shift_jis."
        raise DataError(Fault(name, f"there is no encoding '{encoding}'.", hint, "encoding")) from None


def _detected(head: bytes) -> str:
    """Return the encoding by the byte order mark, or by the zero bytes of UTF-16 without one; otherwise UTF-8."""
    for mark, name in BOMS:
        if head.startswith(mark):
            return name
    sample = head[:4096]
    if len(sample) >= 4:
        if not sample[0] and sample[1] and sample[1::2].count(0) * 20 < len(sample) < sample[::2].count(0) * 3:
            return "utf-16-be"
        if sample[0] and not sample[1] and sample[::2].count(0) * 20 < len(sample) < sample[1::2].count(0) * 3:
            return "utf-16-le"
    return "utf-8"
