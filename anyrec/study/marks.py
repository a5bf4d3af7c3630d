"""The keys of a config that `anyrec tune` searches by default: those that are marked with `tunable`."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from anyrec.core.config import TWO_TOWER, Component, Config, SearchRange
from anyrec.core.config.components import components, feature_sections
from anyrec.core.contracts import Classical, Step
from anyrec.core.errors import ConfigError
from anyrec.core.param_keys import TUNE
from anyrec.core.registry import Registry
from anyrec.core.types import JsonObject

STEPS = 3
"""Steps of `Classical.search` from an option's default to the ends of its range."""


def marked(config: Config, registry: Registry) -> dict[str, SearchRange]:
    """Return the ranges of all marked keys of a complete config and of the components that it names, by key."""
    if config.model.type != TWO_TOWER:
        return dict(_of_classical(registry, config.model))
    found = dict(_of_section(config, ""))
    for place in components(config):
        key = place.where.strip("/").replace("/", ".")
        found |= _of_component(registry, place.kind, place.merged.type, place.merged.options(), key)
    for start, features in feature_sections(config):
        for group, choice in features.items():
            if choice is not None:
                name = choice.type or registry.encoder_for(group)
                key = ".".join([*start, group])
                found |= _of_component(registry, "encoder", name or "", choice.options(), key)
    return found


def _of_section(section: BaseModel, prefix: str) -> Iterator[tuple[str, SearchRange]]:
    """Yield the marked keys of a section and of the sections in it."""
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        mark = _mark(field)
        if mark is not None:
            yield f"{prefix}{name}", mark
        elif isinstance(value, BaseModel) and not isinstance(value, Component):
            yield from _of_section(value, f"{prefix}{name}.")


def _of_component(
    registry: Registry, kind: str, name: str, options: JsonObject, prefix: str
) -> Iterator[tuple[str, SearchRange]]:
    """Yield the marked options of a component."""
    try:
        params = registry.params(kind, name, options)
    except ConfigError:
        return
    for option, field in type(params).model_fields.items():
        mark = _mark(field)
        if mark is not None:
            yield f"{prefix}.{option}", mark


def _of_classical(registry: Registry, model: Component) -> Iterator[tuple[str, SearchRange]]:
    """Yield the options in `Classical.search`: STEPS of its steps to both sides of the default, within the bounds."""
    cls: type[Classical] = registry.get("classical", model.type)
    params = registry.params("classical", model.type, model.options())
    for option, step in cls.search.items():
        default = getattr(params, option)
        if default is None or (not isinstance(step, Step) and default <= 0):
            continue
        ends = [
            default + sign * STEPS * step.difference if isinstance(step, Step) else default * step ** (sign * STEPS)
            for sign in (-1, 1)
        ]
        low, high = (round(end) if isinstance(default, int) else end for end in ends)
        bounds = {type(one).__name__: getattr(one, type(one).__name__.lower(), None) for one in _bounds(cls, option)}
        low, high = max(low, bounds.get("Ge", low)), min(high, bounds.get("Le", high))
        high = min(high, cls.search_limits.get(option, high))
        if low < high:
            yield f"model.{option}", SearchRange(low=low, high=high, log=not isinstance(step, Step) and low > 0)


def _bounds(cls: type[Classical], option: str) -> list[object]:
    return list(cls.Params.model_fields[option].metadata)


def _mark(field: FieldInfo) -> SearchRange | None:
    extra = field.json_schema_extra
    return SearchRange.model_validate(extra[TUNE]) if isinstance(extra, dict) and TUNE in extra else None
