"""Names of components in earlier versions. They still work, in configs and in saved models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

RENAMED = {("encoder", "looks"): "visual_descriptor"}
"""By kind of component and earlier name: the present name."""


def present_name(kind: str, name: str) -> str:
    """Return the present name of a component, which is `name` itself if it was never renamed."""
    return RENAMED.get((kind, name), name)


def renamed_encoders(document: dict[str, Any]) -> list[str]:
    """Return one sentence about each earlier encoder name that a config uses.

    Args:
        document: The config as parsed JSON. Values of other types than expected are ignored.
    """
    names = dict.fromkeys(
        name
        for section in (document, document.get("user"), document.get("item"))
        for choice in _choices(section)
        if isinstance(name := choice.get("type"), str) and ("encoder", name) in RENAMED
    )
    return [
        f"The encoder '{name}' is now called '{present_name('encoder', name)}'. The old name will be removed; "
        "change it in your config."
        for name in names
    ]


def _choices(section: object) -> Iterator[dict[str, Any]]:
    """Yield the choices of all feature groups of a section, and of the single features within them."""
    features = section.get("features") if isinstance(section, dict) else None
    for choice in features.values() if isinstance(features, dict) else ():
        if isinstance(choice, dict):
            yield choice
            fields = choice.get("fields")
            yield from (own for own in fields.values() if isinstance(own, dict)) if isinstance(fields, dict) else ()
