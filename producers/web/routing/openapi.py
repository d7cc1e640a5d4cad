"""The OpenAPI 3.1 document, made from the table of routes and the models that check.

Schemas are pydantic's own. Of the library's dataclasses the descriptions come from the
``Attributes:`` of their docstrings.

Own code, because generators for aiohttp read handlers and annotations of theirs; this reads the
table that the router and the body reader obey, so it says nothing else than they do.
"""

import dataclasses
import inspect
import re
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Final

from pydantic import TypeAdapter

from producers.access.api_keys import Scope
from producers.web.http.media import CSV, EVENTS, FORM, JSON, NDJSON
from producers.web.http.problem import MEDIA, TITLES, Problem
from producers.web.routing.route import PARAMETERS, Body, Open, Reply, Route
from producers.web.traffic.idempotency import HEADER
from producers.web.traffic.idempotency import PATTERN as KEY_PATTERN

_REF: Final = "#/components/schemas/{model}"
_ATTRIBUTE: Final = re.compile(r"^(\w+(?:, \w+)*): (.*)$")

_ABOUT: Final = """\
Collects the permits that users of a WeChat mini-program give, and spends them in broadcasts.

Every call but those of the mini-program's door, WeChat's callbacks and the service itself needs an
API key, made by `wxbroadcast keys create`: `Authorization: Bearer wxb_…`. A key is for some apps
and some of the scopes collect, send, read, admin, and may send so many requests per second.

Errors are problems (RFC 9457), with the request's id, which is in the logs too.

What creates something takes an `Idempotency-Key`: the same key and body within 24 hours get the
first answer again; another body gets 422, a first request that is still at work 409. Only what
succeeded is kept.

Lists come in pages: send `next_cursor` of one as `cursor` of the next, until it is empty.
"""


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """Return the document."""
    schemas = _Schemas(routes)
    paths: dict[str, Any] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    for route in routes:  # a query's parameters stand at the operation
        if route.query is not None:
            schemas.definitions.pop(route.query.__name__, None)
    tags = list(dict.fromkeys(route.tag for route in routes))
    return {
        "openapi": "3.1.0",
        "info": {"title": "wxbroadcast", "version": version("wxbroadcast"), "description": _ABOUT},
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "tags": [{"name": tag} for tag in tags],
        "paths": paths,
        "components": {
            "schemas": schemas.definitions,
            "responses": _problems(),
            "headers": {
                "RequestId": {
                    "description": "the request's X-Request-Id, if it was sane, else ours",
                    "required": True,
                    "schema": {"type": "string", "pattern": r"^[A-Za-z0-9._-]{1,64}$"},
                },
                "RetryAfter": {
                    "description": "seconds until it is worth trying again",
                    "schema": {"type": "integer", "minimum": 1},
                },
            },
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "an API key, wxb_…"},
                "ticket": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "a collector ticket, as login gave it",
                },
            },
        },
    }


class _Schemas:
    """The schemas of all bodies, queries and answers, each defined once."""

    def __init__(self, routes: Sequence[Route]) -> None:
        adapters: dict[int, TypeAdapter[Any]] = {}
        inputs: list[tuple[int, Any, TypeAdapter[Any]]] = []

        def want(thing: Any, mode: str) -> None:
            if id(thing) not in adapters:
                made = thing if isinstance(thing, TypeAdapter) else TypeAdapter(thing)
                adapters[id(thing)] = made
                inputs.append((id(thing), mode, made))

        want(Problem, "serialization")
        models: dict[str, type[Any]] = {}
        for route in routes:
            if route.body is not None and route.body.model is not None:
                want(route.body.model, "validation")
            if route.body is not None and route.body.form is not None:
                want(route.body.form, "validation")
            if route.query is not None:
                want(route.query, "validation")
            for reply in route.replies.values():
                if reply.model is not None:
                    want(reply.model, "serialization")
                    _find_dataclasses(reply.model, models)
        found, shared = TypeAdapter.json_schemas(inputs, ref_template=_REF)
        self._by_id = {key: schema for (key, _), schema in found.items()}
        self.definitions: dict[str, Any] = shared.get("$defs", {})
        for name, schema in self.definitions.items():
            _describe(schema, models.get(name))

    def of(self, thing: Any) -> dict[str, Any]:
        """Return the schema of a model or an adapter."""
        return dict(self._by_id[id(thing)])

    def fields(self, model: Any) -> dict[str, Any]:
        """Return the schema of a model itself, not a reference to it."""
        schema = self.of(model)
        if "$ref" in schema:
            return dict(self.definitions[schema["$ref"].rpartition("/")[2]])
        return schema


def _operation(route: Route, schemas: _Schemas) -> dict[str, Any]:
    made: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "tags": [route.tag],
        "security": _security(route),
        "responses": _responses(route, schemas),
    }
    texts = [route.text] if route.text else []
    if isinstance(route.access, Scope):
        texts.append(f"Scope: `{route.access.value}`.")
    if texts:
        made["description"] = "\n\n".join(texts)
    if parameters := _parameters(route, schemas):
        made["parameters"] = parameters
    if route.body is not None:
        made["requestBody"] = _request_body(route.body, schemas)
    return made


def _security(route: Route) -> list[dict[str, list[str]]]:
    made: list[dict[str, list[str]]] = []
    if isinstance(route.access, Scope):
        made.append({"key": []})
    if route.or_ticket or route.access is Open.TICKET:
        made.append({"ticket": []})
    return made


