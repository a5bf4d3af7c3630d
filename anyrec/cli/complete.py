"""Values that the shell completes: the names of components."""

from __future__ import annotations


def component_names() -> list[str]:
    """Return the kinds and types of all components."""
    from anyrec.core.discovery import discover

    found = discover(warn=False).plugins()
    return sorted({name for plugin in found for name in (plugin.kind, plugin.type)})


def index_types() -> list[str]:
    """Return the types of indexes."""
    from anyrec.core.discovery import discover

    return discover(warn=False).names("index")
