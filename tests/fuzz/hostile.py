"""Hypothesis strategies for hostile input: instances of a JSON Schema, mutated documents, and mutated bytes.

A document is a JSON value in which `Raw` stands for text that is written as it is, and `Pairs` for an object with a
repeated key.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from anyrec.core.errors import AnyrecError

N = int(os.environ.get("FUZZ_N", "0"))
_CHECKS = [
    HealthCheck.too_slow,
    HealthCheck.data_too_large,
    HealthCheck.function_scoped_fixture,
    HealthCheck.large_base_example,
]
FUZZ = settings(
    max_examples=N or 60,
    derandomize=not N,
    database=None,
    print_blob=bool(N),
    deadline=None,
    suppress_health_check=_CHECKS,
)
"""A quick form with the same examples each time; `make fuzz N=100000` for a long one with fresh examples."""


def refusal(program: Callable[[], Any]) -> AnyrecError | None:
    """Return the error that refuses an input, None if it is accepted. Any other exception is a bug and is raised."""
    try:
        program()
    except AnyrecError as error:
        assert str(error).strip()
        return error
    return None


class Raw(str):
    """Text that `encode` writes without quotes: numbers and constants that Python cannot print."""


class Pairs(list):
    """Key-value pairs of an object; keys may repeat."""


TEXTS = [
    "", " ", "\0", "a\nb", "\ud800", "\u202e", "é" * 300, "[/bold]", "[link=x]y", "..", "../x",
    "/dev/zero", "null", "nan", "NaN", "true", "1", "-1", "1e999", "12,90",
    "2024-01-01", "2024-13-45T99:00:00Z", "9999-12-31T23:59:59Z", '{"a": 1}', "['a', 'b']", "u1", "i1",
    "x" * 5000, "http://127.0.0.1:9/x", "data:image/png;base64,AAAA", "__class__", "forward", "history", "user_id",
]  # fmt: skip
NUMBERS = [
    0, -0.0, 1, -1, 2, 0.5, 1.5, 10**6, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 10**30, 1e308, -1e308, 5e-324,
    True, False, Raw("NaN"), Raw("Infinity"), Raw("-Infinity"), Raw("1e999"), Raw("9" * 5000), Raw("-0"), Raw("1E400"),
]  # fmt: skip
SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.sampled_from(NUMBERS), st.sampled_from(TEXTS), st.text(max_size=8)
)
KEYS = st.one_of(st.sampled_from(TEXTS), st.text(max_size=6))


def nested(levels: int) -> Any:
    """A list in a list, `levels` deep."""
    return Raw("[" * levels + "]" * levels)


VALUES: st.SearchStrategy[Any] = st.one_of(
    SCALARS,
    st.recursive(
        SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=6
    ),
    st.sampled_from([3, 200, 100_000]).map(nested),
)


def encode(value: Any) -> bytes:
    """The document as JSON text, half surrogates escaped."""
    return _text(value).encode()


def _text(value: Any) -> str:
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, (dict, Pairs)):
        pairs = value.items() if isinstance(value, dict) else value
        return "{" + ", ".join(f"{json.dumps(str(key))}: {_text(inner)}" for key, inner in pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_text, value)) + "]"
    return json.dumps(value)


@st.composite
def mutated(
    draw: st.DrawFn, documents: st.SearchStrategy[Any], values: st.SearchStrategy[Any] = VALUES, most: int = 3
) -> Any:
    """A document with up to `most` places replaced, removed, renamed, doubled, wrapped in a list, or added to."""
    document = copy.deepcopy(draw(documents))
    for _ in range(draw(st.integers(0, most))):
        places = list(_places(document))
        if not places:
            return draw(values)
        holder, key = draw(st.sampled_from(places))
        how = draw(st.sampled_from(["replace", "replace", "replace", "remove", "rename", "double", "wrap", "add"]))
        if how == "remove":
            del holder[key]
        elif how == "wrap":
            holder[key] = [holder[key]]
        elif how == "rename" and isinstance(holder, dict):
            holder[draw(KEYS)] = holder.pop(key)
        elif how == "double" and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        elif how == "double" and isinstance(holder[key], dict) and holder[key]:
            first = next(iter(holder[key]))
            holder[key] = Pairs([*holder[key].items(), (first, draw(values))])
        elif how == "add" and isinstance(holder, dict):
            holder[draw(KEYS)] = draw(values)
        else:
            holder[key] = draw(values)
    return document


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of the document."""
    keys = (
        value
        if isinstance(value, dict)
        else range(len(value))
        if isinstance(value, list) and not isinstance(value, Pairs)
        else ()
    )
    for key in keys:
        yield value, key
        yield from _places(value[key])


