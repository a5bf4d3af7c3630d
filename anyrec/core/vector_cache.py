"""A disk cache of vectors that are expensive to compute: one row for each distinct value and set of parameters.

Each set of parameters has two files that only grow: NAME.rows with the vectors, memory-mapped, and NAME.keys with the
digest of each vector's value. Readers take no lock. A writer locks the keys, writes vectors and then their keys after
the last complete record, and so overwrites what a killed writer left. Each record has a check sum of its vector:
vectors that a failing disk or a power failure damaged are computed again.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

RECORD = np.dtype([("low", "<u8"), ("high", "<u8"), ("check", "<u8")])
"""A record of NAME.keys: the digest and the check sum. The first record holds `MAGIC`, the dimension and 0."""
MAGIC = int.from_bytes(b"anyrec-1", "little")
BLOCK = 8192
"""Vectors that are computed, written or checked at once. If the process is killed, earlier blocks stay cached."""


def cache_folder(given: Path | None = None) -> Path:
    """Return `given` if there is one, else the folder of ANYREC_CACHE, else the user's cache folder."""
    if given is not None:
        return given
    if "ANYREC_CACHE" in os.environ:
        return Path(os.environ["ANYREC_CACHE"])
    return Path.home() / ".cache" / "anyrec"


def digest_of(value: bytes) -> bytes:
    """Return a 16-byte digest, which identifies a value in the cache."""
    return hashlib.blake2b(value, digest_size=16).digest()


def cached_vectors(
    keys: Sequence[bytes], parameters: str, compute: Callable[[list[int]], Tensor], folder: Path | None = None
) -> Tensor:
    """Read vectors from the cache; compute those that it does not have, in blocks, and add them.

    Args:
        keys: 16-byte digests of the values.
        parameters: A text with everything else that determines the vectors.
        compute: Takes distinct positions in `keys`, at most `BLOCK`, and returns their vectors, (positions, dim).
        folder: Folder of the cache; by default that of `cache_folder`.

    Returns:
        (keys, dim) float32.
    """
    digests = np.frombuffer(b"".join(keys), "<u8").reshape(-1, 2)
    order = np.lexsort((digests[:, 1], digests[:, 0]))
    ordered = digests[order]
    begins = np.append(True, (ordered[1:] != ordered[:-1]).any(1))[: len(order)]
    wanted, first = ordered[begins], order[begins]
    place = np.empty(len(order), np.int64)
    place[order] = np.cumsum(begins) - 1

    file = VectorFile(cache_folder(folder), hashlib.sha256(parameters.encode()).hexdigest()[:24])
    found, vectors = file.read(wanted)
    places, parts = [found], [vectors] if len(vectors) else []
    missing = np.setdiff1d(np.arange(len(wanted)), found, assume_unique=True)
    for block in np.split(missing, range(BLOCK, len(missing), BLOCK)) if len(missing) else ():
        fresh = compute(first[block].tolist()).float().cpu()
        if len(vectors) and fresh.shape[1] != vectors.shape[1]:  # another model of the same name wrote the files
            file.remove()
            return cached_vectors(keys, parameters, compute, folder)
        file.append(wanted[block], fresh.numpy())
        places.append(block)
        parts.append(fresh)
    if not parts:
        return torch.zeros(0, 0)
    row = np.empty(len(wanted), np.int64)
    row[np.concatenate(places)] = np.arange(len(wanted))
    return torch.cat(parts)[torch.from_numpy(row[place])]


