"""The page: the OpenAPI document as HTML for people, all in one file, without any script."""

from collections.abc import Iterator
from html import escape
from typing import Any, Final

import orjson

from producers.web.problem import TITLES

_STYLE: Final = """
:root{color-scheme:light dark;--line:#d8dee4;--soft:#f6f8fa;--dim:#59636e;--ink:#1f2328;--bg:#fff;
--get:#0969da;--post:#1a7f37;--put:#9a6700;--patch:#8250df;--delete:#cf222e}
@media(prefers-color-scheme:dark){:root{--line:#3d444d;--soft:#151b23;--dim:#9198a1;--ink:#f0f6fc;
--bg:#0d1117;--get:#4493f8;--post:#3fb950;--put:#d29922;--patch:#ab7df8;--delete:#f85149}}
*{box-sizing:border-box}html{scroll-behavior:smooth;scroll-padding-top:1rem}
body{margin:0;font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--bg);
display:grid;grid-template-columns:17rem minmax(0,1fr)}
nav{position:sticky;top:0;height:100vh;overflow:auto;padding:1.25rem;background:var(--soft);
border-right:1px solid var(--line);font-size:.875rem}
nav b{display:block;margin:1rem 0 .25rem}nav a{display:block;padding:.1rem 0}
main{padding:1.5rem 2.5rem 6rem;max-width:64rem}
a{color:inherit;text-decoration:none}a:hover{text-decoration:underline}
h1{margin:0 0 .5rem}h2{margin:3rem 0 .5rem;border-bottom:1px solid var(--line)}
h3{margin:0;font-size:1rem;font-weight:600}
article{border:1px solid var(--line);border-radius:.5rem;margin:1rem 0;overflow:hidden}
article>header{padding:.6rem 1rem;background:var(--soft);border-bottom:1px solid var(--line)}
article>div{padding:.25rem 1rem 1rem}
code,pre{font:.85em/1.45 ui-monospace,SFMono-Regular,Menlo,monospace}
pre{background:var(--soft);border-radius:.375rem;padding:.75rem 1rem;overflow:auto}
p code,td code,li code{background:var(--soft);border-radius:.25rem;padding:.1em .3em}
.m{font-weight:700;margin-right:.5rem}.get{color:var(--get)}.post{color:var(--post)}
.put{color:var(--put)}.patch{color:var(--patch)}.delete{color:var(--delete)}
.path{overflow-wrap:anywhere}.dim{color:var(--dim)}h4{margin:1rem 0 .25rem;font-size:.875rem}
table{border-collapse:collapse;width:100%;font-size:.875rem}
td,th{text-align:left;vertical-align:top;padding:.3rem .6rem;border-top:1px solid var(--line)}
th{border:0;color:var(--dim);font-weight:600}td:first-child{white-space:nowrap}
@media(max-width:50rem){body{display:block}nav{position:static;height:auto}main{padding:1rem}}
"""

_METHODS: Final = ("get", "put", "post", "patch", "delete")


def page(document: dict[str, Any]) -> str:
    """Return the page of an OpenAPI document."""
    return "".join(_Page(document).parts())


