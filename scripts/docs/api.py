"""The API's pages, one for each tag of the gateway's OpenAPI document, and one for its schemas."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from scripts.docs.schemas import as_json, block, cell, fields, kind

Document = dict[str, Any]
METHODS = ("get", "post", "put", "patch", "delete")
FOLDER = "reference/api"


def document() -> Document:
    """The gateway's OpenAPI document."""
    from services.api.main import create_app

    found: Document = create_app().openapi()
    return found


def pages(api: Document) -> dict[str, str]:
    """Each page's Markdown, by its path in the site."""
    found = {f"{FOLDER}/index.md": _index(api)}
    for tag in api["tags"]:
        found[f"{FOLDER}/{tag['name']}.md"] = _tag(api, tag)
    found[f"{FOLDER}/schemas.md"] = _schemas(api)
    return found


def operations(api: Document, tag: str) -> Iterator[tuple[str, str, Document]]:
    """Method, path and operation of each route with a tag."""
    for path, methods in api["paths"].items():
        for method in METHODS:
            if method in methods and tag in methods[method].get("tags", []):
                yield method.upper(), path, methods[method]


def _link(name: str) -> str:
    return f"[{name}](schemas.md#{name.lower()})"


def _index(api: Document) -> str:
    info = api["info"]
    lines = [
        "# HTTP API",
        "",
        f"{info['description']} This is version {info['version']}, written from the gateway's own "
        "OpenAPI document, which a running one serves at `/openapi.json`.",
        "",
        "A caller sends its [key](../../access.md) as `Authorization: Bearer st_..`. Every answer "
        "has a `X-Request-Id`, every error is an `application/problem+json` "
        f"({_link('Problem')}).",
        "",
    ]
    for tag in api["tags"]:
        lines += [
            f"## [{tag['name']}]({tag['name']}.md)",
            "",
            tag["description"],
            "",
            "| | |",
            "|---|---|",
        ]
        for method, path, operation in operations(api, tag["name"]):
            anchor = f"{tag['name']}.md#{operation['operationId']}"
            lines.append(f"| [`{method} {path}`]({anchor}) | {cell(operation['summary'])} |")
        lines.append("")
    return "\n".join(lines)


def _tag(api: Document, tag: Document) -> str:
    lines = [f"# API: {tag['name']}", "", tag["description"], ""]
    for method, path, operation in operations(api, tag["name"]):
        lines += _operation(method, path, operation)
    return "\n".join(lines)


def _operation(method: str, path: str, operation: Document) -> list[str]:
    lines = [f"## {method} {path} {{#{operation['operationId']}}}", ""]
    lines += [operation["description"], ""]
    if operation.get("parameters"):
        lines += ["| parameter | in | type | default | meaning |", "|---|---|---|---|---|"]
        lines += [_parameter(one) for one in operation["parameters"]]
        lines.append("")
    for media, body in operation.get("requestBody", {}).get("content", {}).items():
        lines += [f"**Body** `{media}`: {kind(body.get('schema', {}), _link)}", ""]
    refusals = []
    for status, answer in operation["responses"].items():
        if int(status) >= 400:
            refusals.append(_refusal(status, answer))
            continue
        content = answer.get("content", {})
        if not content:
            lines += [f"**{status}**: no body", ""]
        for media, body in content.items():
            lines += [f"**{status}** `{media}`: {kind(body.get('schema', {}), _link)}", ""]
            if media == "text/event-stream" and "example" in body:
                lines += [*block("text", str(body["example"])), ""]
    if refusals:
        lines += ['??? note "Refusals"', "", "    | status | for example | |", "    |---|---|---|"]
        lines += [f"    {row}" for row in refusals]
        lines.append("")
    return lines


def _refusal(status: str, answer: Document) -> str:
    problem = answer.get("content", {}).get("application/problem+json", {}).get("example", {})
    code = f"`{problem['code']}`" if "code" in problem else ""
    return f"| {status} | {code} | {cell(problem.get('detail', answer['description']))} |"


def _parameter(one: Document) -> str:
    schema = one["schema"]
    default = f"`{schema['default']}`" if "default" in schema else ""
    return (
        f"| `{one['name']}` | {one['in']} | {cell(kind(schema, _link))} | "
        f"{'required' if one['required'] else default} | {cell(one.get('description', ''))} |"
    )


def _schemas(api: Document) -> str:
    lines = ["# API: schemas", "", "What bodies hold, by name.", ""]
    for name, schema in sorted(api["components"]["schemas"].items()):
        lines += [f"## {name} {{#{name.lower()}}}", ""]
        if schema.get("description"):
            lines += [schema["description"], ""]
        if schema.get("properties"):
            lines += [*fields(schema, lambda other: f"[{other}](#{other.lower()})"), ""]
        else:
            lines += [kind(schema, lambda other: f"[{other}](#{other.lower()})"), ""]
        if schema.get("examples"):
            lines += ["For example:", "", *as_json(schema["examples"][0]), ""]
    return "\n".join(lines)
