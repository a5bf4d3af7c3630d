"""The manifest of a model or an index: the files that belong to it, with the sha256 of each. No other file is read.

A folder is replaced as a whole (`anyrec.core.files.atomic_folder`). `read_version` returns one whole version to a
reader, even if a writer replaces the folder meanwhile.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeVar

from anyrec.core.errors import Fault, ModelError
from anyrec.core.files import sha256_of
from anyrec.core.types import JsonObject

if TYPE_CHECKING:
    from torch import Tensor

Value = TypeVar("Value")
MANIFEST = "manifest.json"
MODEL, INDEX = "config.json", "ids.arrow"
"""The file that only a model has, and the file that only an index has."""
MOST_BYTES = 64 << 20
"""Largest manifest or state file that is parsed, in bytes."""
DEEPEST = 6
"""Maximum levels of folders below the manifest."""
ATTEMPTS = 20
"""Maximum number of attempts to read a folder that is being replaced."""
PAUSE = 0.02
"""Seconds before the next attempt: a replacement takes two renames."""
AT_ONCE = 2
"""Attempts to read the folder in place. If the writer is faster than the reader, later attempts use `_held_open`."""
OPEN_FILES = Path("/proc/self/fd")
"""Where Linux names the open files of this process."""
STRAY = {".DS_Store", "Thumbs.db", "desktop.ini"}
"""Files that desktop programs write into every folder that they show."""

_held: dict[Path, tuple[set[str], list[Fault]]] = {}
"""Folders of `_held_open`, and what `files_below` found where their files are."""


class Manifest:
    """A parsed manifest, which keeps its file open.

    Args:
        folder: Folder to read files from.
        hint: How to fix a damaged folder, for errors.
        place: The folder as the user knows it, if it is not `folder`.

    Attributes:
        document: Its JSON object.
        folder: Folder to read files from.
        place: The folder as the user knows it.

    Raises:
        ModelError: The file is missing or not a JSON object.
    """

    def __init__(self, folder: Path, hint: str, place: Path | None = None):
        self.folder, self.hint, self.place = folder, hint, place or folder
        self._bytes, self._file = _read_open(folder / MANIFEST, hint)
        self.document: JsonObject = {}
        try:
            self.document = parse_object(self._bytes, folder / MANIFEST, hint)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Manifest:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    @property
    def is_current(self) -> bool:
        """True if the folder still has this manifest. Since its file is open, no other file can get its inode."""
        if self.folder in _held:
            return True
        path = self.folder / MANIFEST
        try:
            return os.path.samestat(os.fstat(self._file), path.stat()) and path.read_bytes() == self._bytes
        except OSError:
            return False

    def check(self, kinds: Mapping[str, type | tuple[type, ...]], elsewhere: Iterable[str] = ()) -> JsonObject:
        """Check the manifest and all files of the folder.

        Args:
            kinds: The type of each required key; `files` is always required.
            elsewhere: Subfolders whose files another manifest lists, or that are a cache.

        Returns:
            The document.

        Raises:
            ModelError: With all faults: keys that are missing or have another type; files that are missing, changed,
                not listed, not regular, or outside the folder.
        """
        kinds = {**kinds, "files": dict}
        faults = [
            Fault(f"{self.folder / MANIFEST}#/{key}", "this is missing or of another type.", self.hint, "damaged")
            for key, kind in kinds.items()
            if not isinstance(self.document.get(key), kind) or isinstance(self.document[key], bool)
        ]
        if not faults:
            faults = self._file_faults(set(elsewhere))
        if faults:
            raise ModelError(faults)
        return self.document

    def _file_faults(self, elsewhere: set[str]) -> list[Fault]:
        files: JsonObject = self.document["files"]
        found, faults = files_below(self.folder, self.hint)
        for name, digest in files.items():
            path = self.folder / name
            if not is_inside(name):
                what = f"the manifest lists {name!r}, which is not a file of this folder."
                faults.append(Fault(str(self.folder / MANIFEST), what, self.hint, "damaged"))
            elif name not in found:
                faults.append(Fault(str(path), "this file is missing.", self.hint, "damaged"))
            elif sha256_of(path) != digest:
                faults.append(Fault(str(path), "this file is not the one that was saved.", self.hint, "damaged"))
        for name in sorted(found - set(files) - {MANIFEST}):
            path = PurePosixPath(name)
            if path.parts[0] in elsewhere or path.name in STRAY:
                continue
            what = "the manifest does not list this file."
            faults.append(Fault(str(self.folder / name), what, "Remove it, or copy the folder again.", "unlisted file"))
        return faults


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of those of the packages that are installed."""
    found: dict[str, str] = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def read_version(
    find: Callable[[], Path], hint: str, read: Callable[[Manifest], Value], *, attempts: int = ATTEMPTS
) -> Value:
    """Read one whole version of a folder.

    If a writer replaces the folder meanwhile, the result is discarded and the new version is read from the start.

    Args:
        find: Returns the folder; called in every attempt.
        hint: How to fix a damaged folder, for errors.
        read: Reads the folder of a manifest.
        attempts: Maximum number of attempts.

    Returns:
        What `read` returned.

    Raises:
        ModelError: The folder is missing or damaged, or is replaced faster than it can be read.
    """
    for attempt in range(attempts):
        last = attempt == attempts - 1
        with ExitStack() as stack:
            try:
                place = find()
                folder = stack.enter_context(_held_open(place, hint)) if attempt >= AT_ONCE else place
                manifest = stack.enter_context(Manifest(folder, hint, place))
            except (ModelError, OSError):
                if last or not _is_being_replaced(find):
                    raise
                continue
            try:
                value = read(manifest)
            except ModelError as error:
                if last or manifest.is_current:
                    raise _renamed(error, folder, place) from error.__cause__
            except Exception:
                if last or manifest.is_current:
                    raise
            else:
                if manifest.is_current:
                    return value
        time.sleep(PAUSE)
    what = f"it was replaced {attempts} times while it was read."
    raise ModelError(Fault(str(find()), what, "Try again when the other program has finished.", "busy"))


