"""The config's JSON Schema: the pydantic models, with every plugin's own parameters in their place."""

from __future__ import annotations

from typing import Any

from anyrec.core.check_config import DEFAULTS, PLACES
from anyrec.core.config import TWO_TOWER, Config
from anyrec.core.hooks import HOOKS
from anyrec.core.registry import Registry


def config_schema(registry: Registry) -> dict[str, Any]:
    """Draft 2020-12. Each component is one of its kind's plugins, told apart by `type`."""
    schema = Config.model_json_schema()
    definitions = schema["$defs"]
    for kind in HOOKS:
        branches = []
        for plugin in registry.plugins(kind):
            name = f"{kind}:{plugin.type}"
            definitions[name] = _component(registry, kind, plugin.type, plugin.doc, definitions)
            branches.append({"$ref": f"#/$defs/{name}"})
        definitions[kind] = {"oneOf": branches}
    for place, kind in PLACES.items():
        schema["properties"][place] = _optional_type(definitions, place, kind)
    two_tower = {"type": "object", "properties": {"type": {"const": TWO_TOWER}}, "additionalProperties": False}
    schema["properties"]["model"] = {"oneOf": [two_tower, {"$ref": "#/$defs/classical"}]}
    schema["properties"]["heads"]["additionalProperties"] = {"$ref": "#/$defs/head"}
    tower = definitions["TowerConfig"]["properties"]
    every = [_untyped(definitions[f"fusion:{name}"]) for name in registry.names("fusion")]
    tower["fusion"] = {"anyOf": [{"$ref": "#/$defs/fusion"}, *every, {"type": "null"}]}
    definitions["RetrieveConfig"]["properties"]["sources"]["items"] = {"$ref": "#/$defs/source"}
    definitions["RerankConfig"]["properties"]["rules"]["items"] = {"$ref": "#/$defs/rule"}
    definitions["RankConfig"] = _rank(definitions)
    features = _features(registry, definitions)
    schema["properties"]["features"] |= features
    tower["features"] |= features
    for unused in [name for name in definitions if name.endswith("Choice")] + ["Component", "Feature"]:
        definitions.pop(unused, None)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "anyrec/config.schema.json", **schema}


def _component(registry: Registry, kind: str, name: str, doc: str, definitions: dict[str, Any]) -> dict[str, Any]:
    params = registry.get(kind, name).Params.model_json_schema(ref_template="#/$defs/{model}")
    definitions.update(params.pop("$defs", {}))
    for option, told in params.get("properties", {}).items():
        if "kind" in told:  # an option that is itself a component
            params["properties"][option] = {"$ref": f"#/$defs/{told['kind']}", "description": told["description"]}
    return {
        "type": "object",
        "description": doc,
        "properties": {"type": {"const": name}, **params.get("properties", {})},
        "required": ["type", *params.get("required", [])],
        "additionalProperties": False,
    }


def _untyped(component: dict[str, Any]) -> dict[str, Any]:
    """The same without `type`, because the key has a default."""
    return {
        **component,
        "properties": {name: value for name, value in component["properties"].items() if name != "type"},
        "required": [name for name in component["required"] if name != "type"],
    }


def _optional_type(definitions: dict[str, Any], place: str, kind: str) -> dict[str, Any]:
    """A component of the kind, or options of those that the key may mean where `type` is not set."""
    defaults = [_untyped(definitions[f"{kind}:{name}"]) for name in DEFAULTS[place] if f"{kind}:{name}" in definitions]
    return {"anyOf": [{"$ref": f"#/$defs/{kind}"}, *defaults]}


def _rank(definitions: dict[str, Any]) -> dict[str, Any]:
    """An interaction with its own options, how many of its best are passed on, and how it learns."""
    passed_on = {name: definitions["RankConfig"]["properties"][name] for name in ("k", "training")}
    branches = [definitions[part["$ref"].rsplit("/", 1)[1]] for part in definitions["interaction"]["oneOf"]]
    return {"oneOf": [{**branch, "properties": {**branch["properties"], **passed_on}} for branch in branches]}


def _features(registry: Registry, definitions: dict[str, Any]) -> dict[str, Any]:
    """By group: one of the encoders that read it, `fields` and `pool_group` beside; without a type, any of them."""
    shared = definitions["Feature"]["properties"]
    groups: dict[str, Any] = {}
    for group in registry.groups():
        names = [plugin.type for plugin in registry.plugins("encoder") if plugin.group == group]
        options = [definitions[f"encoder:{name}"] for name in names]
        branches = [_choice(own, group, shared) for own in options]
        branches += [_choice({**_untyped(own)}, group, shared) for own in options]
        definitions[f"feature:{group}"] = {"anyOf": branches}
        field = [_choice(own, "", {}) for own in options]
        merged = {key: True for own in options for key in own["properties"] if key != "type"}
        loose = {"type": "object", "properties": {**merged, "type": {"type": "null"}}, "additionalProperties": False}
        definitions[f"field:{group}"] = {"anyOf": [*field, loose, {"type": "null"}]}
        groups[group] = {"anyOf": [{"$ref": f"#/$defs/feature:{group}"}, {"type": "null"}]}
    definitions["feature"] = {
        "type": "object",
        "properties": {name: shared[name] for name in ("type", "pool_group")},
    }
    return {"properties": groups, "additionalProperties": {"anyOf": [{"$ref": "#/$defs/feature"}, {"type": "null"}]}}


def _choice(component: dict[str, Any], group: str, shared: dict[str, Any]) -> dict[str, Any]:
    """A component's schema for a place where `type` may also be null, with what every group has beside."""
    properties = dict(component["properties"])
    if "type" not in properties:
        properties["type"] = {"type": "null"}
    if group:
        fields = {"type": "object", "additionalProperties": {"$ref": f"#/$defs/field:{group}"}}
        properties |= {
            "fields": {**fields, "description": shared["fields"]["description"]},
            "pool_group": shared["pool_group"],
        }
    else:
        properties |= {"fields": True, "pool_group": True}
    return {**component, "properties": properties}