class VectorFile:
    """The vectors of one set of parameters."""

    def __init__(self, folder: Path, name: str):
        """
        Args:
            folder: Folder of the cache, which need not exist.
            name: Start of the names of the files.
        """
        self.keys, self.rows = folder / f"{name}.keys", folder / f"{name}.rows"
        for old in sorted(folder.glob(f"{name}*.safetensors")):  # of earlier versions
            self._take_over(old)

    def read(self, wanted: np.ndarray) -> tuple[np.ndarray, Tensor]:
        """Read vectors.

        Args:
            wanted: (wanted, 2) uint64 distinct digests, ascending.

        Returns:
            (found,) the positions in `wanted` of those that are there, and (found, dim) float32.
        """
        records, rows = self._map()
        low = records["low"]
        spot = np.minimum(np.searchsorted(wanted[:, 0], low), len(wanted) - 1) if len(wanted) else low
        same = np.flatnonzero(wanted[spot, 0] == low) if len(wanted) else np.empty(0, np.int64)
        same = same[wanted[spot[same], 1] == records["high"][same]]
        last = np.full(len(wanted), -1)
        last[spot[same]] = same  # a vector that was computed again comes later
        found = np.flatnonzero(last >= 0)
        vectors = np.empty((len(found), rows.shape[1]), np.float32)
        intact = np.ones(len(found), bool)
        for start in range(0, len(found), BLOCK):
            block = slice(start, start + BLOCK)
            vectors[block] = rows[last[found[block]]]
            intact[block] = _checks(wanted[found[block]], vectors[block]) == records["check"][last[found[block]]]
        if not intact.all():
            found, vectors = found[intact], vectors[intact]
        return found, torch.from_numpy(vectors)

    def append(self, digests: np.ndarray, rows: np.ndarray) -> None:
        """Add vectors at the end. Without write access (full or read-only disk) nothing happens.

        Args:
            digests: (rows, 2) uint64.
            rows: (rows, dim) float32.
        """
        records = np.zeros(len(digests), RECORD)
        records["low"], records["high"], records["check"] = digests[:, 0], digests[:, 1], _checks(digests, rows)
        head = np.array([(MAGIC, rows.shape[1], 0)], RECORD)
        with suppress(OSError):
            self.keys.parent.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(self.keys, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as keys:
                fcntl.flock(keys, fcntl.LOCK_EX)
                there = max(1, os.fstat(keys.fileno()).st_size // RECORD.itemsize)
                found = keys.read(RECORD.itemsize)
                if len(found) == RECORD.itemsize and found != head.tobytes():
                    self.remove()  # damaged; the next vectors begin new files
                    return
                keys.seek(0)
                keys.write(head.tobytes())
                with os.fdopen(os.open(self.rows, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as file:
                    file.seek((there - 1) * rows.shape[1] * 4)
                    file.write(np.ascontiguousarray(rows, "<f4").data)
                keys.seek(there * RECORD.itemsize)
                keys.write(records.tobytes())

    def remove(self) -> None:
        """Remove the files. Processes that have them mapped keep what they read."""
        for path in (self.keys, self.rows):
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def _map(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (records,) the complete records, and (records, dim) their vectors, memory-mapped; none if damaged."""
        with suppress(OSError, ValueError):
            records = np.fromfile(self.keys, RECORD)
            if len(records) > 1 and int(records["low"][0]) == MAGIC:
                dim = int(records["high"][0])
                count = min(len(records) - 1, os.path.getsize(self.rows) // (4 * dim))
                return records[1 : count + 1], np.memmap(self.rows, "<f4", "r", shape=(count, dim))
        return np.empty(0, RECORD), np.empty((0, 0), np.float32)

    def _take_over(self, path: Path) -> None:
        """Move the vectors of a file of an earlier version into these files."""
        with suppress(SafetensorError, KeyError, OSError, ValueError):
            stored = load_file(path)
            digests, rows = stored["keys"].numpy().view(np.uint64), stored["rows"].numpy()
            if len(digests) == len(rows) and len(rows):
                self.append(digests, rows)
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _checks(digests: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return (rows,) uint64 check sums. digests: (rows, 2) uint64. rows: (rows, dim) float32."""
    words = np.ascontiguousarray(rows, "<f4").view("<u4")
    weights = 2 * np.arange(words.shape[1], dtype=np.uint64) + 1
    sums = [words[start : start + BLOCK].astype(np.uint64) @ weights for start in range(0, len(words), BLOCK)]
    return np.concatenate(sums) + digests[:, 0] + 3 * digests[:, 1] if sums else np.empty(0, np.uint64)
