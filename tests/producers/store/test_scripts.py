"""Scripts: each is declared once, as its header says, and a repeated call carries one token."""

import importlib
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis

import producers
import workers
from producers.errors import StoreUnavailableError
from producers.store.lanes.fence import guarded
from producers.store.scripts import Bound, NoArgs, Script, source

ROOMS = [Path(package.__path__[0]) for package in (producers, workers)]
FILES = sorted(path for room in ROOMS for path in room.rglob("*.lua"))
DECLARES = re.compile(r"Script\(\s*__package__")
INCLUDED = re.compile(r"^--@include (\S+)$", re.MULTILINE)


def declared() -> dict[Path, Script[Any, Any]]:
    """Return each script's file → its declaration."""
    found = {}
    for module in (path for room in ROOMS for path in sorted(room.rglob("*.py"))):
        if not DECLARES.search(module.read_text()):
            continue
        parts = module.with_suffix("").relative_to(ROOMS[0].parent).parts
        for one in vars(importlib.import_module(".".join(parts))).values():
            if isinstance(one, Script) and one.package == ".".join(parts[:-1]):
                path = module.with_name(f"{one.name}.lua")
                assert found.setdefault(path, one) is one, f"{path} is declared twice"
    return found


DECLARED = declared()


def header(text: str) -> str:
    """Return the comment that a script begins with."""
    lines = []
    for line in text.removeprefix("#!lua flags=allow-oom\n").removeprefix("#!lua\n").splitlines():
        if not line.startswith("-- ") and line != "--":
            break
        lines.append(line.removeprefix("--"))
    return "\n".join(lines)


def numbered(text: str, what: str) -> list[str]:
    """Return the names that a part of a header gives to 1, 2 and so on."""
    ends = r"(?=^ (?:KEYS|ARGV|Returns|Found) |\Z)"
    part = re.search(rf"^ {what} (.*?){ends}", text, re.MULTILINE | re.DOTALL)
    names: list[str] = []
    rest = re.split(r"\bthen\b|^\s*per\b", part[1])[0] if part else ""
    while found := re.search(rf"(?:^|[\s,]){len(names) + 1} ([a-z_]+)", rest):
        names.append(found[1])
        rest = rest[found.end() :]
    return names


def test_each_file_is_declared_once_or_put_into_others() -> None:
    pieces = {
        ROOMS[0] / f"{name}.lua" for path in FILES for name in INCLUDED.findall(path.read_text())
    }
    assert set(DECLARED) | pieces == set(FILES)
    assert set(DECLARED) & pieces == set()


@pytest.mark.parametrize("path", sorted(DECLARED), ids=lambda path: path.stem)
def test_the_header_says_what_is_declared(path: Path) -> None:
    script, text = DECLARED[path], header(path.read_text())
    argv = numbered(text, "ARGV")
    head = ["token"] * script.token + ["now_ms"] * script.clock
    given = ["now_ms" if name == "now_us" else name for name in argv]
    assert given == [*head, *script.args._fields]
    assert numbered(text, "KEYS") == [*script.keys._fields]


class CountKeys(NamedTuple):
    reply: str
    count: str


class CountArgs(NamedTuple):
    by: int


COUNT = Script("tests", "count", CountKeys, CountArgs, token=True, clock=True)
KEYS = CountKeys("{n}reply", "{n}count")


class Lossy:
    """A client that runs what it is given, and loses some of the replies."""

    def __init__(self, losses: int = 0) -> None:
        self.losses = losses
        self.calls: list[tuple[list[str], list[Any]]] = []

    def register_script(self, text: str) -> "Lossy":
        self.text = text
        return self

    def __call__(self, keys: Any, args: Any, **_: Any) -> list[Any]:
        self.calls.append(([*keys], [*args]))
        if len(self.calls) <= self.losses:
            raise redis.ConnectionError
        return [*args]


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> "type[Lossy]":
    monkeypatch.setattr("producers.store.scripts.source", lambda package, name: f"{package} {name}")
    monkeypatch.setattr("time.sleep", lambda _: None)
    return Lossy


