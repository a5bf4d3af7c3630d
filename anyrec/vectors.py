"""A disk cache of vectors that are costly to compute: one row for each distinct value under one set of parameters."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from anyrec.errors import OutputError
from anyrec.files import atomic_write


def cache_folder(given: Path | None = None) -> Path:
    """`given`, else `ANYREC_CACHE`, else the user's cache folder."""
    if given is not None:
        return given
    if "ANYREC_CACHE" in os.environ:
        return Path(os.environ["ANYREC_CACHE"])
    return Path.home() / ".cache" / "anyrec"


def digest_of(value: bytes) -> bytes:
    return hashlib.blake2b(value, digest_size=16).digest()


def cached_vectors(
    keys: Sequence[bytes], parameters: str, compute: Callable[[list[int]], Tensor], folder: Path | None = None
) -> Tensor:
    """(keys, dim) float32: read where known, computed for the rest, and kept for the next time.

    keys: 16-byte digests of the values. parameters: whatever else decides the result; another text, another file.
    compute: places in `keys`, without repeats, -> their rows. A damaged cache file is made anew.
    """
    path = cache_folder(folder) / f"{hashlib.sha256(parameters.encode()).hexdigest()[:24]}.safetensors"
    wanted = np.frombuffer(b"".join(keys), np.uint64).reshape(-1, 2).copy().view("u8,u8").reshape(-1)
    distinct, first, place = np.unique(wanted, return_index=True, return_inverse=True)
    known_keys, known_rows = _read(path)
    spot = np.searchsorted(known_keys, distinct) if len(known_keys) else np.zeros(len(distinct), np.int64)
    found = np.zeros(len(distinct), bool)
    if len(known_keys):
        found = known_keys[np.minimum(spot, len(known_keys) - 1)] == distinct
    if not found.all():
        fresh = compute(first[~found].tolist()).float().cpu()
        rows = fresh if known_rows is None else torch.cat([known_rows, fresh])
        all_keys = np.concatenate([known_keys, distinct[~found]])
        order = np.argsort(all_keys)
        known_keys, known_rows = all_keys[order], rows[torch.from_numpy(order)]
        _write(path, known_keys, known_rows)
        spot = np.searchsorted(known_keys, distinct)
    if known_rows is None:
        return torch.zeros(0, 0)
    return known_rows[torch.from_numpy(spot[place])]


def _read(path: Path) -> tuple[np.ndarray, Tensor | None]:
    empty = np.empty(0, "u8,u8")
    if not path.is_file():
        return empty, None
    try:
        stored = load_file(path)
        keys = stored["keys"].numpy().view(np.uint64).view("u8,u8").reshape(-1)
        return (keys, stored["rows"]) if len(keys) == len(stored["rows"]) else (empty, None)
    except (SafetensorError, KeyError, OSError, ValueError):
        return empty, None


def _write(path: Path, keys: np.ndarray, rows: Tensor) -> None:
    """A cache that cannot be written (a full or read-only disk) is only slower."""
    try:
        with atomic_write(path) as temporary:
            integers = torch.from_numpy(np.ascontiguousarray(keys).view(np.int64).reshape(-1, 2).copy())
            save_file({"keys": integers, "rows": rows.contiguous()}, temporary)
    except OutputError:
        return
