"""The config's JSON Schema: the pydantic models, with every plugin's own parameters in their place."""

from __future__ import annotations

from typing import Any

from anyrec.config import TWO_TOWER, Config
from anyrec.plugins import Registry

KINDS = ("encoder", "fusion", "interaction", "head", "loss", "sampler", "classical", "index", "source", "rule")
PLACES = {"fusion": "fusion", "interaction": "interaction", "loss": "loss", "negatives": "sampler", "index": "index"}


def config_schema(registry: Registry) -> dict[str, Any]:
    """Draft 2020-12. Each component is one of its kind's plugins, told apart by `type`."""
    schema = Config.model_json_schema()
    definitions = schema["$defs"]
    for kind in KINDS:
        branches = []
        for plugin in registry.plugins(kind):
            name = f"{kind}:{plugin.type}"
            definitions[name] = _component(registry, kind, plugin.type, plugin.doc, definitions)
            branches.append({"$ref": f"#/$defs/{name}"})
        definitions[kind] = {"oneOf": branches}
    for place, kind in PLACES.items():
        schema["properties"][place] = {"$ref": f"#/$defs/{kind}"}
    two_tower = {"type": "object", "properties": {"type": {"const": TWO_TOWER}}, "additionalProperties": False}
    schema["properties"]["model"] = {"oneOf": [two_tower, {"$ref": "#/$defs/classical"}]}
    schema["properties"]["heads"]["additionalProperties"] = {"$ref": "#/$defs/head"}
    schema["properties"]["features"]["propertyNames"] = {"examples": registry.groups()}
    tower = definitions["TowerConfig"]["properties"]
    tower["fusion"] = {"anyOf": [{"$ref": "#/$defs/fusion"}, {"type": "null"}]}
    definitions["RetrieveConfig"]["properties"]["sources"]["items"] = {"$ref": "#/$defs/source"}
    definitions["RerankConfig"]["properties"]["rules"]["items"] = {"$ref": "#/$defs/rule"}
    definitions["RankConfig"] = _rank(definitions)
    definitions["Feature"] = _feature(registry, definitions["Feature"])
    for unused in ("Component",):
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


def _rank(definitions: dict[str, Any]) -> dict[str, Any]:
    """An interaction with its own options, how many of its best are passed on, and how it learns."""
    passed_on = {name: definitions["RankConfig"]["properties"][name] for name in ("k", "training")}
    branches = [definitions[part["$ref"].rsplit("/", 1)[1]] for part in definitions["interaction"]["oneOf"]]
    return {"oneOf": [{**branch, "properties": {**branch["properties"], **passed_on}} for branch in branches]}


def _feature(registry: Registry, schema: dict[str, Any]) -> dict[str, Any]:
    """One group's choice: an encoder's own options beside `fields` and `together`; without a type, the default's."""
    options: dict[str, Any] = {}
    for plugin in registry.plugins("encoder"):
        for name, value in (
            registry.get("encoder", plugin.type).Params.model_json_schema().get("properties", {}).items()
        ):
            options.setdefault(name, []).append(
                {"description": f"Of '{plugin.type}': {value.get('description', '')}".rstrip(": ")}
            )
    properties = dict(schema["properties"])
    properties["type"] = {
        "enum": [*registry.names("encoder"), None],
        "default": None,
        "description": properties["type"]["description"],
    }
    properties |= {
        name: {"description": " ".join(part["description"] for part in parts)}
        for name, parts in sorted(options.items())
    }
    return {**schema, "properties": properties, "additionalProperties": False}
