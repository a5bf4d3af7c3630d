"""Whether a launcher such as torchrun has started this process as one of several, by the variables that it sets.

Loads no torch; `anyrec.core.processes` joins the processes.
"""

from __future__ import annotations

import os


def copies() -> int:
    """Return how many processes a launcher has started to run the same program; 1 without a launcher."""
    size = os.environ.get("WORLD_SIZE", "")
    return int(size) if size.isdecimal() and os.environ.get("RANK") else 1


def first_copy() -> bool:
    """Return whether this process is the first one of the launcher on this machine; True without a launcher."""
    return copies() == 1 or os.environ.get("LOCAL_RANK", os.environ["RANK"]) == "0"
