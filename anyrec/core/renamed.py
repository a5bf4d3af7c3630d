"""Former names of components, of config keys and of components' options.

They still work, in configs and in saved models. Reading a config notes each one that it uses (`noting_former_names`);
loading a saved model does not, since its user did not write it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from anyrec.core.types import Json, JsonObject

RENAMED = {("encoder", "looks"): "visual_descriptor", ("search space", "looks"): "visual"}
"""The current name of each renamed component, by its kind and former name."""

_notes: ContextVar[list[str] | None] = ContextVar("notes about former names", default=None)


@contextmanager
def noting_former_names() -> Iterator[list[str]]:
    """Collect one sentence for each former name that is used within the block, in this thread."""
    notes: list[str] = []
    token = _notes.set(notes)
    try:
        yield notes
    finally:
        _notes.reset(token)


def present_name(kind: str, name: str) -> str:
    """Return the current name of a component, which is `name` itself if it was never renamed."""
    current = RENAMED.get((kind, name))
    if current is None:
        return name
    _note(f"The {kind} '{name}'", current)
    return current


def current_names(values: Mapping[str, Json], renamed: Mapping[str, str]) -> JsonObject:
    """Replace former names of keys by the current ones.

    Args:
        values: Values by key.
        renamed: The current name of each former name.

    Returns:
        The values by current key.

    Raises:
        ValueError: A key is set under both names.
    """
    found = dict(values)
    for old, new in renamed.items():
        if old not in found:
            continue
        if new in found:
            raise ValueError(f"'{old}' is the former name of '{new}', which is also set; remove '{old}'")
        found[new] = found.pop(old)
        _note(f"'{old}'", new)
    return found


def _note(what: str, current: str) -> None:
    notes = _notes.get()
    note = f"{what} is now called '{current}'. The old name will be removed; change it in your config."
    if notes is not None and note not in notes:
        notes.append(note)
