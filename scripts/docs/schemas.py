"""JSON Schema as Markdown: a table of fields, a short name for a type."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

Json = Mapping[str, Any]
Link = Callable[[str], str]
"""The Markdown that names a schema of the document."""
BOUNDS = (
    ("minimum", "at least {}"),
    ("exclusiveMinimum", "above {}"),
    ("maximum", "at most {}"),
    ("exclusiveMaximum", "below {}"),
    ("minLength", "at least {} characters"),
    ("maxLength", "at most {} characters"),
    ("minItems", "at least {} items"),
    ("maxItems", "at most {} items"),
)


def cell(text: str) -> str:
    """Text that may stand in a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def kind(schema: Json, link: Link) -> str:
    """A type in words: `string`, `array of X`, `"A" or "B"`."""
    if "$ref" in schema:
        return link(schema["$ref"].rpartition("/")[2])
    if "enum" in schema:
        return " or ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            kinds = [kind(one, link) for one in schema[several]]
            return " or ".join(dict.fromkeys(kinds))
    if schema.get("type") == "array":
        return f"array of {kind(schema.get('items', {}), link)}"
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {kind(schema['additionalProperties'], link)}"
    form = f" ({schema['format']})" if "format" in schema else ""
    return f"{schema.get('type', 'any')}{form}"


def bounds(schema: Json) -> str:
    """What a value must keep to, in words."""
    parts = [schema, *schema.get("anyOf", [])]
    said = [
        text.format(f"{part[name]:,}".removesuffix(".0"))
        for part in parts
        for name, text in BOUNDS
        if name in part
    ]
    return ", ".join(dict.fromkeys(said))


def fields(schema: Json, link: Link) -> list[str]:
    """A table of an object's fields."""
    required = set(schema.get("required", []))
    lines = ["| field | type | default | meaning |", "|---|---|---|---|"]
    for name, field in schema.get("properties", {}).items():
        default = f"`{json.dumps(field['default'])}`" if "default" in field else ""
        meaning = " ".join(
            part
            for part in (
                field.get("description", ""),
                f"({bounds(field)})" if bounds(field) else "",
            )
            if part
        )
        lines.append(
            f"| `{name}` | {cell(kind(field, link))} | "
            f"{'required' if name in required else cell(default)} | {cell(meaning)} |"
        )
    return lines


def block(language: str, text: str) -> list[str]:
    """A fenced block, longer fences than the text has."""
    fence = "```"
    while fence in text:
        fence += "`"
    return [f"{fence}{language}", *text.splitlines(), fence]


def as_json(value: Any) -> list[str]:
    """A block with a value as JSON."""
    return block("json", json.dumps(value, indent=2, ensure_ascii=False))
