"""A disk cache of vectors that are expensive to compute: one row for each distinct value and set of parameters.

New rows are written to a new file, merged with the files that are not larger. If n values come one by one, there are
about log2(n) files, and each value is rewritten at most log2(n) times.
"""

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

from anyrec.core.errors import OutputError
from anyrec.core.files import atomic_write

KEY = "u8,u8"


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
    """Read vectors from the cache; compute those that it does not have, and add them.

    Args:
        keys: 16-byte digests of the values.
        parameters: A text with everything else that determines the vectors.
        compute: Takes distinct positions in `keys` and returns their vectors, (positions, dim).
        folder: Folder of the cache; by default that of `cache_folder`.

    Returns:
        (keys, dim) float32.
    """
    wanted = np.frombuffer(b"".join(keys), np.uint64).reshape(-1, 2).copy().view(KEY).reshape(-1)
    distinct, first, place = np.unique(wanted, return_index=True, return_inverse=True)
    name = hashlib.sha256(parameters.encode()).hexdigest()[:24]
    kept = {path: _read(path) for path in sorted(cache_folder(folder).glob(f"{name}*.safetensors"))}
    missing, places, parts = np.arange(len(distinct)), [], []
    for known, rows in kept.values():
        spot = np.searchsorted(known, distinct[missing])
        found = np.append(known, np.zeros(1, KEY))[spot] == distinct[missing]
        found &= spot < len(known)
        if found.any():
            places.append(missing[found])
            parts.append(rows[torch.from_numpy(spot[found])])
            missing = missing[~found]
    if len(missing):
        fresh = compute(first[missing].tolist()).float().cpu()
        places.append(missing)
        parts.append(fresh)
        _add(cache_folder(folder), name, distinct[missing], fresh, kept)
    if not parts:
        return torch.zeros(0, 0)
    return torch.cat(parts)[torch.from_numpy(np.argsort(np.concatenate(places))[place])]


def _add(folder: Path, name: str, keys: np.ndarray, rows: Tensor, kept: dict[Path, tuple[np.ndarray, Tensor]]) -> None:
    """Write new rows, merged with the files that are not larger. Without write access (full or read-only disk) nothing
    happens.

    Args:
        folder: Folder of the cache.
        name: Start of the file name, which stands for the parameters.
        keys: (rows,) ascending.
        rows: (rows, dim).
        kept: Keys and rows of each existing file.
    """
    merged = []
    for path, (known, values) in sorted(kept.items(), key=lambda one: len(one[1][0])):
        if len(known) > len(keys):
            break
        if len(known):
            keys, unique = np.unique(np.concatenate([keys, known]), return_index=True)
            rows = torch.cat([rows, values])[torch.from_numpy(unique)]
        merged.append(path)
    target = folder / f"{name}-{digest_of(keys.tobytes()).hex()}.safetensors"
    try:
        with atomic_write(target) as temporary:
            integers = torch.from_numpy(keys.view(np.int64).reshape(-1, 2).copy())
            save_file({"keys": integers, "rows": rows.contiguous()}, temporary)
        for path in merged:
            if path != target:
                path.unlink(missing_ok=True)
    except (OutputError, OSError):
        return


def _read(path: Path) -> tuple[np.ndarray, Tensor]:
    """The keys of a file, ascending, and their rows; none if the file is damaged or was just merged into another."""
    try:
        stored = load_file(path)
        keys = stored["keys"].numpy().view(np.uint64).view(KEY).reshape(-1)
        if len(keys) == len(stored["rows"]):
            return keys, stored["rows"]
    except (SafetensorError, KeyError, OSError, ValueError):
        pass
    return np.empty(0, KEY), torch.zeros(0, 0)
