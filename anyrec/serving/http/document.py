"""The OpenAPI document of a server: errors, limits and the types of ids of the model that serves."""

from __future__ import annotations

import re
from collections.abc import Iterator

from anyrec.core.config import ServingConfig
from anyrec.core.types import JsonObject
from anyrec.data.ids import SIDES
from anyrec.serving.http.limits import IDS
from anyrec.serving.live.served import Served

PROBLEM, READY = "#/components/schemas/Problem", "#/components/schemas/Ready"
WHOLE: JsonObject = {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}
TEXT: JsonObject = {"type": "string", "minLength": 1, "maxLength": 1000}
REF = re.compile(r"'#/components/schemas/(\w+)'")
"""References to messages in a part of the document."""


def precise(document: JsonObject, config: ServingConfig, served: Served) -> JsonObject:
    """Return an OpenAPI document that says what this server accepts, as its limits and its model have it.

    Args:
        document: The document; it is changed in place.
        config: The limits.
        served: The model.
    """
    id_types = {side: WHOLE if served.has_whole_ids(side) else TEXT for side in SIDES}
    for path in document["paths"].values():
        for operation in path.values():
            _add_problems(operation)
            for parameter in operation.get("parameters", []):
                if parameter["name"] == "k":
                    parameter["schema"].setdefault("maximum", config.max_k)
    taken = _taken(document)
    for name, message in document["components"]["schemas"].items():
        for key, value in message.get("properties", {}).items():
            if key in ("k", "offset"):
                value.setdefault("maximum", config.max_k)
            if key == "text":
                for text in _of_type(value, "string"):
                    text["maxLength"] = config.max_text
            if key in ("image", "images"):
                for text in _of_type(value, "string"):
                    text["contentEncoding"] = "base64"
            if key in IDS and name in taken:
                _set_id(value, id_types[IDS[key]])
            if value.get("type") == "array" and name in taken:
                value.setdefault("maxItems", config.max_batch)
    return document


def _taken(document: JsonObject) -> set[str]:
    """Return the messages of requests. Ids of answers have any type, also after another model was loaded."""
    found: set[str] = set()
    bodies = [operation.get("requestBody") for path in document["paths"].values() for operation in path.values()]
    left = REF.findall(str(bodies))
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += REF.findall(str(document["components"]["schemas"][name]))
    return found


def _add_problems(operation: JsonObject) -> None:
    """Document the errors of an operation as problem documents, also those of pictures and texts."""
    for status, answer in operation["responses"].items():
        if status >= "400" and READY not in str(answer):
            answer["content"] = {"application/problem+json": {"schema": {"$ref": PROBLEM}}}


def _set_id(schema: JsonObject, kind: JsonObject) -> None:
    """Replace the alternatives of ids, a whole number or a text, by the type that the model's ids have."""
    if "anyOf" in schema and any(one.get("type") == "integer" for one in schema["anyOf"]):
        others = [one for one in schema["anyOf"] if one.get("type") not in ("integer", "string")]
        if others:
            schema["anyOf"] = [kind, *others]
        else:
            del schema["anyOf"]
            schema |= kind
    for inner in (schema.get("items"), *schema.get("anyOf", ())):
        if isinstance(inner, dict):
            _set_id(inner, kind)


def _of_type(schema: JsonObject, kind: str) -> Iterator[JsonObject]:
    """Yield the schemas of a type within a schema."""
    if schema.get("type") == kind:
        yield schema
    for inner in (schema.get("items"), schema.get("additionalProperties"), *schema.get("anyOf", ())):
        if isinstance(inner, dict):
            yield from _of_type(inner, kind)
