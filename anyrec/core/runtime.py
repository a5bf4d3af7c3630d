"""Settings and random state of the whole process: the only module that changes them.

`anyrec` on the command line owns its process: `own_process` sets what makes training faster, once. In a program that
imports anyrec as a library, nothing is set at import; training borrows what can be given back (`training_memory`), and
random generators are as they were before each call (`seeded`). ANYREC_PROCESS_SETTINGS=0 switches all settings off.
"""

from __future__ import annotations

import ctypes
import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SWITCH = "ANYREC_PROCESS_SETTINGS"
TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8
KEPT = 1 << 30
"""Bytes that may stay free at the top of the heap."""
LARGEST = 32 << 20
"""Bytes of the largest block that glibc takes from its heap; larger ones go to the system."""
USUAL = {MMAP_THRESHOLD: LARGEST, TRIM_THRESHOLD: 2 * LARGEST}
"""What glibc arrives at by itself once a block of LARGEST bytes was freed, which training does."""

_owned = False


def own_process() -> None:
    """Set what makes training faster for the rest of the process; for programs that are anyrec alone, before torch is imported.

    - torch asks for huge pages of 2 MB: finding pages of 4 KB took a tenth of a training step (benchmarks/RESULTS.md). It
      reads the variable when it makes its first tensor.
    - glibc keeps freed memory (`training_memory`), with one heap for all threads, since it keeps little of further heaps.
    """
    global _owned
    if _enabled():
        _owned = True
        os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
        _mallopt({MMAP_THRESHOLD: LARGEST, TRIM_THRESHOLD: KEPT, ARENA_MAX: 1})


@contextmanager
def training_memory() -> Iterator[None]:
    """Within, the C library keeps the memory that a training step frees, so that the next step need not ask for it again.

    By default glibc gives every block of some megabytes back to the system, and new pages must be cleared: a third of a
    training step (benchmarks/RESULTS.md). At the end, what is free is given back, and the thresholds are as glibc sets
    them by itself. Does nothing with another C library, or in a process that has these settings (`own_process`).
    """
    if _owned or not _enabled():
        yield
        return
    _mallopt({MMAP_THRESHOLD: LARGEST, TRIM_THRESHOLD: KEPT})
    try:
        yield
    finally:
        _mallopt(USUAL)
        trim = getattr(_libc(), "malloc_trim", None)
        if trim is not None:
            trim(0)


@contextmanager
def seeded(seed: int, device: Any = None) -> Iterator[None]:
    """Within, the global generators of Python, numpy and torch start from `seed`; afterwards they are as they were before.

    Args:
        device: The torch device whose generator is set, too.
    """
    import numpy as np
    import torch

    cuda = [device] if device is not None and torch.device(device).type == "cuda" else []
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=cuda):
            random.seed(seed)
            np.random.seed(seed % (1 << 32))
            torch.default_generator.manual_seed(seed)
            for one in cuda:
                with torch.cuda.device(one):
                    torch.cuda.manual_seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def _enabled() -> bool:
    return os.environ.get(SWITCH, "1") != "0"


def _libc() -> Any:
    return ctypes.CDLL(None) if sys.platform == "linux" else None


def _mallopt(settings: dict[int, int]) -> None:
    mallopt = getattr(_libc(), "mallopt", None)
    if mallopt is not None:
        for name, value in settings.items():
            mallopt(name, value)
