"""``wxbroadcast web`` as processes: one or several on a port, ended gracefully, or killed."""

import contextlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_runs import command, run, variables
from web_house import PERMITS, Caller, Wire, connect

from producers.settings import Settings

pytestmark = pytest.mark.timeout(90)
Eventually = Callable[..., Any]


class Web:
    """``wxbroadcast web`` as a process, and what it logged."""

    def __init__(self, settings: Settings, folder: Path, *options: object) -> None:
        self._log = folder / "web.log"
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                command("web", *options),
                env={**os.environ, **variables(settings), "WXB_WEB_PORT": "0"},
                stdout=log,
                stderr=log,
                cwd=folder,
                start_new_session=True,
            )

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    def text(self) -> str:
        return self._log.read_text()

    def port(self) -> int:
        return int(self.events("web_started")[0]["port"])

    def pids(self) -> list[int]:
        return [line["pid"] for line in self.events("web_started")]

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


@pytest.fixture
def start(settings: Settings, client: Any, tmp_path: Path) -> Iterator[Callable[..., Web]]:
    running: list[Web] = []

    def begin(*options: object) -> Web:
        folder = tmp_path / str(len(running))
        folder.mkdir()
        running.append(Web(settings, folder, *options))
        return running[-1]

    yield begin
    for web in running:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(web.process.pid, signal.SIGKILL)
        web.process.wait(20)


@pytest.fixture
def token(settings: Settings, client: Any) -> str:
    made = run(settings, "keys", "create", "-a", "shop", "-s", "collect", "-n", "n", "--json")
    return str(made.json["key"])


def test_on_sigterm_what_runs_is_finished_and_nothing_new_is_taken(
    start: Callable[..., Web], token: str, eventually: Eventually
) -> None:
    web = start()
    eventually(lambda: web.events("web_started"), "it listens")
    port = web.port()
    halfway, on = threading.Event(), threading.Event()
    got = []

    def lines() -> Iterator[bytes]:
        yield b'{"openid":"oA","formId":"f1"}\n'
        halfway.set()
        on.wait(20)
        yield b'{"openid":"oA","formId":"f2"}\n'

    def call() -> None:
        got.append(Caller(port, token).post(PERMITS, lines(), "application/x-ndjson"))

    with contextlib.closing(Wire(connect(port))) as idle:
        idle.send(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
        assert idle.answer().status == 200
        caller = threading.Thread(target=call)
        caller.start()
        assert halfway.wait(20)
        Caller(port, token).post(PERMITS, {"openid": "oB", "formId": "f"})  # it is at work by now
        web.process.send_signal(signal.SIGTERM)
        assert idle.is_closed()
    eventually(lambda: web.events("web_stopping"), "it stops")
    with pytest.raises(ConnectionError):
        Caller(port).get("/healthz")
    on.set()
    caller.join()
    assert got[0].json["new"] == 2
    assert got[0].headers["connection"] == "close"
    assert web.process.wait(20) == 0
    [stopped] = web.events("web_stopped")
    assert stopped["requests"] == 0


def test_whoever_does_not_end_is_cut_after_eight_seconds(
    start: Callable[..., Web], token: str, eventually: Eventually
) -> None:
    web = start()
    eventually(lambda: web.events("web_started"), "it listens")
    with contextlib.closing(Wire(connect(web.port()))) as wire:
        wire.send(
            f"POST {PERMITS} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n"
            "Content-Type: application/x-ndjson\r\nContent-Length: 100\r\n\r\n{".encode()
        )
        Caller(web.port(), token).post(PERMITS, {"openid": "oB", "formId": "f"})
        assert web.end() == 0
        assert wire.is_closed()


def test_several_processes_share_a_port_and_come_back(
    start: Callable[..., Web], token: str, eventually: Eventually
) -> None:
    web = start("--processes", 2)
    eventually(lambda: len(web.events("web_started")) == 2, "both listen")
    first, second = web.pids()
    assert len({line["port"] for line in web.events("web_started")}) == 1
    answered: set[str] = set()

    def both() -> bool:
        Caller(web.port(), token).post(PERMITS, {"openid": "oA", "formId": "f1"})
        answered.update(line["process"] for line in web.events("request_answered"))
        return len(answered) == 2

    eventually(both, "both answer")
    os.kill(first, signal.SIGKILL)
    eventually(lambda: len(web.events("web_started")) == 3, "the killed one is back")
    [ended] = web.events("unit_ended")
    assert (ended["pid"], ended["exit_code"]) == (first, -signal.SIGKILL)
    assert Caller(web.port()).get("/readyz").status == 200
    assert web.end() == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in web.pids())
    assert second in web.pids()


def test_when_the_parent_is_killed_its_processes_end(
    start: Callable[..., Web], eventually: Eventually
) -> None:
    web = start("--processes", 2)
    eventually(lambda: len(web.events("web_started")) == 2, "both listen")
    web.end(signal.SIGKILL)
    eventually(lambda: len(web.events("web_stopped")) == 2, "both ended")


@pytest.mark.parametrize("processes", [1, 2])
def test_a_port_in_use_is_told(
    start: Callable[..., Web], eventually: Eventually, processes: int
) -> None:
    web = start("--processes", 2)
    eventually(lambda: web.events("web_started"), "it listens")
    second = start("--port", web.port(), "--processes", processes)
    assert second.process.wait(20) == 2
    assert "cannot listen" in second.text()


def test_without_redis_it_does_not_start(
    start: Callable[..., Web], make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    web = Web(make_settings(redis_url="redis://127.0.0.1:1/0"), tmp_path)
    assert web.process.wait(30) != 0
    assert "Redis" in web.text()


def test_keys_are_made_listed_and_revoked(settings: Settings, client: Any) -> None:
    made = run(
        settings, "keys", "create", "-a", "shop", "-s", "collect,read", "-n", "app", "--rate", 5
    )
    token = made.out.strip()
    key_id = token.split("_")[1]
    listed = run(settings, "keys", "list", "--json")
    [shown] = listed.json["keys"]
    assert (shown["id"], shown["apps"], shown["scopes"]) == (key_id, ["shop"], ["collect", "read"])
    assert (shown["name"], shown["rate"]) == ("app", 5)
    assert token.split("_", 2)[2] not in listed.out + run(settings, "keys", "list").out
    assert run(settings, "keys", "revoke", key_id).code == 0
    assert run(settings, "keys", "list", "--json").json["keys"] == []
    gone = run(settings, "keys", "revoke", key_id)
    assert (gone.code, key_id in gone.err) == (2, True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("-a", "nobodys", "-s", "read", "-n", "n"), "nobodys"),
        (("-a", "shop", "-s", "everything", "-n", "n"), "everything"),
        (("-a", "shop", "-s", "read", "-n", ""), "name"),
        (("-a", "shop", "-s", "read", "-n", "n", "--rate", 0), "rate"),
    ],
)
def test_a_wrong_key_is_told(
    settings: Settings, client: Any, options: tuple[object, ...], said: str
) -> None:
    ran = run(settings, "keys", "create", *options)
    assert ran.code == 2
    assert said in ran.err
    assert run(settings, "keys", "list", "--json").json["keys"] == []
