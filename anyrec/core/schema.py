"""The JSON Schema of a config: that of the pydantic models, with the options of every component inserted."""

from __future__ import annotations

from anyrec.core.config import TWO_TOWER, Config
from anyrec.core.config.components import KIND_OF_KEY
from anyrec.core.hooks import HOOKS
from anyrec.core.registry import Registry
from anyrec.core.types import JsonObject

OF_A_GROUP = ("fields", "pool_group")
"""Keys of a feature group besides its encoder's options."""


def config_schema(registry: Registry) -> JsonObject:
    """Return the schema (draft 2020-12). Each component is one of the components of its kind, distinguished by `type`.

    Args:
        registry: The components.
    """
    schema = Config.model_json_schema()
    definitions = schema["$defs"]
    for kind in HOOKS:
        branches = []
        for plugin in registry.plugins(kind):
            name = f"{kind}:{plugin.type}"
            definitions[name] = _component(registry, kind, plugin.type, plugin.doc, definitions)
            branches.append({"$ref": f"#/$defs/{name}"})
        definitions[kind] = {"oneOf": branches}
    for key, kind in KIND_OF_KEY.items():
        keys = definitions[f"{key.capitalize()}Choice"]["properties"]
        own = {name: one for name, one in keys.items() if name != "type"}
        for name in registry.names(kind):
            definitions[f"{kind}:{name}"]["properties"] |= own
        schema["properties"][key] = _optional_type(definitions, kind)
    two_tower = {"type": "object", "properties": {"type": {"const": TWO_TOWER}}, "additionalProperties": False}
    schema["properties"]["model"] = {"oneOf": [two_tower, {"$ref": "#/$defs/classical"}]}
    for key, kind in (("heads", "head"), ("tracking", "tracker")):
        schema["properties"][key] |= _named(registry, definitions, kind)
    tower = definitions["TowerConfig"]["properties"]
    untyped = [_without_type(definitions[f"fusion:{name}"]) for name in registry.names("fusion")]
    tower["fusion"] = {"anyOf": [{"$ref": "#/$defs/fusion"}, *untyped, {"type": "null"}]}
    blend = definitions["BlendConfig"]["properties"]["models"]
    blend["anyOf"] = [
        {**one, "items": {"$ref": "#/$defs/classical"}} if "items" in one else one for one in blend["anyOf"]
    ]
    definitions["RetrieveConfig"]["properties"]["sources"]["items"] = {"$ref": "#/$defs/source"}
    definitions["RerankConfig"]["properties"]["rules"]["items"] = {"$ref": "#/$defs/rule"}
    for table in ("SourceTable", "SideTable"):
        definitions[table]["properties"]["provider"]["anyOf"] = [{"$ref": "#/$defs/provider"}, {"type": "null"}]
    definitions["RankConfig"] = _rank(definitions)
    features = _features(registry, definitions)
    schema["properties"]["features"] |= features
    tower["features"] |= features
    for unused in [name for name in definitions if name.endswith("Choice")] + ["Component", "Feature"]:
        definitions.pop(unused, None)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "anyrec/config.schema.json", **schema}


def _component(registry: Registry, kind: str, name: str, doc: str, definitions: JsonObject) -> JsonObject:
    """The schema of one component: its `type` and its options. Definitions that the options refer to are added."""
    params = registry.get(kind, name).Params.model_json_schema(ref_template="#/$defs/{model}")
    definitions.update(params.pop("$defs", {}))
    for option, schema in params.get("properties", {}).items():
        if "kind" in schema:  # an option that is itself a component
            reference = {"$ref": f"#/$defs/{schema['kind']}", "description": schema["description"]}
            params["properties"][option] = reference
    return {
        "type": "object",
        "description": doc,
        "properties": {"type": {"const": name}, **params.get("properties", {})},
        "required": ["type", *params.get("required", [])],
        "additionalProperties": False,
    }


def _without_type(component: JsonObject) -> JsonObject:
    """The schema of a component whose `type` is left out, because the key has a default."""
    return {
        **component,
        "properties": {name: value for name, value in component["properties"].items() if name != "type"},
        "required": [name for name in component["required"] if name != "type"],
    }


def _optional_type(definitions: JsonObject, kind: str) -> JsonObject:
    """A component of the kind, or only its options: those tell which one it is, or are checked when it is read."""
    untyped = [_without_type(definition) for name, definition in definitions.items() if name.startswith(f"{kind}:")]
    return {"anyOf": [{"$ref": f"#/$defs/{kind}"}, *untyped]}


def _rank(definitions: JsonObject) -> JsonObject:
    """A ranker: an interaction with its options, and the keys of `RankConfig`."""
    own = {name: definitions["RankConfig"]["properties"][name] for name in ("k", "training")}
    branches = [definitions[part["$ref"].rsplit("/", 1)[1]] for part in definitions["interaction"]["oneOf"]]
    branches += [_without_type(branch) for branch in branches]
    return {"anyOf": [{**branch, "properties": {**branch["properties"], **own}} for branch in branches]}


def _named(registry: Registry, definitions: JsonObject, kind: str) -> JsonObject:
    """Components of a kind by name: one that is named like its type needs no `type`."""
    typed = {"$ref": f"#/$defs/{kind}"}
    untyped = {name: _without_type(definitions[f"{kind}:{name}"]) for name in registry.names(kind)}
    named = {name: {"anyOf": [typed, one]} for name, one in untyped.items()}
    return {"properties": named, "additionalProperties": typed}


def _features(registry: Registry, definitions: JsonObject) -> JsonObject:
    """The schema of `features`: for each group any of the encoders that read it, with or without `type`."""
    shared = definitions["Feature"]["properties"]
    groups: JsonObject = {}
    for group in registry.groups():
        names = [plugin.type for plugin in registry.plugins("encoder") if plugin.group == group]
        encoders = [definitions[f"encoder:{name}"] for name in names]
        branches = [_group_choice(one, group, shared) for one in encoders]
        branches += [_group_choice(_without_type(one), group, shared) for one in encoders]
        definitions[f"feature:{group}"] = {"anyOf": branches}
        fields = [_field_choice(one) for one in encoders]
        options = {key: True for one in encoders for key in one["properties"] if key != "type"}
        untyped = {"type": "object", "properties": {**options, "type": {"type": "null"}}, "additionalProperties": False}
        definitions[f"field:{group}"] = {"anyOf": [*fields, untyped, {"type": "null"}]}
        groups[group] = {"anyOf": [{"$ref": f"#/$defs/feature:{group}"}, {"type": "null"}]}
    definitions["feature"] = {"type": "object", "properties": {name: shared[name] for name in ("type", "pool_group")}}
    return {"properties": groups, "additionalProperties": {"anyOf": [{"$ref": "#/$defs/feature"}, {"type": "null"}]}}


def _group_choice(component: JsonObject, group: str, shared: JsonObject) -> JsonObject:
    """The schema of a group's encoder: its options, a `type` that may be null, and the keys that every group has."""
    fields = {"type": "object", "additionalProperties": {"$ref": f"#/$defs/field:{group}"}}
    properties = {"type": {"type": "null"}, **component["properties"]}
    properties["fields"] = {**fields, "description": shared["fields"]["description"]}
    properties["pool_group"] = shared["pool_group"]
    return {**component, "properties": properties}


def _field_choice(component: JsonObject) -> JsonObject:
    """The schema of a single feature's encoder. The keys of a group are accepted and have no effect."""
    return {**component, "properties": {**component["properties"], **dict.fromkeys(OF_A_GROUP, True)}}
