"""``wxbroadcast demo``: the whole system as processes, and nothing of it left behind."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_run import Run, starting

Eventually = Callable[..., Any]
pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """Start demos; end them with the test."""
    yield from starting("demo", tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        ("--recipients", 600, "--rate", 0, "--latency-ms", 5),
        ("--recipients", 400, "--rate", 0, "--channel", "subscribe", "--units", 1),
        ("--recipients", 400, "--rate", 200, "--lanes", 3),
    ],
)
def test_every_sum_is_right_and_nothing_is_left(
    start: Callable[..., Run], options: tuple[object, ...]
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


def test_permits_and_their_uses_are_told_apart_for_people(tmp_path: Path) -> None:
    """Users pay too: their prepay_ids are three uses each."""
    command = [sys.executable, "-m", "producers.cli", "demo", "--recipients", "200", "--rate", "0"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    rows = {}
    for row in done.stdout.splitlines():
        *words, number = row.split() or [""]
        rows[" ".join(words)] = number
    collected = int(rows["permits collected"].replace(",", ""))
    uses = int(rows["uses of them (a prepay_id has three)"].replace(",", ""))
    assert collected < uses < 3 * collected
    assert "uses of permits" in done.stdout


def test_the_rate_holds(start: Callable[..., Run]) -> None:
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
    start: Callable[..., Run], number: signal.Signals, moment: str, code: int
) -> None:
    demo = start("--recipients", 3000, "--rate", 100)
    demo.await_line(moment)
    demo.process.send_signal(number)
    ended, told, _ = demo.end()
    assert ended == code
    assert "interrupted" in told["error"]
    demo.assert_nothing_is_left()


def test_signals_that_keep_coming_do_not_spoil_the_end(start: Callable[..., Run]) -> None:
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


def test_a_killed_worker_costs_nobody_a_message(start: Callable[..., Run]) -> None:
    demo = start("--recipients", 1500, "--rate", 300)
    demo.await_line("delivered")
    os.kill(demo.pids("dramatiq")[-1], signal.SIGKILL)
    code, told, err = demo.end()
    assert [check for check in told["checks"] if not check["ok"]] == []
    assert code == 0, told
    assert told["restarts"] >= 1
    assert "it starts again" in err
    demo.assert_nothing_is_left()


def test_a_killed_valkey_starts_again_and_the_demo_comes_to_its_end(
    start: Callable[..., Run],
) -> None:
    demo = start("--recipients", 900, "--rate", 300)
    demo.await_line("delivered")
    [valkey] = demo.folder.glob("wxb-demo-*/valkey/valkey.pid")
    os.kill(int(valkey.read_text()), signal.SIGKILL)
    code, told, err = demo.end()
    assert code in {0, 1}, told  # its disk may lack the last second, and a sum is wrong then
    assert sum(told["outcomes"].values()) == told["recipients"]
    assert "valkey ended (-9); it starts again" in err
    demo.assert_nothing_is_left()


def test_a_sandbox_that_dies_is_said_and_nothing_is_left(start: Callable[..., Run]) -> None:
    demo = start("--recipients", 3000, "--rate", 100)
    demo.await_line("delivered")
    [sandbox] = demo.pids("sandbox")
    os.kill(sandbox, signal.SIGKILL)
    code, told, _ = demo.end()
    assert code == 1
    assert "the sandbox does not answer" in told["error"]
    demo.assert_nothing_is_left()


def test_the_workers_log_can_be_kept(start: Callable[..., Run], tmp_path: Path) -> None:
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


def test_logs_that_cannot_be_written_are_wrong_input(start: Callable[..., Run]) -> None:
    code, told, _ = start("--logs", "/nowhere/at-all").end()
    assert code == 2
    assert "/nowhere/at-all" in told["error"]
