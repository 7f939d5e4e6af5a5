"""The reference at /docs: openapi.json as a plain page, without any script."""

import json
import shlex
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>VisionReasoner: reference</title><link rel="stylesheet" href="/page.css"></head>
<body class="reference"><main>
"""


def reference_page(openapi: Mapping[str, Any], *, needs_key: bool) -> str:
    """The page.

    Args:
        openapi: the description of the addresses.
        needs_key: whether callers must know a key.
    """
    key = '-H "Authorization: Bearer $VISION_REASONER_API_KEY" ' if needs_key else ""
    parts = [HEAD, f"<h1>{escape(openapi['info']['title'])} {escape(openapi['info']['version'])}</h1>"]
    parts.append(f"<p>{escape(openapi['info']['description'])} ")
    parts.append('<a href="/">The page</a>, <a href="/openapi.json">openapi.json</a>.</p>')
    for path, methods in openapi["paths"].items():
        for method, about in methods.items():
            parts += _operation(path, method.upper(), about, openapi, key)
    return "\n".join([*parts, "</main></body></html>\n"])


def _operation(path: str, method: str, about: Mapping[str, Any], openapi: Mapping[str, Any], key: str) -> Iterator[str]:
    yield f"<section><h2><code>{method} {escape(path)}</code></h2><p>{escape(about.get('summary', ''))}. "
    yield f"{escape(about.get('description', ''))}</p>"
    content: dict[str, Any] = about.get("requestBody", {}).get("content", {})
    first: dict[str, Any] = next(iter(content.values()), {})
    schema = _resolved(first.get("schema", {}), openapi)
    if schema:
        yield "<table><tr><th>field</th><th></th></tr>"
        for name, field in schema.get("properties", {}).items():
            needed = "" if name not in schema.get("required", ()) else " (needed)"
            yield f"<tr><td><code>{escape(name)}</code></td><td>{escape(_words(field))}{needed}</td></tr>"
        yield "</table>"
    yield f"<pre>{escape(_curl(path, method, content, key))}</pre>"
    for status, response in about.get("responses", {}).items():
        yield f"<p><strong>{escape(status)}</strong> {escape(response.get('description', ''))}</p>"
        if status != "200":
            continue
        for media in response.get("content", {}).values():
            if (example := media.get("example")) is not None:
                text = example if isinstance(example, str) else json.dumps(example, indent=1)
                yield f"<pre>{escape(text)}</pre>"
    yield "</section>"


def _resolved(schema: Mapping[str, Any], openapi: Mapping[str, Any]) -> Mapping[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    found: Mapping[str, Any] = openapi["components"]["schemas"][name] if name else schema
    return found


def _words(field: Mapping[str, Any]) -> str:
    """What a field may hold, in words."""
    kinds = field.get("enum") or [part.get("type", "object") for part in field.get("anyOf", [field])]
    described = field.get("description") or next(
        (part["description"] for part in field.get("anyOf", ()) if "description" in part), ""
    )
    default = f"; default {json.dumps(field['default'])}" if field.get("default") is not None else ""
    return f"{' or '.join(map(str, kinds))}{': ' if described else ''}{described}{default}"


def _curl(path: str, method: str, content: Mapping[str, Any], key: str) -> str:
    """A command that asks."""
    command = f"curl {key}http://localhost:8000{path}"
    example = content.get("application/json", {}).get("example")
    if "multipart/form-data" in content:
        fields = {name: value for name, value in (example or {}).items() if name != "image"}
        texts = [f"{k}={v if isinstance(v, str) else json.dumps(v)}" for k, v in fields.items()]
        return " ".join([command, "-F image=@photo.jpg", *(f"-F {shlex.quote(text)}" for text in texts)])
    if content:
        body = json.dumps(example) if example else "@body.json"
        return f"{command} -H 'Content-Type: application/json' -d {shlex.quote(body)}"
    return command if method == "GET" else f"{command} -X {method}"