def _parameters(route: Route, schemas: _Schemas) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    for name in re.findall(r"{(\w+)}", route.path):
        one = PARAMETERS[name]
        made.append(
            {
                "name": name,
                "in": "path",
                "required": True,
                "description": one.text,
                "schema": {"type": "string", "pattern": f"^{one.pattern}$"},
                "example": one.example,
            }
        )
    if route.query is not None:
        model = schemas.fields(route.query)
        required = set(model.get("required", ()))
        for name, schema in model["properties"].items():
            shown = {key: value for key, value in schema.items() if key != "title"}
            one_of = [kind for kind in shown.get("anyOf", ()) if kind != {"type": "null"}]
            if len(one_of) == 1:  # in a query, what may be left out is not null
                del shown["anyOf"]
                shown = {**one_of[0], **shown}
            if shown.get("default", 0) is None:
                del shown["default"]
            made.append(
                {
                    "name": name,
                    "in": "query",
                    "required": name in required,
                    "description": shown.pop("description", ""),
                    "schema": shown,
                }
            )
    if route.creates:
        made.append(
            {
                "name": HEADER,
                "in": "header",
                "required": False,
                "description": "the same key and body: the same answer, for 24 hours",
                "schema": {"type": "string", "pattern": f"^{KEY_PATTERN}$"},
            }
        )
    return made


def _request_body(body: Body, schemas: _Schemas) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if body.model is not None:
        content[JSON] = {"schema": schemas.of(body.model)}
    for media, text in body.streams.items():
        content[media] = {"schema": {"type": "string", "description": text}}
    if body.form is not None:
        rows = {"type": "string", "description": body.rows}
        content[FORM] = {
            "schema": {
                "type": "object",
                "additionalProperties": False,
                "required": ["spec", "rows"],
                "properties": {"spec": schemas.of(body.form), "rows": rows},
            },
            "encoding": {
                "spec": {"contentType": JSON},
                "rows": {"contentType": f"{CSV}, {NDJSON}"},
            },
        }
    if body.raw:
        content["*/*"] = {"schema": {"type": "string"}}
    return {"required": body.required, "content": content}


def _responses(route: Route, schemas: _Schemas) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for status in route.statuses:
        reply = route.replies.get(status)
        if reply is not None:
            made[str(status)] = _reply(route, reply, schemas)
        else:
            made[str(status)] = {"$ref": f"#/components/responses/{status}"}
    return made


def _reply(route: Route, reply: Reply, schemas: _Schemas) -> dict[str, Any]:
    headers: dict[str, Any] = {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}}
    for name, text in reply.headers.items():
        headers[name] = {"description": text, "required": True, "schema": {"type": "string"}}
    if route.creates:
        headers["Idempotent-Replay"] = {
            "description": "true when this is the answer of an earlier request",
            "schema": {"type": "string", "enum": ["true"]},
        }
    content: dict[str, Any] = {}
    if reply.model is not None:
        content[JSON] = {"schema": schemas.of(reply.model)}
    for media in reply.media:
        content[media] = {"schema": {} if media in {JSON, EVENTS} else {"type": "string"}}
    return {"description": reply.text, "headers": headers, "content": content}


def _problems() -> dict[str, Any]:
    """Return one response per status that a problem can have."""
    made: dict[str, Any] = {}
    for kind, (status, title) in TITLES.items():
        one = made.setdefault(
            str(status),
            {
                "description": "",
                "headers": {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}},
                "content": {MEDIA: {"schema": {"$ref": _REF.format(model="Problem")}}},
            },
        )
        one["description"] += f"{'; ' if one['description'] else ''}{kind}: {title}"
        if status in {429, 503}:
            one["headers"]["Retry-After"] = {"$ref": "#/components/headers/RetryAfter"}
        if status == 401:
            one["headers"]["WWW-Authenticate"] = {
                "required": True,
                "schema": {"type": "string"},
                "description": "Bearer",
            }
    return made


def _find_dataclasses(model: Any, found: dict[str, type[Any]]) -> None:
    """Collect the dataclasses that a model is made of, by name."""
    if dataclasses.is_dataclass(model) and isinstance(model, type):
        found[model.__name__] = model
        kinds = [one.type for one in dataclasses.fields(model)]
    else:
        kinds = [one.annotation for one in getattr(model, "model_fields", {}).values()]
    for kind in kinds:
        for part in (kind, *getattr(kind, "__args__", ())):
            if isinstance(part, type) and part.__name__ not in found:
                _find_dataclasses(part, found)


def _describe(schema: dict[str, Any], model: type[Any] | None) -> None:
    """Put the words of a dataclass's docstring into its schema."""
    if model is None:
        return
    first, _, attributes = (inspect.getdoc(model) or "").partition("Attributes:")
    schema["description"] = " ".join(first.split())
    words: dict[str, str] = {}
    names: list[str] = []
    for line in inspect.cleandoc(attributes).splitlines():
        if found := _ATTRIBUTE.match(line):
            names = found[1].split(", ")
            words.update(dict.fromkeys(names, found[2]))
        else:
            words.update({name: f"{words[name]} {line.strip()}" for name in names})
    for name, field in schema.get("properties", {}).items():
        if name in words:
            field["description"] = words[name].replace("``", "`")
