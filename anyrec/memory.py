"""Keeps the memory that a training step gives back, so that the next step need not ask the system for it again."""

from __future__ import annotations

import ctypes
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8
KEPT = 1 << 30
"""Bytes that may stay free at the top of the heap."""
LARGEST = 32 << 20
"""Blocks past it, the most that glibc takes, still go straight to the system."""


def keep_freed_memory() -> None:
    """By default glibc hands every block of some megabytes back to the system at once, and each new one comes in pages that
    must be cleared: a third of a training step (benchmarks/RESULTS.md). And it has heaps for each thread, of which it keeps little:
    all threads share one here. Does nothing on other C libraries."""
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(MMAP_THRESHOLD, LARGEST)
        mallopt(TRIM_THRESHOLD, KEPT)
        mallopt(ARENA_MAX, 1)