class _Page:
    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        self._schemas: dict[str, Any] = document["components"]["schemas"]
        self._operations: dict[str, list[tuple[str, str, dict[str, Any]]]] = {
            tag["name"]: [] for tag in document["tags"]
        }
        for path, item in document["paths"].items():
            for method in _METHODS:
                if method in item:
                    self._operations[item[method]["tags"][0]].append((method, path, item[method]))

    def parts(self) -> Iterator[str]:
        info = self._document["info"]
        yield (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            f"<title>{escape(info['title'])} API</title><style>{_STYLE}</style></head><body><nav>"
            f'<a href="#top"><strong>{escape(info["title"])} {escape(info["version"])}</strong></a>'
            '<a href="/openapi.json">openapi.json</a>'
        )
        for tag, operations in self._operations.items():
            yield f"<b>{escape(tag)}</b>"
            for method, _, operation in operations:
                yield (
                    f'<a href="#{operation["operationId"]}"><span class="m {method}">'
                    f"{method.upper()}</span>{escape(operation['summary'])}</a>"
                )
        yield '<b>Reference</b><a href="#problems">Problems</a><a href="#schemas">Schemas</a>'
        yield f'</nav><main id="top"><h1>{escape(info["title"])} API</h1>'
        yield _prose(info["description"])
        for tag, operations in self._operations.items():
            yield f"<h2>{escape(tag)}</h2>"
            for method, path, operation in operations:
                yield from self._operation(method, path, operation)
        yield from _problems()
        yield '<h2 id="schemas">Schemas</h2>'
        for name, schema in sorted(self._schemas.items()):
            yield f'<article id="schema-{escape(name)}"><header><h3>{escape(name)}</h3></header>'
            yield f"<div>{_prose(schema.get('description', ''))}{self._fields(schema)}</div>"
            yield "</article>"
        yield "</main></body></html>"

    def _operation(self, method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
        yield (
            f'<article id="{operation["operationId"]}"><header><h3>'
            f'<span class="m {method}">{method.upper()}</span>'
            f'<code class="path">{escape(path)}</code></h3>'
            f'<span class="dim">{escape(operation["summary"])}</span></header><div>'
        )
        yield _prose(operation.get("description", ""))
        if parameters := operation.get("parameters"):
            yield "<h4>Parameters</h4><table><tr><th>name<th>in<th>what"
            for one in parameters:
                need = " (required)" if one["required"] else ""
                yield (
                    f"<tr><td><code>{escape(one['name'])}</code><td>{one['in']}{need}"
                    f"<td>{_inline(one['description'])} {self._limits(one['schema'])}"
                )
            yield "</table>"
        if "requestBody" in operation:
            yield "<h4>Body</h4><table><tr><th>content type<th>what"
            for media, content in operation["requestBody"]["content"].items():
                yield f"<tr><td><code>{escape(media)}</code><td>{self._kind(content['schema'])}"
            yield "</table>"
        yield f"<h4>Example</h4><pre>{escape(self._example(method, path, operation))}</pre>"
        yield "<h4>Answers</h4><table><tr><th>status<th>what"
        for status, answer in operation["responses"].items():
            if "$ref" not in answer:
                kinds = [self._kind(one["schema"]) for one in answer["content"].values()]
                yield f"<tr><td>{status}<td>{_inline(answer['description'])} {' '.join(kinds)}"
        errors = [status for status, one in operation["responses"].items() if "$ref" in one]
        yield f'<tr><td class="dim">{", ".join(errors)}<td class="dim">'
        yield '<a href="#problems">problems</a></table></div></article>'

    def _fields(self, schema: dict[str, Any]) -> str:
        rows = [
            f"<tr><td><code>{escape(name)}</code><td>{self._kind(field)} {self._limits(field)}"
            f"<td>{_inline(field.get('description', ''))}"
            for name, field in schema.get("properties", {}).items()
        ]
        if not rows:
            return f"<p>{self._kind(schema)} {self._limits(schema)}</p>"
        return f"<table><tr><th>field<th>type<th>what{''.join(rows)}</table>"

    def _kind(self, schema: dict[str, Any]) -> str:
        """Return what a value is, in a few words."""
        if "$ref" in schema:
            name = escape(schema["$ref"].rpartition("/")[2])
            return f'<a href="#schema-{name}"><code>{name}</code></a>'
        if "anyOf" in schema:
            return " or ".join(self._kind(one) for one in schema["anyOf"])
        if schema.get("type") == "array":
            return f"list of {self._kind(schema.get('items', {}))}"
        if isinstance(more := schema.get("additionalProperties"), dict):
            return f"object of {self._kind(more)}"
        text = escape(str(schema.get("type", "anything")))
        if "properties" in schema:
            text += f" with {', '.join(f'<code>{escape(n)}</code>' for n in schema['properties'])}"
        elif schema.get("description") and "title" not in schema:
            text += f": {_inline(schema['description'])}"
        return text

    @staticmethod
    def _limits(schema: dict[str, Any]) -> str:
        words = []
        if "enum" in schema:
            words.append(", ".join(map(str, schema["enum"])))
        for key, sign in (("minimum", "≥"), ("maximum", "≤"), ("pattern", "")):
            if key in schema:
                words.append(f"{sign} {schema[key]}".strip())
        if schema.get("default") not in (None, ""):
            words.append(f"default {orjson.dumps(schema['default']).decode()}")
        return f'<span class="dim">{escape("; ".join(words))}</span>' if words else ""

    def _example(self, method: str, path: str, operation: dict[str, Any]) -> str:
        """Return a curl call."""
        for one in operation.get("parameters", ()):
            if one["in"] == "path":
                path = path.replace(f"{{{one['name']}}}", one["example"])
        call = f"curl -X {method.upper()} 'http://127.0.0.1:8080{path}'"
        if operation["security"]:
            name = "KEY" if "key" in operation["security"][0] else "TICKET"
            call += f' \\\n  -H "Authorization: Bearer ${name}"'
        content = operation.get("requestBody", {}).get("content", {})
        if "application/json" in content:
            body = orjson.dumps(self._sample(content["application/json"]["schema"])).decode()
            call += f" \\\n  -H 'Content-Type: application/json' \\\n  -d '{body}'"
        return call

    def _sample(self, schema: dict[str, Any]) -> Any:
        """Return a value that fits a schema."""
        if "$ref" in schema:
            return self._sample(self._schemas[schema["$ref"].rpartition("/")[2]])
        if schema.get("examples"):
            return schema["examples"][0]
        if "anyOf" in schema:
            return self._sample(schema["anyOf"][0])
        if "enum" in schema:
            return schema["enum"][0]
        if "properties" in schema:
            wanted = schema.get("required") or list(schema["properties"])[:1]
            return {name: self._sample(schema["properties"][name]) for name in wanted}
        if schema.get("type") == "array":
            return [self._sample(schema.get("items", {}))]
        plain: dict[str, Any] = {"integer": 1, "number": 1, "boolean": True, "object": {}}
        return plain.get(schema.get("type", ""), "…")


def _problems() -> Iterator[str]:
    yield (
        '<h2 id="problems">Problems</h2><p>Every error is a document of the type '
        "<code>application/problem+json</code>: type, title, status, detail, request_id, and, when "
        "the request is not valid, its faults one by one.</p>"
        "<table><tr><th>kind<th>status<th>what"
    )
    for kind, (status, title) in TITLES.items():
        yield (f'<tr id="problem-{kind}"><td><code>{kind}</code><td>{status}<td>{escape(title)}')
    yield "</table>"


def _prose(text: str) -> str:
    paragraphs = [part for part in text.split("\n\n") if part.strip()]
    return "".join(f"<p>{_inline(part)}</p>" for part in paragraphs)


def _inline(text: str) -> str:
    """Return a text with its `code` shown as such."""
    parts = text.split("`")
    return "".join(
        f"<code>{escape(part)}</code>" if place % 2 else escape(part)
        for place, part in enumerate(parts)
    )
