"""Files and folders written whole or not at all, and their hashes."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary path to write to; when the block ends it is synced and takes the place of `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(place: Path, last: str) -> Iterator[Path]:
    """A temporary folder to fill; when the block ends it is synced and takes the place of `place`.

    last: the file that is written last, which says that the rest is there. Where a crash strikes between the two renames,
    `place` is gone and a whole folder lies beside: `find_folder` finds it.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    _clear(place, last)
    new, old = (place.with_name(f".{place.name}.{state}-{os.getpid()}") for state in ("writing", "old"))
    new.mkdir()
    try:
        yield new
        for path in sorted([new, *new.rglob("*")], key=lambda path: path.name == last):
            _sync(path)
        if place.exists():
            place.rename(old)
        try:
            new.rename(place)
        except OSError:
            old.rename(place)
            raise
        _sync(place.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def find_folder(place: Path, last: str) -> Path | None:
    """The folder that `atomic_folder` wrote, or would have put there next."""
    if (place / last).is_file():
        return place
    if not place.exists():
        for state in ("writing", "old"):
            for whole in sorted(place.parent.glob(f".{place.name}.{state}-*/{last}")):
                return whole.parent
    return None


def _clear(place: Path, last: str) -> None:
    """Put back what a crash left between two renames, and take away what else it left."""
    found = find_folder(place, last)
    if found is not None and found != place:
        found.rename(place)
    for state in ("writing", "old"):
        for folder in place.parent.glob(f".{place.name}.{state}-*"):
            shutil.rmtree(folder, ignore_errors=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
