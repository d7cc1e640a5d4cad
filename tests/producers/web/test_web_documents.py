"""The documents: one truth for machines and for people, made of what checks."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from web_house import BROADCASTS, PERMITS, Caller, House

from producers.web.http.problem import TITLES
from producers.web.routes import TABLE
from producers.web.routing.openapi import document
from producers.web.routing.page import page

DOCUMENT = document(TABLE)


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in DOCUMENT["paths"].items():
        for method, operation in item.items():
            yield method, path, operation


def test_every_route_is_in_it_once() -> None:
    found = [(method.upper(), path) for method, path, _ in operations()]
    assert sorted(found) == sorted((route.method, route.path) for route in TABLE)
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(set(names)) == len(names)


def test_every_reference_leads_somewhere() -> None:
    for reference in re.findall(r'"\$ref": ?"([^"]+)"', json.dumps(DOCUMENT)):
        place: Any = DOCUMENT
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]
        assert place


def test_whatever_is_asked_for_is_explained() -> None:
    for _, path, operation in operations():
        for parameter in operation.get("parameters", ()):
            assert parameter["description"], (path, parameter["name"])
    for name, schema in DOCUMENT["components"]["schemas"].items():
        assert schema.get("description"), name


def test_it_is_served_as_it_is_and_so_is_the_page(house: House) -> None:
    got = house.anybody.get("/openapi.json")
    assert (got.status, got.headers["content-type"]) == (200, "application/json")
    assert got.json == json.loads(json.dumps(DOCUMENT))
    page = house.anybody.get("/docs")
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    text = page.body.decode()
    for _, path, operation in operations():
        assert f'id="{operation["operationId"]}"' in text
        assert path in text
    for kind in TITLES:
        assert f'id="problem-{kind}"' in text
    assert "<script" not in text
    assert not re.search(r"(src|href)=.?(http|//)", text)
    assert "default-src 'none'" in page.headers["content-security-policy"]


def test_no_word_of_the_document_is_markup_on_the_page() -> None:
    def marked(value: Any, name: str = "") -> Any:
        if isinstance(value, dict):
            return {key: marked(one, key) for key, one in value.items()}
        if isinstance(value, list):
            return [marked(one, name) for one in value]
        is_word = name in {"title", "description", "summary", "pattern", "enum", "example"}
        return f"<script>{value}" if is_word and isinstance(value, str) else value

    text = page(marked(DOCUMENT))
    assert "<script" not in text
    assert text.count("&lt;script&gt;") > 200


@pytest.mark.parametrize("path", [PERMITS, BROADCASTS, "/v1/apps/shop/messages"])
def test_its_examples_are_taken(shop: Caller, path: str) -> None:
    operation = DOCUMENT["paths"][path.replace("shop", "{app}")]["post"]
    examples = list(examples_in(operation["requestBody"]["content"]["application/json"]["schema"]))
    assert examples
    for example in examples:
        assert shop.post(path, example).status in {200, 201}


def examples_in(schema: dict[str, Any]) -> Iterator[Any]:
    if "$ref" in schema:
        schema = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    yield from schema.get("examples", ())
    for one in schema.get("anyOf", ()):
        yield from examples_in(one)
