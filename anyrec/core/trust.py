"""What a model's config names outside the model's own folder, and what happens to it if the model is not trusted.

A field of the config or of a component's `Params` declares with `Outside` that its value names a file, a folder, an
address or code. A loaded model can come from anyone. Such a value is removed, or the model refused, unless the caller
trusts the model.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Union, get_args, get_origin

from pydantic import AnyUrl, BaseModel

from anyrec.core.config import Component, Config
from anyrec.core.config.components import components
from anyrec.core.errors import ConfigError, Fault
from anyrec.core.outside import ALLOW, Outside
from anyrec.core.registry import Registry
from anyrec.core.types import Json, JsonObject


@dataclass(frozen=True)
class Named:
    """A value that names something outside the model's folder.

    Attributes:
        where: JSON pointer into the config.
        value: The value, as text.
        outside: The declaration of the field.
    """

    where: str
    value: str
    outside: Outside


def without_outside(
    config: Config, registry: Registry, parts: JsonObject, plugins: Iterable[str | Path] = ()
) -> tuple[Config, list[Fault], list[Named]]:
    """Remove from the config of a model that is not trusted what it names outside its folder.

    Args:
        config: The config in the model's folder.
        registry: The components that the caller allows.
        parts: The fitted encoders of each side, as in `preprocessing/state.json`: {"user": {feature: {"type",
            "params"}}, "item": ...}.
        plugins: Folders of plugins that the caller names.

    Returns:
        The config with the default in place of each value that is left out, a fault for each value that is refused, and
        the values that were left out.
    """
    allowed = {Path(folder).resolve() for folder in plugins}
    found = [*_in_config(config, registry), *_in_parts(parts, registry)]
    named = [
        one for one in dict.fromkeys(found) if not (one.where == "/plugins" and Path(one.value).resolve() in allowed)
    ]
    refused = [
        Fault(one.where, f"the model names {one.outside.what} outside its folder: {one.value!r}.", ALLOW, "untrusted")
        for one in named
        if one.outside.untrusted == "refuse"
    ]
    left_out = [one for one in named if one.outside.untrusted == "leave out"]
    document = config.model_dump(mode="json")
    for one in left_out:
        place: Json = document
        *parents, last = (part.replace("~1", "/").replace("~0", "~") for part in one.where[1:].split("/"))
        for part in parents:
            place = place[int(part)] if isinstance(place, list) else place[part]
        place.pop(last, None)
    return (Config.model_validate(document) if left_out else config), refused, left_out


def note_of(left_out: Sequence[Named]) -> str:
    """Return a sentence for the user: what was left out of a model that is not trusted, and how to allow it."""
    listed = ", ".join(f"{one.where[1:].replace('/', '.')} ({one.value})" for one in left_out)
    return f"Left out, because the model is not trusted: {listed}. {ALLOW}"


def _in_config(config: Config, registry: Registry) -> Iterator[Named]:
    """Yield the values of a config that name something outside the model's folder."""
    yield from declared(config, registry, "")
    yield from _of(registry, "classical", config.model.type, config.model.options(), "/model")
    for place in components(config):
        yield from _of(registry, place.kind, place.merged.type, place.merged.options(), place.where)


def _in_parts(parts: JsonObject, registry: Registry) -> Iterator[Named]:
    """Yield such values among the options of the fitted encoders, which a loaded model takes from its state."""
    for side in ("user", "item"):
        encoders = parts.get(side)
        for name, saved in encoders.items() if isinstance(encoders, dict) else ():
            if isinstance(saved, dict) and isinstance(saved.get("params"), dict):
                for one in _of(registry, "encoder", saved.get("type"), saved["params"], f"/features/{name}"):
                    refused = (
                        one.outside.untrusted == "leave out"
                    )  # without it, the encoder would not be the fitted one
                    yield replace(one, outside=replace(one.outside, untrusted="refuse")) if refused else one


def declared(values: BaseModel, registry: Registry, where: str) -> Iterator[Named]:
    """Yield the values of a pydantic object that are declared with `Outside`, or whose type is a path or a URL.

    Args:
        values: The config, a section of it, or the options of a component.
        registry: The components, for options that are themselves components.
        where: JSON pointer to the object.
    """
    for name, field in type(values).model_fields.items():
        value, pointer = getattr(values, name), f"{where}/{name}"
        outside = next((one for one in field.metadata if isinstance(one, Outside)), None)
        if outside is None and _is_location(field.annotation):
            outside = Outside("a location")
        several = value if isinstance(value, (list, tuple)) else [value]
        for number, one in enumerate(several):
            place = pointer if several is not value else f"{pointer}/{number}"
            if outside is not None and outside.names_something(one):
                yield Named(pointer, str(one), outside)
            elif isinstance(one, Component):
                extra = field.json_schema_extra
                kind = extra.get("kind") if isinstance(extra, dict) else None
                yield from _of(registry, str(kind), one.type, one.options(), place)
            elif isinstance(one, BaseModel):
                yield from declared(one, registry, place)


def _of(registry: Registry, kind: str, name: object, options: JsonObject, where: str) -> Iterator[Named]:
    """Yield such values among a component's options.

    An unknown component or a bad option yields nothing: it is an error when the component is made.
    """
    if not isinstance(name, str) or name not in registry.names(kind):
        return
    try:
        params = registry.params(kind, name, options, where)
    except ConfigError:
        return
    yield from declared(params, registry, where)


def _is_location(annotation: object) -> bool:
    """Return True for the type of a path or URL, also within a union, list or tuple."""
    if get_origin(annotation) in (Union, types.UnionType, list, tuple):
        return any(_is_location(one) for one in get_args(annotation))
    return isinstance(annotation, type) and issubclass(annotation, (Path, AnyUrl))