@st.composite
def mutated_bytes(draw: st.DrawFn, texts: st.SearchStrategy[bytes]) -> bytes:
    """Bytes with a piece cut out, replaced, or a foreign encoding."""
    data = draw(texts)
    how = draw(st.sampled_from(["as it is"] * 6 + ["cut", "insert", "utf-16", "latin-1", "bom", "truncate"]))
    place = draw(st.integers(0, max(0, len(data) - 1)))
    if how == "cut":
        return data[:place] + data[place + draw(st.integers(1, 40)) :]
    if how == "insert":
        return data[:place] + draw(st.binary(min_size=1, max_size=4)) + data[place:]
    if how == "truncate":
        return data[:place]
    if how == "bom":
        return b"\xef\xbb\xbf" + data
    if how == "utf-16":
        return data.decode("utf-8", "replace").encode("utf-16")
    return data + "é".encode("latin-1") if how == "latin-1" else data


def from_schema(schema: Any, root: dict[str, Any], depth: int = 5) -> st.SearchStrategy[Any]:
    """Draw instances of a JSON Schema.

    Supports what schemas/ uses: types, enum, const, bounds, objects, arrays, references and unions.

    Below `depth` levels optional properties are left out. An instance need not be valid where keywords are combined.
    """
    if schema is True or schema == {}:
        return SCALARS
    if "$ref" in schema:
        return st.deferred(lambda: from_schema(_resolve(schema["$ref"], root), root, depth))
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return st.one_of([from_schema(branch, root, depth) for branch in schema[union]])
    if "allOf" in schema:
        parts = [from_schema(part, root, depth) for part in schema["allOf"]]
        return st.tuples(*parts).map(lambda found: {key: value for part in found for key, value in part.items()})
    types = schema.get("type", "object")
    return st.one_of([_typed(kind, schema, root, depth) for kind in ([types] if isinstance(types, str) else types)])


def _typed(kind: str, schema: dict[str, Any], root: dict[str, Any], depth: int) -> st.SearchStrategy[Any]:
    if kind == "object":
        return _objects(schema, root, depth)
    if kind == "array":
        least, most = schema.get("minItems", 0), schema.get("maxItems", 3)
        items = from_schema(schema.get("items", True), root, depth - 1)
        return st.lists(items, min_size=least, max_size=max(least, min(most, 3 if depth > 0 else least)))
    if kind in ("integer", "number"):
        low = schema.get("minimum", schema.get("exclusiveMinimum", -5))
        high = schema.get("maximum", schema.get("exclusiveMaximum", max(low, 0) + 20))
        if kind == "integer":
            return st.integers(
                int(low) + ("exclusiveMinimum" in schema), max(int(low) + 1, min(int(high), int(low) + 50))
            )
        edges = {"exclude_min": "exclusiveMinimum" in schema, "exclude_max": "exclusiveMaximum" in schema}
        return st.floats(low, high, allow_nan=False, **edges)
    if kind == "string":
        if "pattern" in schema:
            return st.from_regex(schema["pattern"], fullmatch=True)
        return st.sampled_from(TEXTS[16:]) if schema.get("minLength") else st.sampled_from(TEXTS)
    return {"boolean": st.booleans(), "null": st.none()}[kind]


def _objects(schema: dict[str, Any], root: dict[str, Any], depth: int) -> st.SearchStrategy[Any]:
    properties, required = schema.get("properties", {}), set(schema.get("required", ()))
    fixed = {name: from_schema(properties.get(name, True), root, depth - 1) for name in sorted(required)}
    free = {name: from_schema(part, root, depth - 1) for name, part in properties.items() if name not in required}
    known = st.fixed_dictionaries(fixed, optional=free if depth > 0 else {})
    more = schema.get("additionalProperties", False)
    if more is False or more is True or depth <= 0:
        return known
    return st.tuples(
        st.dictionaries(st.sampled_from(["a", "b", "text"]), from_schema(more, root, depth - 1), max_size=2), known
    ).map(lambda both: both[0] | both[1])


def _resolve(reference: str, root: dict[str, Any]) -> Any:
    found: Any = root
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found
