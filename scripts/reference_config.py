"""The reference of the config's keys and of all components, from the pydantic models; for generate_docs.py."""

from __future__ import annotations

import json
from typing import Any

SECTIONS = {
    "top level": "Config",
    "data": "DataConfig",
    "sources": "SourcesConfig",
    "table": "SourceTable",
    "side table": "SideTable",
    "column": "ColumnConfig",
    "format": "FormatConfig",
    "split": "SplitConfig",
    "features": "Feature",
    "user and item": "TowerConfig",
    "training": "TrainingConfig",
    "blend": "BlendConfig",
    "optimizer": "OptimizerConfig",
    "scheduler": "SchedulerConfig",
    "evaluation": "EvaluationConfig",
    "diagnostics": "DiagnosticsConfig",
    "pipeline": "PipelineConfig",
    "retrieve": "RetrieveConfig",
    "rank": "RankConfig",
    "rank training": "RankTrainingConfig",
    "rerank": "RerankConfig",
    "update": "UpdateConfig",
    "serving": "ServingConfig",
    "card": "CardConfig",
    "feast": "FeastConfig",
    "tune": "TuneConfig",
    "search range": "SearchRange",
    "cluster": "ClusterConfig",
    "events": "EventsConfig",
    "experiment": "ExperimentConfig",
    "variant": "VariantConfig",
}
"""The class of each part of docs/config.md."""
OBJECT = "object"


def sections(part: str) -> str:
    """Return the table of the keys of one section of the config."""
    from anyrec.core import config

    return key_table(getattr(config, SECTIONS[part]))


def components(kind: str) -> str:
    """Return a subsection for each component of a kind: what it is, and a table of its options."""
    from anyrec.core.discovery import discover

    registry = discover()
    parts = []
    for plugin in registry.plugins(kind):
        reads = f" Reads the group `{plugin.group}`." if kind == "encoder" else ""
        if plugin.role:
            reads = f" Reads the group `{plugin.group}` with the role `{plugin.role}`."
        parts.append(f"### `{plugin.type}`\n\n{cell(plugin.doc)}{reads}\n")
        params = plugin.load().Params
        parts.append(key_table(params) + "\n" if params.model_fields else "It has no options.\n")
    return "\n".join(parts).rstrip("\n")


def key_table(model: Any) -> str:
    """Return a Markdown table of the fields of a pydantic model."""
    schema = model.model_json_schema()
    properties = (schema["$defs"][model.__name__] if "$ref" in schema else schema)[
        "properties"
    ]  # $ref: it contains itself
    rows = [
        f"| `{key}` | {cell(kind_of(properties[key], OBJECT))} | {default_of(field)} | {cell(field.description)} |"
        for key, field in model.model_fields.items()
    ]
    return "\n".join(["| key | value | default | meaning |", "|---|---|---|---|", *rows])


def kind_of(schema: dict[str, Any], reference: str) -> str:
    """Return in words which values a JSON Schema accepts.

    Args:
        schema: The schema of one value.
        reference: The words for a reference to another schema.
    """
    if "$ref" in schema:
        return reference
    if "enum" in schema or "const" in schema:
        return " or ".join(f"`{json.dumps(value)}`" for value in schema.get("enum", [schema.get("const")]))
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(kind_of(part, reference) for part in schema["anyOf"]))
    kind = schema.get("type", "any value")
    if kind == "array":
        return f"list of {plural(kind_of(schema.get('items', {}), reference))}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {plural(kind_of(schema['additionalProperties'], reference))}"
    names = {"string": "text", "boolean": "`true` or `false`", "null": "`null`", "object": OBJECT}
    return names.get(kind, kind) + bounds(schema)


def plural(kind: str) -> str:
    """Return the plural of the words for a kind of value."""
    name = kind.split(" ", 1)[0]
    return f"{name}s{kind[len(name) :]}" if name in ("text", "integer", "number", "object") else kind


def bounds(schema: dict[str, Any]) -> str:
    """Return the bounds of a number in words, or an empty text."""
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f" from {number(low)} to {number(high)}"
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if low is not None and below is not None:
        return f" from {number(low)} to below {number(below)}"
    bounds = ((">", above), ("≥", low), ("<", below), ("≤", high))
    return "".join(f" {sign} {number(value)}" for sign, value in bounds if value is not None)


def number(value: float) -> str:
    """Return a number as people write it, for example 1,000,000 or 0.001."""
    if value == int(value) and abs(value) < 1e13:
        return f"{int(value):,}"
    return f"{value:g}"


def default_of(field: Any) -> str:
    """Return the default of a pydantic field as Markdown."""
    from pydantic import BaseModel
    from pydantic_core import PydanticUndefined

    from anyrec.core.config import Component

    value = field.default_factory() if field.default_factory else field.default
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, Component):
        return f'`{{"type": "{value.type}"}}`'
    if isinstance(value, BaseModel):
        return "see below"
    return f"`{json.dumps(value, default=lambda part: part.model_dump())}`"


def cell(text: str | None) -> str:
    """Return a text that can stand in a cell of a Markdown table."""
    return (text or "").replace("|", "\\|").replace("<", "&lt;")
