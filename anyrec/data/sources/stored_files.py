"""Files in object stores and on other file systems: single files, patterns and folders."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath

import pyarrow as pa
from fsspec.utils import glob_translate
from pyarrow.fs import FileInfo, FileSelector, FileSystem, FileType

from anyrec.core.errors import AnyrecError, DataError, Fault
from anyrec.data.sources.contract import SourceFile

WILD = re.compile(r"[*?\[]")
REFUSED = re.compile(
    r"ACCESS_DENIED|AccessDenied|INVALID_ACCESS_KEY|SIGNATURE|EXPIRED|TOKEN|HTTP status 40[13]|40[13] |Forbidden|"
    r"Unauthorized|credential|PERMISSION_DENIED|UNAUTHENTICATED|AuthorizationFailure|Anonymous|Login|Authentication",
    re.IGNORECASE,
)
UNREACHABLE = re.compile(
    r"NETWORK_CONNECTION|curlCode|resolve|connect|timed? ?out|unreachable|service not known", re.IGNORECASE
)
ABSENT = re.compile(r"NO_SUCH_BUCKET|NoSuchBucket|bucket does not exist|NOT_FOUND", re.IGNORECASE)
CREDENTIALS = {
    "s3": "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE; for public data set the provider's option "
    "anonymous to true.",
    "gs": "Set GOOGLE_APPLICATION_CREDENTIALS; for public data set the provider's option anonymous to true.",
    "az": "Set AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN.",
    "hf": "Set HF_TOKEN.",
}
"""What to do if access is refused."""


def stored_files(store: FileSystem, path: str, start: str) -> list[SourceFile]:
    """Return the files that a path, a pattern or a folder names, in the order of their names.

    Args:
        store: The file system.
        path: The path within it, without a scheme.
        start: What precedes the path in an address, for messages: s3://, ftp://host.

    Raises:
        DataError: If there is none, or the store cannot be reached or refuses access.
    """
    name, path = start + path, path.rstrip("/")
    with store_errors(name):
        if WILD.search(path):
            base = path[: WILD.search(path).start()].rpartition("/")[0]  # type: ignore[union-attr]
            matches = re.compile(glob_translate(path)).match
            found = [one for one in _below(store, base) if matches(one.path)]
            if not found:
                raise DataError(Fault(name, "no file matches this pattern.", "Check the path.", "no file"))
            return [_file(store, one, start) for one in found]
        info = store.get_file_info(path)
        if info.type == FileType.NotFound:
            raise DataError(Fault(name, "there is no such file.", "Check the path.", "no file"))
        if info.type == FileType.File:
            return [_file(store, info, start)]
        found = [one for one in _below(store, path) if not _is_hidden(one.path[len(path) :])]
        if any(f"{path}/_delta_log/" in one.path for one in _below(store, path)):
            hint = 'Set `provider` to {"type": "delta"}.'
            raise DataError(Fault(name, "this folder is a Delta table.", hint, "provider"))
        if not found:
            raise DataError(Fault(name, "this folder holds no files.", "Check the path.", "no file"))
        return [_file(store, one, start, path) for one in found]


def _below(store: FileSystem, folder: str) -> list[FileInfo]:
    """Return the files below a folder, sorted by their names."""
    found = store.get_file_info(FileSelector(folder, recursive=True, allow_not_found=True))
    return sorted((one for one in found if one.type == FileType.File), key=lambda one: one.path)


def _file(store: FileSystem, info: FileInfo, start: str, folder: str | None = None) -> SourceFile:
    """Return one file. folder: The folder whose inner folders may name partitions."""
    name = start + info.path
    inner = PurePosixPath(info.path[len(folder) :]).parts[:-1] if folder is not None else ()

    def opened() -> pa.NativeFile:
        with store_errors(name):
            return store.open_input_file(info.path)

    return SourceFile(name, opened, _version(store, info), dict(part.split("=", 1) for part in inner if "=" in part))


def _version(store: FileSystem, info: FileInfo) -> str:
    """Return the version or the tag that the store has for a file, or else its size and time."""
    with store.open_input_stream(info.path) as stream:
        known = {str(key).lower(): value for key, value in (stream.metadata() or {}).items()}
    for key in ("versionid", "generation", "etag"):
        if known.get(key):
            value = known[key]
            return f"{key} {(value.decode() if isinstance(value, bytes) else str(value)).strip(chr(34))}"
    return f"{info.size} bytes, {info.mtime_ns}"


def _is_hidden(path: str) -> bool:
    """Return whether a file, or a folder that it is in, is an auxiliary one, such as _SUCCESS and .crc files."""
    return any(part.startswith((".", "_")) for part in path.split("/"))


@contextmanager
def store_errors(name: str) -> Iterator[None]:
    """Turn errors of a file system into DataError. name: Address of a file, without secrets."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(Fault(name, "there is no such file.", "Check the path.", "no file")) from None
    except AnyrecError:
        raise
    except Exception as error:  # each file system of fsspec has errors of its own, which share no class
        if type(error).__module__ == "builtins" and not isinstance(error, (OSError, ValueError)):
            raise
        text = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        if ABSENT.search(text):
            fault = Fault(name, f"there is no such place: {text}.", "Check the address.", "no file")
        elif REFUSED.search(text):
            hint = CREDENTIALS.get(name.partition("://")[0], "Check user and password.")
            fault = Fault(name, f"access is refused: {text}.", hint, "credentials")
        elif UNREACHABLE.search(text):
            hint = "Check the address, and whether it can be reached from here."
            fault = Fault(name, f"the store cannot be reached: {text}.", hint, "unreachable")
        else:
            fault = Fault(name, f"cannot be read: {text}.", kind="unreadable")
        raise DataError(fault) from None
