"""Adding one text to many cached vectors, and the memory of a frozen image encoder. Results: benchmarks/RESULTS.md.

python benchmarks/vector_cache.py texts --rows 400000
python benchmarks/vector_cache.py photos --rows 10000
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from anyrec.core.contracts import Context
from anyrec.core.vector_cache import cached_vectors, digest_of
from anyrec.encoders.image import Torchvision

WIDTH = 384
DISTINCT = 500
"""Distinct photos; the other names are hard links to them, so that all are read and decoded but fewer embedded."""


def texts(rows: int) -> None:
    """Fill a cache, then add single vectors."""
    with tempfile.TemporaryDirectory() as name:
        folder, made = Path(name), torch.randn(rows, WIDTH)
        keys = [digest_of(str(row).encode()) for row in range(rows + 20)]
        seconds = timed(lambda: cached_vectors(keys[:rows], "texts", lambda chosen: made[chosen], folder))
        print(f"{rows:,} vectors of {WIDTH} written in {seconds:.1f} s")
        seconds = timed(lambda: cached_vectors(keys[:rows], "texts", lambda chosen: made[chosen], folder))
        print(f"all read in {seconds:.1f} s")
        single = [
            timed(lambda key=key: cached_vectors([key], "texts", lambda _: torch.ones(1, WIDTH), folder))
            for key in keys[rows:]
        ]
        print(f"one added in {1000 * statistics.median(single):.1f} ms (median), {1000 * max(single):.1f} ms (longest)")


def photos(rows: int) -> None:
    """Embed photos of 4 megapixels by an untrained ResNet-18."""
    with tempfile.TemporaryDirectory() as name:
        folder, rng = Path(name), np.random.default_rng(0)
        for row in range(rows):
            if row < DISTINCT:
                small = Image.fromarray(rng.integers(0, 255, (15, 20, 3), np.uint8))
                small.resize((2310, 1732)).save(folder / f"{row}.jpg", quality=85)
            else:
                os.link(folder / f"{row % DISTINCT}.jpg", folder / f"{row}.jpg")
        encoder = Torchvision(Torchvision.Params(weights=None))
        encoder.context = Context(root=folder, cache=folder / "cache")
        encoder.prepare(pa.array([["0.jpg"]]))  # loads the model
        before = highest()
        seconds = timed(lambda: encoder.prepare(pa.array([[f"{row}.jpg"] for row in range(rows)])))
        print(f"{rows:,} photos in {seconds:.0f} s; highest memory {highest() - before:.2f} GiB above {before:.2f} GiB")


def highest() -> float:
    """Return the highest resident memory so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def timed(call: object) -> float:
    """Return the seconds that a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["texts", "photos"])
    parser.add_argument("--rows", type=int, default=10_000)
    asked = parser.parse_args()
    {"texts": texts, "photos": photos}[asked.action](asked.rows)
