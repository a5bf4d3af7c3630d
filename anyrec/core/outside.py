"""The declaration that the value of an option names something outside the model's folder."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ALLOW = "Load with trust_plugins=True (--trust-plugins) if you trust where the model comes from."
PUBLISHED = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
"""Name of a published model: `name` or `organisation/name`."""


def _given(value: object) -> bool:
    return value not in (None, "", False)


@dataclass(frozen=True)
class Outside:
    """Declares that a field of the config or of a component's `Params` names a file, a folder, an address or code.

    `anyrec.core.trust` reads the declaration when a model is loaded.

    Attributes:
        what: Noun phrase for the thing that the value names, for example "a file".
        untrusted: What happens to the value in a model that is not trusted. `refuse`: the model is not loaded. `leave
            out`: the default replaces it, with a note. `check`: it stays, and the code that would open it checks
            `Context.trusted` first.
        names_something: Returns True if a value names something; by default for all values except None, False and "".

    Example:
        file: Annotated[str | None, Outside("a file")] = Field(None, description="Blocked items.")
    """

    what: str
    untrusted: Literal["refuse", "leave out", "check"] = "refuse"
    names_something: Callable[[object], bool] = _given


def is_path(value: object) -> bool:
    """Return True if the name of a pretrained model is a path: it is not a published name, or such a path exists."""
    return isinstance(value, str) and (not PUBLISHED.fullmatch(value) or Path(value).exists())
