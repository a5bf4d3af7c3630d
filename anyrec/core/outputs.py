"""Whether an output can be written: checks before any work starts, and errors of the system as faults."""

from __future__ import annotations

import errno
import os
import re
import resource
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from anyrec.core.errors import AnyrecError, Fault, OutputError

ELSEWHERE = "or write elsewhere."
CAUSES = {
    errno.ENOSPC: ("the disk is full", f"Free some space, {ELSEWHERE}"),
    errno.EDQUOT: ("the disk quota is used up", f"Free some space, {ELSEWHERE}"),
    errno.EFBIG: ("a file is not allowed to become that large", f"Raise the limit (ulimit -f), {ELSEWHERE}"),
    errno.EACCES: ("this process has no permission to write here", f"Change the permissions, {ELSEWHERE}"),
    errno.EPERM: ("this process has no permission to write here", f"Change the permissions, {ELSEWHERE}"),
    errno.EROFS: ("this file system is read-only", f"Mount it for writing, {ELSEWHERE}"),
    errno.EISDIR: ("this is a folder; a file is expected", "Name a file."),
    errno.ENOTDIR: ("a part of this path is a file, so nothing can be written inside it", "Name another path."),
    errno.EEXIST: ("a part of this path is a file, so nothing can be written inside it", "Name another path."),
    errno.ENAMETOOLONG: ("this name is too long for the file system", "Use a shorter name."),
    errno.ELOOP: ("this path is a loop of symbolic links", "Name another path."),
    errno.EIO: ("the disk reports an input/output error", f"Check the disk, {ELSEWHERE}"),
    errno.EPIPE: ("its reader has closed it", "Keep the reader open until everything is written."),
    errno.EBUSY: ("the system is using this path, for example as a mount point", "Name a path inside it."),
}
"""Cause and fix for each error number."""
OF_WRITES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EPIPE)
"""Errors that only writing raises. They are about an output even if they name no file."""
NEARLY_FULL = 1 << 16
"""Bytes. If a library fails to write without a reason and less than this is free, the disk is taken to be full."""


def is_stream(path: Path) -> bool:
    """Return True for a path that is written to directly: a device, pipe, socket, or descriptor (/dev/stdout)."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    folder = os.path.realpath(path.parent)
    named_descriptor = folder == "/dev" or (folder.startswith("/proc/") and folder.endswith("/fd"))
    return not stat.S_ISDIR(mode) and (not stat.S_ISREG(mode) or named_descriptor)


def check_output(path: Path, kind: Literal["file", "folder", "inside"] = "file") -> None:
    """Check that an output can be written, before the work starts. Nothing is created.

    Args:
        path: Path of the output. Missing parents are allowed.
        kind: `file`; `folder`, which is replaced as a whole; or `inside`, a folder that files are written into.

    Raises:
        OutputError: It cannot be written.
    """
    if "\0" in str(path):
        raise OutputError(Fault(repr(str(path)), "a path cannot hold a NUL character.", "Name another path.", "output"))
    real = Path(os.path.realpath(path))
    with output_errors(path):
        mode = _mode(real)
        if is_stream(path) and kind == "file":
            if not os.access(path, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(real))
            return
        if kind == "file" and mode is not None and stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(real))
        if kind == "folder" and real == real.parent:
            raise OutputError(Fault(str(path), "this is the root of the file system.", "Name a folder.", "output"))
        if kind != "file" and mode is not None and not stat.S_ISDIR(mode):
            raise OutputError(Fault(str(path), "this is a file; a folder is expected.", "Name a folder.", "output"))
        place = real if kind == "inside" else real.parent
        while _mode(place) is None and place != place.parent:
            place = place.parent
        try:
            with tempfile.TemporaryFile(dir=place) as probe:
                probe.write(b"\0")
                probe.flush()
        except OSError as error:
            error.filename = str(real)
            raise


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Convert errors of writing `path` within the block to OutputError. Other errors pass unchanged."""
    try:
        yield
    except AnyrecError:
        raise
    except Exception as error:
        fault = write_fault(error, path)
        if fault is None:
            raise
        raise OutputError(fault) from error


def write_fault(error: Exception, path: Path) -> Fault | None:
    """Convert an error to a fault of an output.

    Libraries report a failed write in their own exceptions, so the error number is also searched in the message.

    Args:
        error: The error.
        path: The output.

    Returns:
        The fault; None if the error is not about the output.
    """
    number = error.errno if isinstance(error, OSError) else None
    if number is None:
        number = _number_in(str(error))
    if number is None and isinstance(error, (OSError, RuntimeError)) and not is_stream(path):
        number = errno.ENOSPC if _free(path) < NEARLY_FULL else None
    named = error.filename if isinstance(error, OSError) else None
    ours = number in OF_WRITES if named is None else _belongs(named, path)
    if number is None or not ours:
        return None
    cause, hint = CAUSES.get(number, (f"this cannot be written ({os.strerror(number)})", "Name another path."))
    if number == errno.ENOSPC and not is_stream(path):
        cause += f" ({_free(path):,} bytes are free)"
    if number == errno.EFBIG:
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        cause += "" if limit == resource.RLIM_INFINITY else f" (the limit is {limit:,} bytes)"
    return Fault(str(path), f"{cause}.", hint, "output")


def _mode(path: Path) -> int | None:
    """The mode of a path; None if it does not exist."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None


def _number_in(text: str) -> int | None:
    """The error number that a message contains or describes."""
    found = re.search(r"\b(?:os error|errno) (\d+)", text, re.IGNORECASE)
    if found:
        return int(found[1])
    return next((number for number in OF_WRITES if os.strerror(number).lower() in text.lower()), None)


def _belongs(name: str | bytes | int, path: Path) -> bool:
    """Return True if the file `name` of an error is the output, a folder above it, or in its hidden workspace."""
    if isinstance(name, int):
        return False
    found, real = Path(os.path.realpath(os.fsdecode(name))), Path(os.path.realpath(path))
    if real.is_relative_to(found):
        return True
    below = found.relative_to(real.parent).parts if found.is_relative_to(real.parent) else ("",)
    return below[0] == real.name or below[0].startswith(f".{real.name[:50]}")


def _free(path: Path) -> int:
    """The free bytes of the file system of `path`."""
    for place in (path, *Path(os.path.realpath(path)).parents):
        try:
            return shutil.disk_usage(place).free
        except OSError:
            continue
    return NEARLY_FULL
