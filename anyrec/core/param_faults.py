"""Errors of pydantic as faults."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from anyrec.core.errors import Fault, did_you_mean
from anyrec.core.strict_json import pointer
from anyrec.core.types import JsonObject
from anyrec.core.values import show


def faults_of(error: ValidationError, model: type[BaseModel], where: str = "") -> list[Fault]:
    """Convert a pydantic error to faults.

    Args:
        error: The error.
        model: The class that was validated; its fields are suggested for unknown keys.
        where: JSON pointer to the validated object.
    """
    faults = []
    for item in error.errors():
        place = where + pointer(item["loc"])
        if item["type"] == "extra_forbidden":
            known = _fields_at(model, item["loc"][:-1])
            faults.append(Fault(place, "unknown key.", did_you_mean(str(item["loc"][-1]), known), "unknown key"))
        elif item["type"] == "missing":
            hint = "`anyrec plugins` lists all." if item["loc"][-1] == "type" else ""
            faults.append(Fault(place, "this key is required here.", hint, "missing key"))
        else:
            message = item["msg"].removeprefix("Value error, ")
            shown = "" if isinstance(item["input"], dict) else f" (found {show(item['input'])})"
            faults.append(Fault(place or "/", f"{message}{shown}.", kind="bad value"))
    return faults


def without_faulty_keys(document: JsonObject, error: ValidationError) -> JsonObject:
    """Return a copy of what was validated without the keys that an error is about."""
    copied = copy.deepcopy(document)
    for item in error.errors():
        owner: JsonObject = {}
        key, place = "", copied
        for part in map(str, item["loc"]):  # the location also has names of alternatives, which are no keys
            if isinstance(place, dict) and part in place:
                owner, key, place = place, part, place[part]
        owner.pop(key, None)
    return copied


def _fields_at(model: type[BaseModel], location: Sequence[object]) -> list[str]:
    """The names of the fields of the object at `location` within `model`; none if it is no model."""
    current: Any = model
    for part in location:
        fields = current.model_fields if _is_model(current) else {}
        if part not in fields:
            return []
        current = fields[part].annotation
    return list(current.model_fields) if _is_model(current) else []


def _is_model(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