@contextmanager
def _held_open(place: Path, hint: str) -> Iterator[Path]:
    """Open all files of `place` and yield a folder of links to them.

    The files can be read until the block ends, even if `place` is replaced and removed. Without `/proc`, yields `place`
    itself.

    Raises:
        OSError: `place` was replaced while its files were opened.
    """
    if not OPEN_FILES.is_dir():
        yield place
        return
    with ExitStack() as stack:

        def opened(path: Path, flags: int) -> int:
            handle = os.open(path, flags | os.O_RDONLY | os.O_NONBLOCK)
            stack.callback(os.close, handle)
            return handle

        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="anyrec-"))).resolve()
        here = opened(place, os.O_DIRECTORY)
        found, faults = files_below(place, hint)
        for name in sorted(found):
            link = folder / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(OPEN_FILES / str(opened(place / name, 0)))
        if not os.path.samestat(os.fstat(here), place.stat()):
            raise OSError(errno.ESTALE, "the folder was replaced", str(place))
        _held[folder] = found, faults
        try:
            yield folder
        finally:
            del _held[folder]


def _renamed(error: ModelError, folder: Path, place: Path) -> ModelError:
    """The error, with `place` instead of `folder` in its faults."""
    here, there = str(folder), str(place)
    faults = [
        replace(one, where=one.where.replace(here, there), what=one.what.replace(here, there)) for one in error.faults
    ]
    return ModelError(faults, error.counts)


def _is_being_replaced(find: Callable[[], Path]) -> bool:
    """Return True if the folder can be found after a pause: between the two renames of a replacement it has no name."""
    time.sleep(PAUSE)
    try:
        return (find() / MANIFEST).is_file()
    except (ModelError, OSError):
        return False


