"""The declaration that an option's value names something outside the model's folder."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

ALLOW = "Load with trust_plugins=True (--trust-plugins) if you trust where the model comes from."
PUBLISHED = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
"""A model's name at a hub: `name` or `organisation/name`."""


def _given(value: Any) -> bool:
    return value not in (None, "", False)


@dataclass(frozen=True)
class Outside:
    """Declares that a field of the config or of a component's `Params` names a file, a folder, an address or code.

    Use it as `file: Annotated[str | None, Outside("a file")] = Field(...)`. `anyrec.core.trust` reads it when a model is loaded.

    Attributes:
        what: the thing that is named, with its article, as in "a file".
        untrusted: what happens to the value in a model that is not trusted. `refuse`: the model is not loaded. `leave out`: the default is
            taken, with a note. `check`: it is kept, and the code that would open it checks `Context.trusted` first.
        names_something: whether a value names something; by default every value but None, False and the empty text.
    """

    what: str
    untrusted: Literal["refuse", "leave out", "check"] = "refuse"
    names_something: Callable[[Any], bool] = _given


def is_path(value: Any) -> bool:
    """Whether the name of a pretrained model is a path: it does not look like a published name, or such a path exists here."""
    return isinstance(value, str) and (not PUBLISHED.fullmatch(value) or Path(value).exists())
