"""What a model's config may name outside the model's own folder, and what happens to it if the model is not trusted.

A field of the config or of a component's `Params` declares with `Outside` that its value names a file, a folder, an address or code. A
loaded model is data from anybody: such a value is left out or refused unless the caller trusts the model.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from pydantic import AnyUrl, BaseModel

from anyrec.core.config import Component, Config
from anyrec.core.errors import ConfigError, Fault
from anyrec.core.outside import ALLOW, Outside
from anyrec.core.registry import Registry

COMPONENTS = {
    "model": "classical",
    "interaction": "interaction",
    "loss": "loss",
    "negatives": "sampler",
    "index": "index",
}
"""Keys of the config with one component each, and its kind; `two_tower` is not a component."""


@dataclass(frozen=True)
class Named:
    """A value that names something outside the model's folder. where: JSON pointer into the config."""

    where: str
    value: str
    outside: Outside


def without_outside(
    config: Config, registry: Registry, parts: dict[str, Any], plugins: Iterable[str | Path] = ()
) -> tuple[Config, list[Fault], list[Named]]:
    """The config of a model that is not trusted, without what it names outside its folder.

    Args:
        config: the config in the model's folder.
        registry: the components that the caller allows.
        parts: the fitted encoders of each side, as in `preprocessing/state.json`: {"user": {feature: {"type", "params"}}, "item": ...}.
        plugins: folders of plugins that the caller names.

    Returns:
        The config with the default in place of each value that is left out, a fault for each value that is refused, and the values that
        were left out.
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
        place: Any = document
        *parents, last = one.where.strip("/").split("/")
        for part in parents:
            place = place[int(part)] if isinstance(place, list) else place[part]
        place.pop(last, None)
    return (Config.model_validate(document) if left_out else config), refused, left_out


def note_of(left_out: Sequence[Named]) -> str:
    """What was left out of a model that is not trusted, and how to allow it, in a sentence for the user."""
    listed = ", ".join(f"{one.where[1:].replace('/', '.')} ({one.value})" for one in left_out)
    return f"Left out, because the model is not trusted: {listed}. {ALLOW}"


def _in_config(config: Config, registry: Registry) -> Iterator[Named]:
    """Every value of a config that names something outside the model's folder."""
    yield from declared(config, registry, "")
    yield from _components(config, registry)


def _in_parts(parts: dict[str, Any], registry: Registry) -> Iterator[Named]:
    """The same for the fitted encoders, whose options a loaded model takes from its state."""
    for side in ("user", "item"):
        encoders = parts.get(side)
        for name, saved in encoders.items() if isinstance(encoders, dict) else ():
            if isinstance(saved, dict) and isinstance(saved.get("params"), dict):
                for one in _of(registry, "encoder", saved.get("type"), saved["params"], f"/features/{name}"):
                    refused = one.outside.untrusted == "leave out"  # fitted without it, an encoder would differ
                    yield replace(one, outside=replace(one.outside, untrusted="refuse")) if refused else one


def declared(values: BaseModel, registry: Registry, where: str) -> Iterator[Named]:
    """The values of a pydantic object that are declared with `Outside`, or are paths or URLs by type."""
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


def _components(config: Config, registry: Registry) -> Iterator[Named]:
    for key, kind in COMPONENTS.items():
        component: Component = getattr(config, key)
        yield from _of(registry, kind, component.type, component.options(), f"/{key}")
    for where, choice in (("", config), ("/user", config.user), ("/item", config.item)):
        if choice.fusion is not None:
            yield from _of(registry, "fusion", choice.fusion.type, choice.fusion.options(), f"{where}/fusion")
    for name, head in config.heads.items():
        yield from _of(registry, "head", head.type, head.options(), f"/heads/{name}")
    if config.pipeline is None:
        return
    for number, source in enumerate(config.pipeline.retrieve.sources):
        yield from _of(registry, "source", source.type, source.options(), f"/pipeline/retrieve/sources/{number}")
    for number, rule in enumerate(config.pipeline.rerank.rules):
        yield from _of(registry, "rule", rule.type, rule.options(), f"/pipeline/rerank/rules/{number}")
    rank = config.pipeline.rank
    if rank is not None:
        yield from _of(registry, "interaction", rank.type, rank.options(), "/pipeline/rank")


def _of(registry: Registry, kind: str, name: Any, options: dict[str, Any], where: str) -> Iterator[Named]:
    """What a component's options name. An unknown component or a bad option is left to whoever makes the component."""
    if not isinstance(name, str) or name not in registry.names(kind):
        return
    try:
        params = registry.params(kind, name, options, where)
    except ConfigError:
        return
    yield from declared(params, registry, where)


def _is_location(annotation: Any) -> bool:
    if get_origin(annotation) in (Union, types.UnionType, list, tuple):
        return any(_is_location(one) for one in get_args(annotation))
    return isinstance(annotation, type) and issubclass(annotation, (Path, AnyUrl))
