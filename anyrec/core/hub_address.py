"""Addresses of models on the Hugging Face Hub: hf://OWNER/NAME. A path object has one slash less."""

from __future__ import annotations

import re
from pathlib import Path

START = re.compile("^hf:/+")


def is_on_hub(address: str | Path | None) -> bool:
    """Return whether an address is hf://OWNER/NAME."""
    return START.match(str(address)) is not None


def hub_name(address: str | Path) -> str:
    """Return what follows hf:// in an address; an address without it as it is."""
    return START.sub("", str(address))