def digest_of_tensors(tensors: Mapping[str, Tensor], text: str) -> str:
    """Return the sha256 of torch tensors, their names, and a text, as hexadecimal digits."""
    import torch

    digest = hashlib.sha256(text.encode())
    for name, values in sorted(tensors.items()):
        digest.update(f"\0{name}\0{values.dtype}{tuple(values.shape)}\0".encode())
        digest.update(values.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def holds(folder: Path, kind: str) -> bool:
    """Return True if a folder has a manifest and the file of its kind (MODEL, INDEX). Either file can be damaged."""
    return (folder / MANIFEST).is_file() and (folder / kind).is_file()


def files_below(folder: Path, hint: str) -> tuple[set[str], list[Fault]]:
    """Find the files below a folder.

    Args:
        folder: The folder.
        hint: How to fix a damaged folder, for the faults.

    Returns:
        Relative names of the regular files, and a fault for each other entry.
    """
    for held, (names, known) in list(_held.items()):
        if folder.is_relative_to(held):
            below = folder.relative_to(held)
            inner = {PurePosixPath(name) for name in names if PurePosixPath(name).is_relative_to(below)}
            return {name.relative_to(below).as_posix() for name in inner}, [] if below.parts else known
    found: set[str] = set()
    faults: list[Fault] = []
    root = folder.resolve()

    def visit(place: Path, depth: int) -> None:
        with os.scandir(place) as entries:
            for entry in entries:
                path = place / entry.name
                problem = _entry_fault(path, entry, root, depth)
                if problem:
                    faults.append(Fault(str(path), problem, hint, "damaged"))
                elif entry.is_dir(follow_symlinks=False):
                    visit(path, depth + 1)
                else:
                    found.add(path.relative_to(folder).as_posix())

    visit(folder, 1)
    return found, faults


def _entry_fault(path: Path, entry: os.DirEntry[str], root: Path, depth: int) -> str | None:
    """The fault of an entry of a folder; None for a regular file and for a subfolder."""
    if entry.is_dir(follow_symlinks=False):
        return None if depth < DEEPEST else "folders are nested too deeply here."
    if entry.is_symlink():
        try:
            target = path.resolve(strict=True)
        except (OSError, RuntimeError):
            return "this link leads nowhere."
        if not target.is_relative_to(root) or not target.is_file():
            return "this link leads out of the folder or to something that is not a file."
        return None
    return None if stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode) else "this is not a regular file."


def is_inside(name: str) -> bool:
    """Return True for a normal relative path to a file below a folder: without `..`, root or NUL."""
    path = PurePosixPath(name)
    plain = "\0" not in name and "\\" not in name and str(path) == name and name != "."
    return plain and not path.is_absolute() and ".." not in path.parts


def read_object(path: Path, hint: str) -> JsonObject:
    """Read a JSON object from a regular file.

    Args:
        path: The file.
        hint: How to fix a damaged file, for the error.

    Raises:
        ModelError: It is not a regular file of at most MOST_BYTES, or not a JSON object.
    """
    content, file = _read_open(path, hint)
    os.close(file)
    return parse_object(content, path, hint)


def parse_object(content: bytes, path: Path, hint: str) -> JsonObject:
    """Parse a JSON object.

    Args:
        content: The JSON text.
        path: Its file, for the error.
        hint: How to fix a damaged file, for the error.

    Raises:
        ModelError: It is no JSON object, is nested too deeply, or has an integer of thousands of digits.
    """
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        raise ModelError(Fault(str(path), "this is not valid JSON.", hint, "damaged")) from None
    if not isinstance(document, dict):
        what = f"a JSON object was expected; found a {type(document).__name__}."
        raise ModelError(Fault(str(path), what, hint, "damaged"))
    return document


def _read_open(path: Path, hint: str) -> tuple[bytes, int]:
    """The content of a regular file and its open descriptor, which the caller closes."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a FIFO must not block
    except OSError as error:
        raise ModelError(Fault(str(path), f"cannot be read: {error.strerror}.", hint, "damaged")) from None
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MOST_BYTES:
            what = f"a regular file of at most {MOST_BYTES >> 20} MiB was expected."
            raise ModelError(Fault(str(path), what, hint, "damaged"))
        parts = []
        while part := os.read(file, 1 << 20):
            parts.append(part)
        return b"".join(parts), file
    except BaseException:
        os.close(file)
        raise
