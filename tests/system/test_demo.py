"""``wxbroadcast demo``: the whole system as processes, and nothing of it left behind."""

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Eventually = Callable[..., Any]
pytestmark = pytest.mark.timeout(120)


class Demo:
    """A demo as a process; all that it starts carries its mark."""

    def __init__(self, folder: Path, *options: object) -> None:
        self.mark = f"DEMO_MARK={uuid.uuid4().hex}"
        self.folder = folder
        name, _, value = self.mark.partition("=")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "producers.cli", "demo", "--json", *map(str, options)],
            env={
                **os.environ,
                name: value,
                "TMPDIR": str(folder),
                "WXB_REDIS_URL": "redis://127.0.0.1:1/0",  # the shell's settings are not the demo's
                "WXB_NO_SUCH_SETTING": "1",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def pids(self, word: str = "") -> list[int]:
        """The processes that it started and that still run, those whose command has the word."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != self.process.pid:
                try:
                    marked = self.mark.encode() in (entry / "environ").read_bytes()
                    if marked and word.encode() in (entry / "cmdline").read_bytes():
                        found.append(int(entry.name))
                except OSError:  # it ended meanwhile
                    continue
        return sorted(found)

    def await_line(self, word: str) -> None:
        """Read stderr until a line has the word."""
        assert self.process.stderr is not None
        while line := self.process.stderr.readline():
            if word in line:
                return
        pytest.fail(f"it ended without saying {word!r}")

    def end(self) -> tuple[int, Any, str]:
        """Wait for its end; return exit code, the JSON line and stderr."""
        out, err = self.process.communicate(timeout=90)
        return self.process.returncode, json.loads(out.splitlines()[-1]), err

    def assert_nothing_is_left(self) -> None:
        assert self.pids() == []
        assert list(self.folder.iterdir()) == []


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    """Start demos; end them with the test."""
    demos: list[Demo] = []

    def begin(*options: object) -> Demo:
        folder = tmp_path / f"demo{len(demos)}"
        folder.mkdir()
        demos.append(Demo(folder, *options))
        return demos[-1]

    yield begin
    for demo in demos:
        if demo.process.poll() is None:
            demo.process.kill()
            demo.process.communicate()
        for pid in demo.pids():
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    "options",
    [
        ("--recipients", 600, "--rate", 0, "--latency-ms", 5),
        ("--recipients", 400, "--rate", 0, "--channel", "subscribe", "--units", 1),
        ("--recipients", 400, "--rate", 200, "--lanes", 3),
    ],
)
def test_every_sum_is_right_and_nothing_is_left(
    start: Callable[..., Demo], options: tuple[object, ...]
) -> None:
    demo = start(*options)
    code, told, _ = demo.end()
    assert [check for check in told["checks"] if not check["ok"]] == []
    assert code == 0, told
    assert told["recipients"] == options[1]
    assert told["outcomes"]["delivered"] == told["sandbox_accepted"] > 0
    assert sum(told["outcomes"].values()) == told["recipients"]
    assert told["duplicates"] == 0
    assert told["permits"]["before"]["spent"] == 0
    assert told["permits"]["after"]["spent"] == told["sandbox_accepted"]
    assert told["seconds"] > 0
    assert told["messages_per_second"] > 0
    assert set(told["windows"]) == {"max_per_second", "mean_per_second"}
    demo.assert_nothing_is_left()


@pytest.mark.slow
def test_the_rate_holds(start: Callable[..., Demo]) -> None:
    code, told, _ = start("--recipients", 700, "--rate", 200).end()
    assert code == 0, told
    # arrivals, not starts: a busy machine bunches some of them
    assert told["windows"]["max_per_second"] <= 200 * 1.2
    assert told["windows"]["mean_per_second"] <= 200 * 1.02


@pytest.mark.parametrize(
    ("number", "moment", "code"),
    [
        (signal.SIGINT, "starting", 130),
        (signal.SIGINT, "delivered", 130),
        (signal.SIGTERM, "delivered", 143),
        (signal.SIGTERM, "collecting", 143),
    ],
)
def test_an_interrupted_demo_leaves_nothing(
    start: Callable[..., Demo], number: signal.Signals, moment: str, code: int
) -> None:
    demo = start("--recipients", 3000, "--rate", 100)
    demo.await_line(moment)
    demo.process.send_signal(number)
    ended, told, _ = demo.end()
    assert ended == code
    assert "interrupted" in told["error"]
    demo.assert_nothing_is_left()


@pytest.mark.slow
def test_signals_that_keep_coming_do_not_spoil_the_end(start: Callable[..., Demo]) -> None:
    demo = start("--recipients", 3000, "--rate", 100)
    demo.await_line("delivered")
    while demo.process.poll() is None:
        demo.process.send_signal(signal.SIGINT)
        try:
            demo.process.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
    assert demo.end()[0] == 130
    demo.assert_nothing_is_left()


def test_a_killed_worker_costs_nobody_a_message(start: Callable[..., Demo]) -> None:
    demo = start("--recipients", 1500, "--rate", 300)
    demo.await_line("delivered")
    os.kill(demo.pids("dramatiq")[-1], signal.SIGKILL)
    code, told, err = demo.end()
    assert [check for check in told["checks"] if not check["ok"]] == []
    assert code == 0, told
    assert told["restarts"] >= 1
    assert "it starts again" in err
    demo.assert_nothing_is_left()


@pytest.mark.slow
def test_a_sandbox_that_dies_is_said_and_nothing_is_left(start: Callable[..., Demo]) -> None:
    demo = start("--recipients", 3000, "--rate", 100)
    demo.await_line("delivered")
    [sandbox] = demo.pids("sandbox")
    os.kill(sandbox, signal.SIGKILL)
    code, told, _ = demo.end()
    assert code == 1
    assert "the sandbox does not answer" in told["error"]
    demo.assert_nothing_is_left()


def test_the_workers_log_can_be_kept(start: Callable[..., Demo], tmp_path: Path) -> None:
    logs = tmp_path / "kept.log"
    demo = start("--recipients", 50, "--rate", 0, "--logs", logs)
    code, told, _ = demo.end()
    assert code == 0, told
    lines = [json.loads(line) for line in logs.read_text().splitlines()]
    events = [line["event"] for line in lines]
    assert events.count("worker_started") == 2
    assert events.count("worker_stopped") == 2
    settled = [line for line in lines if line["event"] == "message_settled"]
    assert len(settled) == told["sandbox_accepted"]
    demo.assert_nothing_is_left()


def test_logs_that_cannot_be_written_are_wrong_input(start: Callable[..., Demo]) -> None:
    code, told, _ = start("--logs", "/nowhere/at-all").end()
    assert code == 2
    assert "/nowhere/at-all" in told["error"]
