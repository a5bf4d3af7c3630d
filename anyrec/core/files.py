"""Files and folders that are written completely or not at all, locks on them, and their hashes.

A writer fills a hidden workspace in the folder of its target, `.NAME.writing-PID-N`, and holds a lock on it until it
ends. A workspace without a lock is the leftover of a dead process. The next writer of the same target removes it, after
completing a replacement that the dead process had begun.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import glob
import hashlib
import itertools
import json
import os
import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from anyrec.core.errors import Fault, OutputError
from anyrec.core.outputs import is_stream, output_errors
from anyrec.core.types import Json, JsonObject

NEW, OLD, READY = "new", "old", "ready"
"""Names in a workspace: the new version, the old version, and the mark that all files of a group are complete."""
EXCHANGE = 2
"""RENAME_EXCHANGE of renameat2(2)."""
LONGEST = 200
"""Maximum number of bytes of a target's name in the name of its workspace. File names have at most 255 bytes."""

_count = itertools.count()
_held: dict[Path, int] = {}
"""Identifier of the thread of this process that holds each folder by `exclusive`."""


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to. When the block ends, the file is synced and replaces `path`.

    A device, a pipe or /dev/stdout is written to directly; a symbolic link is followed.

    Raises:
        OutputError: `path` cannot be written. The old file is untouched and nothing is left behind.
    """
    with output_errors(path):
        if is_stream(path):
            yield path
            return
        target = _real(path)
        with _workspace(target) as folder:
            temporary = folder / target.name
            yield temporary
            _finish(temporary, folder)
            os.replace(temporary, target)


@contextmanager
def atomic_files(folder: Path, name: str) -> Iterator[Path]:
    """Yield a temporary folder. When the block ends, its files replace the files of the same paths in `folder`, as one
    unit.

    Other files in `folder` stay. If the process is killed while it replaces the files, the next writer of the group
    completes the replacement.

    Args:
        folder: The folder; created if it is missing.
        name: Name of the group. Writers of the same group in the same folder exclude each other.

    Raises:
        OutputError: A file cannot be written, or another process is writing the group.
    """
    target = _real(folder) / name
    with output_errors(folder), exclusive(target), _workspace(target) as workspace:
        new = workspace / NEW
        new.mkdir()
        yield new
        _sync_tree(new)
        (workspace / READY).touch()
        sync(workspace)
        _move_files(new, target.parent)
        sync(target.parent)


@contextmanager
def atomic_folder(place: Path, last: str) -> Iterator[Path]:
    """Yield a temporary folder to fill. When the block ends, it is synced and replaces `place`.

    Args:
        place: The folder to write.
        last: The file whose presence shows that all others are complete.

    Raises:
        OutputError: The folder cannot be written, or another process is writing it. The old folder is untouched.
    """
    place = _real(place)
    with output_errors(place), exclusive(place), _workspace(place) as workspace:
        new, old = workspace / NEW, workspace / OLD
        new.mkdir()
        yield new
        _sync_tree(new, last)
        _replace_folder(new, place, old)
        sync(place.parent)


def find_folder(place: Path, last: str) -> Path | None:
    """Find the folder that `atomic_folder` wrote at `place`. A replacement that a dead process had begun is completed
    first.

    A folder that was removed stays removed: a complete copy counts only if its writer had already moved the old folder
    away.

    Args:
        place: The folder.
        last: The file whose presence shows that all others are complete.

    Returns:
        `place`, or the complete copy in a workspace if there is no permission to move it; None if there is neither.
    """
    if (place / last).is_file():
        return place
    if place.name and not place.exists():
        for workspace in _workspaces(place):
            if (workspace / OLD).is_dir() and (workspace / NEW / last).is_file():
                with suppress(OSError):
                    _clear(workspace, place)
                return place if (place / last).is_file() else workspace / NEW
    return None


@contextmanager
def exclusive(place: Path) -> Iterator[None]:
    """Lock `place` within the block, so that no other process or thread writes it. A lock of a dead process is ignored.

    Raises:
        OutputError: Another process has the lock; the message names the process.
    """
    place, thread = _real(place), threading.get_ident()
    if _held.get(place) == thread:
        yield
        return
    path = _hidden(place, "lock")
    with _parents(place):
        with output_errors(place):
            handle = _locked_file(path, place)
        _held[place] = thread
        try:
            yield
        finally:
            del _held[place]
            path.unlink(missing_ok=True)
            os.close(handle)


def json_object(path: Path) -> JsonObject:
    """Return the JSON object in a file; an empty one if there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def save_json(path: Path, value: Json) -> None:
    """Write a JSON document, complete or not at all. Raises OutputError."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def json_lines(path: Path) -> list[JsonObject]:
    """Return the JSON objects in the lines of a file; none if it cannot be read."""
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):
        return []


def save_json_lines(path: Path, values: Iterable[JsonObject]) -> None:
    """Write a JSON object in each line of a file, complete or not at all. Raises OutputError."""
    with atomic_write(path) as temporary:
        temporary.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _real(path: Path) -> Path:
    """`path` with its symbolic links followed. Unlike `Path.resolve`, a loop of links raises nothing here.

    Raises OutputError for the root of the file system.
    """
    found = Path(os.path.realpath(path))
    if not found.name:
        raise OutputError(Fault(str(path), "this is the root of the file system.", "Name a path in it.", "output"))
    return found


def _hidden(target: Path, end: str) -> Path:
    """The hidden path, in the folder of `target`, of a writer's lock or workspace. end: last part of its name."""
    name = os.fsencode(target.name)
    short = name if len(name) <= LONGEST else name[: LONGEST - 20] + hashlib.sha256(name).hexdigest()[:20].encode()
    return target.with_name(f".{os.fsdecode(short)}.{end}")


