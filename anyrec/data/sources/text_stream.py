"""The UTF-8 text of a file as a Python stream that checks and counts what passes through it."""

from __future__ import annotations

import codecs
import io
from typing import Any

from anyrec.core.errors import DataError, Fault
from anyrec.data.sources.unpack import Container

MARK = "\x1f"
"""Replaces a separator of several characters: the ASCII unit separator, which no text holds."""
CHUNK = 1 << 22
LIKELY = "cp1252"
"""The encoding of most texts of one byte for each character."""


class CheckedText(io.RawIOBase):
    """The text of a file.

    Attributes:
        lines: Line ends so far.
        quotes: Whether there was a double quote.
    """

    def __init__(self, file: Container, separator: str = ""):
        super().__init__()
        self.lines, self.quotes = 0, False
        self._stream = file.text()
        self._separator = separator.encode() if len(separator) > 1 else b""
        self._check = codecs.getincrementaldecoder("utf-8")()
        self._kept = b""

    def readable(self) -> bool:
        """Return True, as streams that are read do."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes, or all. Raises UnicodeDecodeError for bytes that are not UTF-8."""
        if size < 0:
            return b"".join(iter(lambda: self.read(CHUNK), b""))
        data = self._stream.read(size)
        self._check.decode(data, final=not data)
        if self._separator:
            data = self._replaced(data)
        self.lines += data.count(b"\n")
        self.quotes = self.quotes or b'"' in data
        return data

    def readinto(self, buffer: Any) -> int:  # a buffer, whose type has a name from Python 3.12 on
        """Read into a buffer and return the number of bytes."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def _replaced(self, data: bytes) -> bytes:
        """Replace the separator, also if it is cut in two between this part and the next."""
        data, self._kept = self._kept + data, b""
        for length in range(len(self._separator) - 1, 0, -1):
            if data.endswith(self._separator[:length]) and len(data) > length:
                data, self._kept = data[:-length], data[-length:]
                break
        return data.replace(self._separator, MARK.encode())


def not_text(file: Container) -> DataError:
    """Return the error of bytes that are not in a file's encoding, with their line and their place in it."""
    line, column = 1, 1
    stream = file.text() if file.encoding == "utf-8" else file.stream()
    check = codecs.getincrementaldecoder(file.encoding)()
    while chunk := stream.read(CHUNK):
        end = len(chunk)
        try:
            check.decode(chunk)
        except UnicodeDecodeError as error:
            end = max(0, error.start - (len(error.object) - len(chunk)))  # a cut character is kept for the next chunk
        line += chunk.count(b"\n", 0, end)
        last = chunk.rfind(b"\n", 0, end)
        column = column + end if last < 0 else end - last
        if end < len(chunk):
            break
    where = f"{file.name} line {line}, byte {column}"
    if file.encoding != "utf-8":
        what = f"this is not {file.encoding.upper()} text."
        hint = "Set format.encoding of data.sources to the encoding of the file."
        return DataError(Fault(where, what, hint, "encoding"))
    what = "this is not UTF-8 text: it looks like Latin-1 (Windows-1252)."
    hint = f'Save the file as UTF-8, or set format.encoding of data.sources to "{LIKELY}" or to the right encoding.'
    return DataError(Fault(where, what, hint, "encoding"))
