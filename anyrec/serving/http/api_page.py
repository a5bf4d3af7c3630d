"""The page `/docs`: the OpenAPI document for people, without scripts."""

from __future__ import annotations

import json
import re
from html import escape

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from anyrec.core.types import JsonObject

routes = APIRouter(include_in_schema=False)
HEAD = """<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <meta name="color-scheme" content="light dark">
  <title>anyrec: API</title>
  <link rel="icon" href="/page/icon.svg" type="image/svg+xml">
  <link rel="stylesheet" href="/page/style.css">
</head>
<body>
  <header class="top"><div class="brand"><a class="brand-name" href="/">anyrec</a></div></header>
  <main class="api">
    <h1>API</h1>
    <p class="lead">{about} As a document: <a href="/openapi.json">openapi.json</a>.</p>
"""


@routes.get("/docs", response_class=HTMLResponse)
async def api_page(request: Request) -> HTMLResponse:
    """Describe all routes: what they take, and what they return."""
    return HTMLResponse(as_html(request.app.openapi()))


def as_html(document: JsonObject) -> str:
    """Return an OpenAPI document as a page."""
    schemas = document["components"]["schemas"]
    paths = document["paths"].items()
    routes = [(f"{method.upper()} {path}", one) for path, methods in paths for method, one in methods.items()]
    parts = [HEAD.replace("{about}", escape(document["info"]["description"])), _contents([name for name, _ in routes])]
    for name, operation in routes:
        parts.append(f'<section class="panel" id="{_anchor(name)}"><h2><code>{escape(name)}</code></h2>')
        parts.append(f"<p>{_text(operation.get('description', ''))}</p>")
        parts.append(_table("Parameters", _parameters(operation)))
        body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
        parts.append(_table("Takes", _properties(body, schemas)))
        answer = operation["responses"].get("200", {}).get("content", {}).get("application/json", {})
        parts.append(_table("Returns", _properties(answer.get("schema", {}), schemas)))
        parts.append("</section>")
    parts.append("<h2>Messages</h2>")
    for name, message in schemas.items():
        rows = _properties({"$ref": name}, schemas)
        if rows:
            about = _text(message.get("description", ""))
            parts.append(f'<section class="panel" id="{name}"><h3><code>{name}</code></h3><p>{about}</p>')
            parts += [_table("Content", rows), "</section>"]
    return "\n".join(part for part in parts if part) + "\n</main>\n</body>\n</html>\n"


def _contents(names: list[str]) -> str:
    """Return links to all routes."""
    links = "".join(f'<li><a href="#{_anchor(name)}"><code>{escape(name)}</code></a></li>' for name in names)
    return f'<nav class="panel" aria-label="Routes"><ul>{links}</ul></nav>'


def _anchor(name: str) -> str:
    """Return the id of a route's section: `post-v1-recommend`."""
    return re.sub(r"\W+", "-", name.lower()).strip("-")


def _text(markdown: str) -> str:
    """Return a description as HTML: names between backticks are code."""
    return re.sub("`+([^`]+)`+", r"<code>\1</code>", escape(markdown))


def _parameters(operation: JsonObject) -> list[tuple[str, str, str]]:
    """Return name, type and description of each parameter in the path and the query."""
    found = operation.get("parameters", [])
    return [(one["name"], _type(one["schema"]), one.get("description", "")) for one in found]


def _properties(schema: JsonObject, schemas: JsonObject) -> list[tuple[str, str, str]]:
    """Return name, type and description of each property of a message."""
    message = schemas.get(schema.get("$ref", "").rpartition("/")[2], {})
    needed = message.get("required", [])
    return [
        (name, _type(one) + _limits(one) + (", required" if name in needed else ""), one.get("description", ""))
        for name, one in message.get("properties", {}).items()
    ]


def _limits(schema: JsonObject) -> str:
    """Return the bounds of a number, the longest list and the default of a value, in words."""
    found = [f"from {schema['minimum']:,.15g}"] if "minimum" in schema else []
    found += [f"{schema[name]:,.15g} at most" for name in ("maximum", "maxItems") if name in schema]
    found += [f"default {json.dumps(schema['default'])}"] if schema.get("default") not in (None, [], {}) else []
    return "".join(f", {one}" for one in found)


def _type(schema: JsonObject) -> str:
    """Return the type of a value in words."""
    if "$ref" in schema:
        return schema["$ref"].rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(one) for one in schema["anyOf"]))
    if "enum" in schema:
        return " or ".join(map(repr, schema["enum"]))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return schema.get("type", "any")


def _table(title: str, rows: list[tuple[str, str, str]]) -> str:
    """Return a table of values, or nothing if there are none."""
    if not rows:
        return ""
    cells = "".join(
        f'<tr><th scope="row"><code>{escape(name)}</code></th><td>{escape(kind)}</td><td>{_text(text)}</td></tr>'
        for name, kind, text in rows
    )
    head = '<thead><tr><th scope="col">name</th><th scope="col">type</th><th scope="col">meaning</th></tr></thead>'
    scroll = f'<div class="scroll" tabindex="0" role="group" aria-label="{title}">'
    return f"<h3>{title}</h3>{scroll}<table>{head}<tbody>{cells}</tbody></table></div>"
