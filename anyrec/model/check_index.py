"""Checks of the config's index that need no data: whether the model has vectors to search, and what the index needs."""

from __future__ import annotations

from anyrec.core.config import TWO_TOWER, Config
from anyrec.core.errors import Fault, InputError
from anyrec.core.registry import Registry

HINT = "Leave `index` out: all items are then scored."


def has_vectors(config: Config, registry: Registry) -> bool:
    """Return whether models of a config have a vector for each user and item."""
    name = config.model.type
    return name == TWO_TOWER or bool(registry.get("classical", name, "/model/type").factorised)


def index_faults(config: Config, registry: Registry) -> list[Fault]:
    """Return the faults of `index`, whose type and options are valid.

    Raises:
        MissingDependency: If its library is not installed.
    """
    component = config.index
    cls = registry.get("index", component.type, "/index/type")
    if cls.exhaustive and not component.options():
        return []
    if not has_vectors(config, registry):
        what = f"an index searches vectors, and '{config.model.type}' has none, so this key would have no effect."
        return [Fault("/index", what, HINT, "combination")]
    if config.model.type == TWO_TOWER and not registry.get("interaction", config.interaction.type).factorised:
        what = f"an index searches by dot products, and the scores of '{config.interaction.type}' are none."
        return [Fault("/index", what, f"{HINT} Or use a factorised interaction, as dot or cosine.", "combination")]
    params = registry.params("index", component.type, component.options(), "/index")
    try:
        cls.of(config.dim, "dot", params, registry).check()
    except InputError as error:
        return error.faults
    return []
