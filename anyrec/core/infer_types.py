"""The type of a component that a config describes by options alone."""

from __future__ import annotations

from anyrec.core.config import Config
from anyrec.core.config.components import DEFAULT_CHOICES, Place, components
from anyrec.core.registry import Registry
from anyrec.core.types import JsonObject


def with_types(config: Config, registry: Registry) -> tuple[Config, list[str]]:
    """Name the components whose options only one component of their kind has.

    `{"fusion": {"num_heads": 2}}` is the fusion `attention`. A component keeps no `type` if the default of its key has
    the options, or if several components have them, which `check_config` reports. The fusion of one side without a type
    is the shared one, if that has a type.

    Args:
        config: The config as the user wrote it.
        registry: The components.

    Returns:
        The config, and a note for each type that was inferred.
    """
    document, notes = config.model_dump(mode="json", exclude_unset=True), []
    for place in components(config):
        name = _only_type(place, config, registry)
        if name is None:
            continue
        section = document
        for part in place.where.strip("/").split("/"):
            section = section[part]
        section["type"] = name
        key, options = place.where.strip("/").replace("/", "."), " and ".join(map(repr, place.component.options()))
        notes.append(f"{key}.type is '{name}', the only {place.kind} with {options}.")
    return (Config.model_validate(document), notes) if notes else (config, [])


def untyped_choices(place: Place, config: Config) -> tuple[JsonObject, tuple[str, ...]]:
    """Return the options of a component without `type`, and the types that it can have by default.

    If the default is only chosen when the data is known, these are all of `DEFAULT_CHOICES`.
    """
    is_side = place.component is not place.merged
    if config.defaults == "fixed" or (is_side and config.fusion.named()):
        return place.merged.options(), (place.merged.type,)
    return place.component.options(), DEFAULT_CHOICES[place.key]


def _only_type(place: Place, config: Config, registry: Registry) -> str | None:
    """Return the only component that has the options of an untyped one; None if it has a type, or needs none."""
    own, is_side = place.component.options(), place.component is not place.merged
    if place.component.named() or not own or not place.key or (is_side and config.fusion.named()):
        return None
    options, tried = untyped_choices(place, config)
    known = registry.names(place.kind)
    if any(name in known and registry.has_options(place.kind, name, options) for name in tried):
        return None
    having = [name for name in known if registry.has_options(place.kind, name, own)]
    return having[0] if len(having) == 1 else None
