"""Settings and random state of the whole process. No other module changes them.

The command line owns its process and makes settings that speed up training, once (`own_process`). A program that
imports anyrec as a library keeps its settings: training and the server change only what they can restore
(`training_memory`, `no_collection`, `short_waits`, `giving_way`), and random generators are restored after each call
(`seeded`). ANYREC_PROCESS_SETTINGS=0 switches all settings off.
"""

from __future__ import annotations

import ctypes
import gc
import os
import random
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

SWITCH = "ANYREC_PROCESS_SETTINGS"
TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8
KEPT = 1 << 30
"""Bytes that glibc may keep free at the top of the heap."""
LARGEST = 32 << 20
"""Bytes of the largest block that glibc allocates from its heap; it maps larger blocks one by one."""
USUAL = {MMAP_THRESHOLD: LARGEST, TRIM_THRESHOLD: 2 * LARGEST}
"""The thresholds that glibc's own heuristic sets after a block of LARGEST bytes was freed, as happens in training."""

SWITCH_SECONDS = 0.0002
"""Seconds after which a thread gives Python's lock to another one that waits for it."""
WORK_SECONDS, PAUSE_SECONDS = 0.0002, 0.0005
"""Seconds that a thread which gives way works before it pauses, and pauses."""

_owned = False


def own_process() -> None:
    """Make settings that speed up training, for the rest of the process. Call it before torch is imported.

    - torch requests huge pages of 2 MB: looking up pages of 4 KB took a tenth of a training step
      (benchmarks/RESULTS.md). torch reads the variable when it creates its first tensor.
    - glibc keeps freed memory (`training_memory`) and uses one heap for all threads, since it keeps little memory of
      further heaps.
    """
    global _owned
    if _enabled():
        _owned = True
        os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
        _mallopt({MMAP_THRESHOLD: LARGEST, TRIM_THRESHOLD: KEPT, ARENA_MAX: 1})


@contextmanager
def training_memory() -> Iterator[None]:
    """Let the C library keep the memory that a training step frees, within the block, so that the next step can use it
    again.

    By default glibc returns every block of several megabytes to the system, and the system must clear new pages: a
    third of a training step (benchmarks/RESULTS.md). At the end, free memory is returned and the thresholds are those
    of glibc's own heuristic. Does nothing with another C library, or if `own_process` has made these settings.
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
def short_waits() -> Iterator[None]:
    """Keep the threads that answer requests fast within the block, while another thread loads a model.

    - A thread waits 0.2 ms at most for Python's lock, instead of 5 ms. A request takes the lock some 30 times, so that
      a busy thread added up to 150 ms to it.
    - Garbage collection leaves out the objects that exist now. A full collection visits half a million objects of
      torch and its dependencies, and all threads wait for it: 0.3 s. It is on, also within `no_collection`.
    """
    if not _enabled():
        yield
        return
    interval, collects = sys.getswitchinterval(), gc.isenabled()
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.collect()
    gc.freeze()
    gc.enable()
    try:
        yield
    finally:
        gc.unfreeze()
        if not collects:
            gc.disable()
        sys.setswitchinterval(interval)


@contextmanager
def no_collection() -> Iterator[None]:
    """Collect no garbage within the block: for importing modules and loading a model, of which almost everything stays.

    Each full collection visits all objects again, half a million at the end: 1.1 of the 5.3 s of processor time until a
    server is ready. Only in the main thread: a server that loads a model in another one would collect all at once.
    """
    if not _enabled() or not gc.isenabled() or threading.current_thread() is not threading.main_thread():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():  # all objects become old ones, so that the next collection does not visit them
            gc.freeze()
            gc.unfreeze()
        gc.enable()


@contextmanager
def giving_way() -> Iterator[None]:
    """Let other threads go first within the block: for work that may take longer, next to threads that answer requests.

    This thread pauses for 0.5 ms after each 0.2 ms of work in Python. Without pauses, two threads that want Python's
    lock get it in turn, so that a request takes twice as long. The pauses are made when a function is called or
    returns (`sys.setprofile`), not within one call of C. A thread that is profiled does not pause.
    """
    if not _enabled() or sys.getprofile() is not None:
        yield
        return
    paused = time.perf_counter()

    def pause(frame: FrameType, event: str, argument: object) -> None:
        nonlocal paused
        if time.perf_counter() - paused > WORK_SECONDS:
            time.sleep(PAUSE_SECONDS)
            paused = time.perf_counter()

    sys.setprofile(pause)
    try:
        yield
    finally:
        sys.setprofile(None)


@contextmanager
def seeded(seed: int, device: str | torch.device | None = None) -> Iterator[None]:
    """Seed the global random generators of Python, numpy and torch within the block, and restore them afterwards.

    Args:
        seed: The seed.
        device: A torch device whose generator is seeded as well, if it is a CUDA device.
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


def _libc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if sys.platform == "linux" else None


def _mallopt(settings: dict[int, int]) -> None:
    mallopt = getattr(_libc(), "mallopt", None)
    if mallopt is not None:
        for name, value in settings.items():
            mallopt(name, value)
