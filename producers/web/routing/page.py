"""The page: the OpenAPI document as HTML for people, all in one file, without any script.

``page.html`` is its template, ``page.css`` its style; here are the words that need reckoning.
"""

from importlib.resources import files
from typing import Any, Final

import orjson

from producers.web.http.problem import TITLES

_METHODS: Final = ("get", "put", "post", "patch", "delete")


def page(document: dict[str, Any]) -> str:
    """Return the page of an OpenAPI document."""
    from jinja2 import Environment, FunctionLoader  # noqa: PLC0415 - nothing else needs it

    templates = Environment(loader=FunctionLoader(_text), autoescape=True)
    schemas: dict[str, Any] = document["components"]["schemas"]
    return templates.get_template("page.html").render(
        info=document["info"],
        chapters=_chapters(document),
        schemas=schemas,
        problems=TITLES,
        limits=_limits,
        example=lambda operation: _example(operation, schemas),
    )


def _text(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")


def _chapters(document: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the operations by tag, each with its method and path."""
    made: dict[str, list[dict[str, Any]]] = {tag["name"]: [] for tag in document["tags"]}
    for path, item in document["paths"].items():
        for method in _METHODS:
            if method in item:
                one = {**item[method], "method": method, "path": path}
                made[one["tags"][0]].append(one)
    return made


def _limits(schema: dict[str, Any]) -> str:
    """Return what a value may be, beside its kind."""
    words = []
    if "enum" in schema:
        words.append(", ".join(map(str, schema["enum"])))
    for key, sign in (("minimum", "≥"), ("maximum", "≤"), ("pattern", "")):
        if key in schema:
            words.append(f"{sign} {schema[key]}".strip())
    if schema.get("default") not in (None, ""):
        words.append(f"default {orjson.dumps(schema['default']).decode()}")
    return "; ".join(words)


def _example(operation: dict[str, Any], schemas: dict[str, Any]) -> str:
    """Return a curl call."""
    path = operation["path"]
    for one in operation.get("parameters", ()):
        if one["in"] == "path":
            path = path.replace(f"{{{one['name']}}}", one["example"])
    call = f"curl -X {operation['method'].upper()} 'http://127.0.0.1:8080{path}'"
    if operation["security"]:
        name = "KEY" if "key" in operation["security"][0] else "TICKET"
        call += f' \\\n  -H "Authorization: Bearer ${name}"'
    content = operation.get("requestBody", {}).get("content", {})
    if "application/json" in content:
        body = orjson.dumps(_sample(content["application/json"]["schema"], schemas)).decode()
        call += f" \\\n  -H 'Content-Type: application/json' \\\n  -d '{body}'"
    return call


def _sample(schema: dict[str, Any], schemas: dict[str, Any]) -> Any:
    """Return a value that fits a schema."""
    if "$ref" in schema:
        return _sample(schemas[schema["$ref"].rpartition("/")[2]], schemas)
    if schema.get("examples"):
        return schema["examples"][0]
    if "anyOf" in schema:
        return _sample(schema["anyOf"][0], schemas)
    if "enum" in schema:
        return schema["enum"][0]
    if "properties" in schema:
        wanted = schema.get("required") or list(schema["properties"])[:1]
        return {name: _sample(schema["properties"][name], schemas) for name in wanted}
    if schema.get("type") == "array":
        return [_sample(schema.get("items", {}), schemas)]
    plain: dict[str, Any] = {"integer": 1, "number": 1, "boolean": True, "object": {}}
    return plain.get(schema.get("type", ""), "…")
