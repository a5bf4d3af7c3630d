"""The bytes of a file, unpacked if packed by gzip. Archives, spreadsheets and other encodings are named."""

from __future__ import annotations

import codecs
import gzip
import json
import re
import sys
import zlib
from pathlib import Path

from anyrec.core.errors import DataError, Fault

STDIN = "-"
GZIP = b"\x1f\x8b"
FORMATS = (
    (b"PK\x03\x04", "a zip archive or a spreadsheet", "Unpack it; save a spreadsheet's sheets as CSV."),
    (b"PAR1", "a Parquet file", "Put users.parquet, items.parquet and interactions.parquet into a folder."),
    (b"ARROW1", "an Arrow file", "Write it as Parquet."),
    (b"SQLite format 3", "an SQLite database", "Export its tables as CSV."),
    (b"BZh", "packed by bzip2", "Unpack it, or pack it by gzip."),
    (b"\xfd7zXZ", "packed by xz", "Unpack it, or pack it by gzip."),
    (b"\x28\xb5\x2f\xfd", "packed by zstd", "Unpack it, or pack it by gzip."),
)
BOMS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
BINARY = re.compile(rb"[\x00-\x08\x0e-\x1a]")
"""Bytes that do not occur at the beginning of a text file."""
ONE_TABLE = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
WANTED = "a folder of users, items and interactions is wanted"
WANTED_HINT = (
    "Put users, items and interactions (.csv, .jsonl or .parquet) into a folder and give the folder; or write "
    "`anyrec init FILE...` > cfg.json, which finds what the columns of tables as they are mean."
)


def stem_and_kind(path: Path) -> tuple[str, str]:
    """Return the name without its ending, and the ending in lower case.

    The ending `.gz` is ignored: `users.csv.gz` gives ('users', '.csv').
    """
    name = path.name[: -len(".gz")] if path.name.lower().endswith(".gz") else path.name
    plain = Path(name)
    return plain.stem, plain.suffix.lower()


def refuse_one_table(path: Path) -> None:
    """Raise DataError for a file that holds a single table by its name."""
    kind = stem_and_kind(path)[1]
    if kind in ONE_TABLE and path.is_file():
        raise DataError(Fault(str(path), f"this is one table; {WANTED}.", WANTED_HINT, "one table"))


def read_bytes(path: Path) -> bytes:
    """Return a file's UTF-8 bytes without a byte order mark, unpacked if packed by gzip.

    Args:
        path: The file; `-` is standard input.

    Raises:
        DataError: If the file cannot be read, is empty or holds no UTF-8 text.
    """
    try:
        data = sys.stdin.buffer.read() if str(path) == STDIN else path.read_bytes()
        if data.startswith(GZIP):
            data = gzip.decompress(data)
    except FileNotFoundError:
        raise DataError(Fault(str(path), "there is no such file.", kind="no file")) from None
    except IsADirectoryError:
        raise DataError(Fault(str(path), "this is a folder; a file is expected.", kind="no file")) from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(Fault(str(path), f"cannot be unpacked: {error}.", "Pack it again.", "unreadable")) from None
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL byte
        reason = getattr(error, "strerror", None) or error
        raise DataError(Fault(str(path), f"cannot be read: {reason}.", kind="no file")) from None
    return as_utf8(data, path)


def as_utf8(data: bytes, path: Path) -> bytes:
    """Return the bytes of a text without a byte order mark.

    Raises:
        DataError: For an empty file, another format, and UTF-16 or UTF-32.
    """
    if not data or data.isspace():
        raise DataError(Fault(str(path), "this file is empty.", kind="empty data"))
    for start, what, hint in FORMATS:
        if data.startswith(start):
            raise DataError(Fault(str(path), f"this file is {what}, not JSON or CSV text.", hint, "format"))
    for start, name in BOMS:
        if data.startswith(start):
            raise _encoding_fault(path, name)
    if data[257:262] == b"ustar":
        raise DataError(Fault(str(path), "this file is a tar archive, not JSON or CSV text.", "Unpack it.", "format"))
    if b"\0" in data[:4] and (name := json.detect_encoding(data).upper()) != "UTF-8":
        raise _encoding_fault(path, name)
    if BINARY.search(data, 0, 512):
        raise DataError(Fault(str(path), "this file holds binary data, not JSON or CSV text.", kind="format"))
    return data.removeprefix(codecs.BOM_UTF8)


def _encoding_fault(path: Path, name: str) -> DataError:
    fault = Fault(str(path), f"this is not UTF-8 text: it looks like {name}.", "Save the file as UTF-8.", "encoding")
    return DataError(fault)


def not_utf8(data: bytes, path: Path) -> DataError:
    """Return the error of bytes that are not UTF-8, with their place and the encoding that they look like."""
    try:
        data.decode("utf-8")
        start = 0
    except UnicodeDecodeError as error:
        start = error.start
    line, column = data.count(b"\n", 0, start) + 1, start - data.rfind(b"\n", 0, start)
    where = f"{path} line {line}, byte {column}"
    what = "this is not UTF-8 text: it looks like Latin-1 (Windows-1252)."
    return DataError(Fault(where, what, "Save the file as UTF-8.", "encoding"))