def test_arguments_follow_token_and_clock_and_what_repeats_follows_them(count: type[Lossy]) -> None:
    client = count()
    bound: Bound[CountKeys, CountArgs] = COUNT.on(client)
    bound(KEYS, CountArgs(3), ["a", 1], more_keys=["{n}a"], token="t", now=5)
    assert client.calls == [(["{n}reply", "{n}count", "{n}a"], ["t", 5, 3, "a", 1])]
    plain = Script("tests", "plain", CountKeys, NoArgs).on(client)
    plain(KEYS, NoArgs())
    assert client.calls[1:] == [(["{n}reply", "{n}count"], [])]


def test_each_call_has_a_token_of_its_own_and_the_servers_clock(count: type[Lossy]) -> None:
    client = count()
    for _ in range(2):
        COUNT.on(client)(KEYS, CountArgs(1))
    (_, first), (_, second) = client.calls
    assert first[1:] == second[1:] == ["", 1]
    assert first[0] != second[0]
    assert len(first[0]) == 32


def test_a_lost_reply_is_asked_for_with_the_same_token(count: type[Lossy]) -> None:
    client = count(losses=3)
    answer = COUNT.on(client).repeated("counting", KEYS, CountArgs(1))
    assert len(client.calls) == 4
    assert all(call == client.calls[0] for call in client.calls)
    assert answer[1:] == ["", 1]


def test_what_is_never_answered_is_said(count: type[Lossy]) -> None:
    with pytest.raises(StoreUnavailableError, match="while counting"):
        COUNT.on(count(losses=99)).repeated("counting", KEYS, CountArgs(1))


def test_a_script_runs_on_a_full_redis_where_its_caller_says_so(count: type[Lossy]) -> None:
    client = count()
    COUNT.on(client)
    assert client.text == guarded("tests count")
    COUNT.on(client, when_full=True)
    assert client.text == guarded("#!lua flags=allow-oom\ntests count")
    assert client.text.startswith("#!lua flags=allow-oom\n")


@pytest.mark.parametrize("path", sorted(DECLARED), ids=lambda path: path.stem)
def test_each_piece_is_put_in_once(path: Path) -> None:
    script = DECLARED[path]
    text = source(script.package, script.name)
    assert INCLUDED.findall(text) == []
    functions = re.findall(r"^local function (\w+)", text, re.MULTILINE)
    assert len(functions) == len(set(functions))


LUA = """
and break do else elseif end false for function if in local nil not or repeat return then true until
while KEYS ARGV redis cjson cmsgpack string table math error ipairs pairs select tonumber tostring
type
unpack
"""
"""Words of Lua, and what Redis gives a script."""


def unknown(text: str) -> set[str]:
    """Return the names in a Lua text that nothing in it declares."""
    text = re.sub(r"'(?:\\.|[^'\\])*'", "''", re.sub(r"--.*|^#!.*", "", text, flags=re.MULTILINE))
    declared = [
        *re.findall(r"local function (\w+)", text),
        *re.findall(r"function[ \w]*\(([^)]*)\)", text),
        *re.findall(r"local (?!function)([\w\s,]+?)(?=\s*=|\s*$|\s+local\b)", text, re.MULTILINE),
        *re.findall(r"\bfor ([\w\s,]+?) (?:in|=)", text),
        *re.findall(r"[{,]\s*(\w+)\s*=", text),  # fields
    ]
    known = {name for some in declared for name in re.findall(r"\w+", some)}
    return set(re.findall(r"(?<![\w.:])([A-Za-z_]\w*)", text)) - known - set(LUA.split())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_nothing_is_expected_of_whoever_includes_it(path: Path) -> None:
    room = ".".join(path.relative_to(ROOMS[0].parent).parent.parts)
    assert unknown(source(room, path.stem)) == set()
