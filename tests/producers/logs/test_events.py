"""The catalogue of log events: fixed names and types, and a schema that every line obeys."""

import dataclasses
import inspect
import json
import re
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from log_lines import recorded

from producers import logs
from producers.logs import events, meanings
from producers.logs.events import Event

CATALOGUE = list(events.catalogue())
SCHEMA = events.json_schema()
RELEASED = json.loads(Path(__file__).with_name("released.json").read_bytes())
"""The catalogue of the last release, as `wxbroadcast events --json` printed it: field → type."""
SAMPLES: dict[type, Any] = {
    str: "x",
    int: 7,
    bool: True,
    float: 1.5,
    dict[str, int]: {"x": 7},
}
JSON_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
}


def sample(model: type[Event]) -> Event:
    hints = get_type_hints(model)
    return model(**{field.name: SAMPLES[hints[field.name]] for field in dataclasses.fields(model)})


def faults(line: dict[str, Any], schema: dict[str, Any]) -> list[str]:
    """Check a line against one schema of the catalogue, as JSON Schema means it."""
    found = [f"{name} is missing" for name in schema["required"] if name not in line]
    for name, value in line.items():
        wanted = schema["properties"].get(name)
        if wanted is None:
            found += [] if schema["additionalProperties"] else [f"{name} is unknown"]
        elif "const" in wanted:
            found += [] if value == wanted["const"] else [f"{name} is {value!r}"]
        elif "enum" in wanted:
            found += [] if value in wanted["enum"] else [f"{name} is {value!r}"]
        elif type(value) not in JSON_TYPES[wanted["type"]]:
            found.append(f"{name} is {value!r}")
    return found


def matching(line: dict[str, Any]) -> list[str]:
    """Return the events of the schema that a line is."""
    return [
        schema["properties"]["event"]["const"]
        for schema in SCHEMA["oneOf"]
        if not faults(line, schema)
    ]


def test_names_are_unique_snake_case_and_sorted() -> None:
    names = [model.name() for model in CATALOGUE]
    assert names == sorted(set(names))
    assert len(names) > 15
    assert [name for name in names if not re.fullmatch(r"[a-z]+(_[a-z]+)*", name)] == []
    for model in CATALOGUE:
        assert model.name().replace("_", "") == model.__name__.lower()


@pytest.mark.parametrize("model", CATALOGUE, ids=lambda model: model.name())
def test_every_event_says_what_it_is_and_has_typed_fields(model: type[Event]) -> None:
    doc = inspect.getdoc(model) or ""
    assert not doc.startswith(f"{model.__name__}(")
    assert doc.split("\n")[0].endswith((".", ":"))
    assert model.LEVEL in ("debug", "info", "warning", "error")
    hints = get_type_hints(model)
    for field in dataclasses.fields(model):
        assert hints[field.name] in SAMPLES
        assert field.default is dataclasses.MISSING  # a line always carries all of its fields


def test_every_field_says_what_it_means_and_every_meaning_is_some_fields() -> None:
    """What a name says is written once; only what differs stands beside its event."""
    used = set()
    for model in CATALOGUE:
        for field in dataclasses.fields(model):
            own = f"{model.name()}.{field.name}"
            used |= {own} if own in meanings.MEANINGS else {field.name}
            text, _ = meanings.meaning_of(model.name(), field.name)
            assert text
    assert set(meanings.MEANINGS) == used
    assert set(meanings.HEAD) == {"event", "schema", "time", "level", "process", "dropped_lines"}


def test_what_was_released_is_still_there() -> None:
    """Dashboards of the last release go on: events and fields are only added, types are kept."""
    now = {model.name(): _types(model) for model in CATALOGUE}
    assert RELEASED["schema"] == events.SCHEMA
    for event, fields in RELEASED["events"].items():
        assert fields.items() <= now[event].items(), event


def _types(model: type[Event]) -> dict[str, str]:
    hints = get_type_hints(model)
    return {
        field.name: getattr(hints[field.name], "__name__", "")
        for field in dataclasses.fields(model)
    }


def test_no_field_is_called_as_what_every_line_has() -> None:
    heads = {"event", "schema", "time", "level", "process", "dropped_lines"}
    for model in CATALOGUE:
        assert not heads & {field.name for field in dataclasses.fields(model)}


def test_a_line_about_a_send_carries_what_dashboards_group_by() -> None:
    fields = {field.name for field in dataclasses.fields(events.MessageSettled)}
    assert fields >= {
        "app",
        "broadcast",
        "lane",
        "attempt",
        "outcome",
        "errcode",
        "rid",
        "permit_kind",
        "latency_ms",
    }


def test_no_field_holds_what_must_not_be_logged() -> None:
    for model in CATALOGUE:
        names = {field.name for field in dataclasses.fields(model)}
        assert not {name for name in names if re.search(r"secret|token|session|permit_id", name)}


def test_every_event_written_is_exactly_one_of_the_schema(tmp_path: Path) -> None:
    with recorded(tmp_path) as read:
        for model in CATALOGUE:
            logs.emit(sample(model))
        lines = read()
    assert [line["event"] for line in lines] == [model.name() for model in CATALOGUE]
    for line, model in zip(lines, CATALOGUE, strict=True):
        assert matching(line) == [model.name()]
        assert line["level"] == model.LEVEL


def test_what_is_not_in_the_catalogue_is_not_in_the_schema(tmp_path: Path) -> None:
    with recorded(tmp_path) as read:
        logs.emit(sample(events.LimitLifted))
        (line,) = read()
    assert matching(line) == ["limit_lifted"]
    assert matching({**line, "dropped_lines": 3}) == ["limit_lifted"]
    assert matching({**line, "more": 1}) == []
    assert matching({**line, "app": 1}) == []
    assert matching({**line, "event": "limit_raised"}) == []
    assert matching({name: value for name, value in line.items() if name != "app"}) == []


def test_the_schema_is_json_and_stands_alone() -> None:
    schema = events.json_schema()
    assert json.loads(json.dumps(schema)) == schema
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert len(schema["oneOf"]) == len(CATALOGUE)
    assert "$ref" not in json.dumps(schema)
    for each in schema["oneOf"]:
        assert each["type"] == "object"
        assert set(each["required"]) == set(each["properties"]) - {"dropped_lines"}


def test_an_event_cannot_be_left_half_filled() -> None:
    with pytest.raises(TypeError):
        events.LimitLifted()  # type: ignore[call-arg]
