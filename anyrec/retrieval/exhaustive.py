"""The index whose results are exact, for searches that are not configured: similar items, search by text or image."""

from __future__ import annotations

from anyrec.core.registry import Registry
from anyrec.retrieval.index import Index


def exhaustive_index(registry: Registry) -> type[Index]:
    """Return the first index by name that compares every vector with the query.

    Raises:
        LookupError: If there is none, which a registry with the built-in components cannot lack.
    """
    for name in registry.names("index"):
        cls = registry.get("index", name)
        if cls.exhaustive:
            return cls
    raise LookupError("no index of the registry is exhaustive")