@contextmanager
def _parents(target: Path) -> Iterator[None]:
    """Create the missing parents of `target`; if the block raises, remove those that are empty."""
    missing = list(itertools.takewhile(lambda folder: not folder.exists(), target.parents))
    with output_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for folder in missing:
            try:
                folder.rmdir()
            except OSError:
                break
        raise


@contextmanager
def _workspace(target: Path) -> Iterator[Path]:
    """Clear leftovers of dead processes, and yield a new, locked workspace of `target` until the block ends."""
    with _parents(target):
        for folder in _workspaces(target):
            _clear(folder, target)
        folder, handle = _new_workspace(target)
        try:
            yield folder
        finally:
            try:
                shutil.rmtree(folder, ignore_errors=True)
            except BaseException:  # a signal that stops the process: nothing is left behind
                shutil.rmtree(folder, ignore_errors=True)
                raise
            finally:
                os.close(handle)


def _new_workspace(target: Path) -> tuple[Path, int]:
    """Create a locked workspace. Another writer can remove it before it is locked; then another one is created."""
    while True:
        folder = _hidden(target, f"writing-{os.getpid()}-{next(_count)}")
        try:
            folder.mkdir()
            handle = _lock(folder, os.O_RDONLY, unsupported=True)
        except FileExistsError:  # of a process with this number in another container
            continue
        except FileNotFoundError:
            if not target.parent.exists():
                raise
            continue
        if handle is not None:
            return folder, handle


def _workspaces(target: Path) -> list[Path]:
    """The workspaces of all writers of `target`, the newest first."""
    found = target.parent.glob(glob.escape(_hidden(target, "").name) + "writing-*")
    return sorted(filter(Path.is_dir, found), key=_changed, reverse=True)


def _changed(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0


def _clear(workspace: Path, target: Path) -> None:
    """Remove the workspace of a dead process, after completing a replacement of `target` that it had begun."""
    handle = _lock(workspace, os.O_RDONLY) if workspace.is_dir() else None
    if handle is None:
        return
    try:
        if (workspace / OLD).exists() and (workspace / NEW).exists() and not target.exists():
            (workspace / NEW).rename(target)
        elif (workspace / READY).exists():
            _move_files(workspace / NEW, target.parent)
        shutil.rmtree(workspace, ignore_errors=True)
    finally:
        os.close(handle)


def _lock(path: Path, flags: int, unsupported: bool = False) -> int | None:
    """Lock a file or folder.

    Args:
        path: The file or folder.
        flags: As for `os.open`.
        unsupported: Return a descriptor also if the file system has no locks.

    Returns:
        A descriptor that holds the lock; None if another process has it, or if the path was removed or replaced
        meanwhile.
    """
    handle = os.open(path, flags, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held = os.path.samestat(path.stat(), os.fstat(handle))
    except (BlockingIOError, FileNotFoundError):
        held = False
    except OSError:
        held = unsupported
    if held:
        return handle
    os.close(handle)
    return None


def _locked_file(path: Path, place: Path) -> int:
    """Lock the file `path` and write the number of this process into it.

    Raises:
        OutputError: A living process holds the lock of `place`.
    """
    for _ in range(10):
        handle = _lock(path, os.O_RDWR | os.O_CREAT, unsupported=True)
        if handle is not None:
            with suppress(OSError):  # on a full disk the lock holds without its owner's number
                os.ftruncate(handle, 0)
                os.write(handle, str(os.getpid()).encode())
            return handle
        owner = path.read_text() if path.exists() else ""
        if owner:
            what = f"process {owner} is writing here."
            raise OutputError(Fault(str(place), what, "Wait until it has finished, or write elsewhere.", "in use"))
        time.sleep(0.01)  # its owner has just locked or released it
    raise OutputError(Fault(str(place), "another process is writing here.", "Wait until it has finished.", "in use"))


def _replace_folder(new: Path, place: Path, old: Path) -> None:
    """Move `new` to `place`: by an atomic exchange if the file system has it, else by two renames."""
    if not place.exists():
        new.rename(place)
        return
    if _exchanged(new, place):
        return
    place.rename(old)
    try:
        new.rename(place)
    except OSError:
        old.rename(place)
        raise


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two paths atomically. Returns False if that is not possible (it is on most file systems of Linux)."""
    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError):
        return False
    here = -100  # AT_FDCWD; the paths are absolute
    return rename(here, os.fsencode(one), here, os.fsencode(other), EXCHANGE) == 0


def _move_files(new: Path, folder: Path) -> None:
    """Move each file below `new` to the same path below `folder`. Files that were moved before are not in `new`."""
    for path in sorted(path for path in new.rglob("*") if not path.is_dir()):
        target = folder / path.relative_to(new)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, target)


def _finish(path: Path, folder: Path) -> None:
    """Sync a file and give it the permissions of the umask, which `folder` was created with.

    Some libraries write files that only the owner can read.
    """
    wanted = folder.stat().st_mode & 0o666
    if path.stat().st_mode & 0o777 != wanted:
        with suppress(PermissionError):  # a file system without permissions
            path.chmod(wanted)
    sync(path)


def _sync_tree(new: Path, last: str = "") -> None:
    """Sync all files and folders below `new`, and the file `last` after the others."""
    for path in sorted(new.rglob("*"), key=lambda path: path.name == last):
        if path.is_dir():
            sync(path)
        else:
            _finish(path, new)
    sync(new)


def sync(path: Path) -> None:
    """Force a file, or the names in a folder, to the disk, if the file system can."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot sync a folder
            raise
    finally:
        os.close(handle)
