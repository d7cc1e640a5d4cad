"""``wxbroadcast chaos``: nobody twice and nobody forgotten, in short; and nothing left behind."""

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

pytestmark = pytest.mark.timeout(120)


class Chaos:
    """A chaos run as a process; all that it starts carries its mark."""

    def __init__(self, folder: Path, *options: object) -> None:
        self.mark = f"CHAOS_MARK={uuid.uuid4().hex}"
        self.folder = folder
        name, _, value = self.mark.partition("=")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "producers.cli", "chaos", "--json", *map(str, options)],
            env={
                **os.environ,
                name: value,
                "TMPDIR": str(folder),
                "WXB_REDIS_URL": "redis://127.0.0.1:1/0",  # the shell's settings are not its own
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def pids(self) -> list[int]:
        """The processes that it started and that still run."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != self.process.pid:
                try:
                    if self.mark.encode() in (entry / "environ").read_bytes():
                        found.append(int(entry.name))
                except OSError:  # it ended meanwhile
                    continue
        return found

    def await_line(self, word: str) -> None:
        """Read stderr until a line has the word."""
        assert self.process.stderr is not None
        while line := self.process.stderr.readline():
            if word in line:
                return
        pytest.fail(f"it ended without saying {word!r}")

    def end(self) -> tuple[int, Any]:
        """Wait for its end; return exit code and the JSON line."""
        out, _ = self.process.communicate(timeout=115)
        return self.process.returncode, json.loads(out.splitlines()[-1])

    def assert_nothing_is_left(self) -> None:
        assert self.pids() == []
        assert list(self.folder.iterdir()) == []


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Chaos]]:
    """Start chaos runs; end them with the test."""
    runs: list[Chaos] = []

    def begin(*options: object) -> Chaos:
        folder = tmp_path / f"chaos{len(runs)}"
        folder.mkdir()
        runs.append(Chaos(folder, *options))
        return runs[-1]

    yield begin
    for run in runs:
        if run.process.poll() is None:
            run.process.kill()
            run.process.communicate()
        for pid in run.pids():
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(("channel", "seed"), [("template", 1), ("subscribe", 2)])
def test_nobody_twice_and_nobody_forgotten_through_all_faults(
    start: Callable[..., Chaos], channel: str, seed: int
) -> None:
    """What must hold on any machine; how long a recovery took is the command's own verdict."""
    run = start("--recipients", 2000, "--kills", 4, "--channel", channel, "--seed", seed)
    code, told = run.end()
    assert [wrong for wrong in told["wrong"] if "a recovery took" not in wrong] == []
    assert code == (0 if told["good"] else 1)
    assert told["outcomes"]["delivered"] + told["in_doubt"] == 2000
    assert (told["lost"], told["duplicates"], told["permits_unaccounted"]) == (0, 0, 0)
    assert told["struck"]["kills"] == 4
    assert told["recoveries"] > 0
    assert told["lost_replies"] > 0
    assert told["seed"] == seed
    run.assert_nothing_is_left()


def test_without_faults_everybody_is_delivered(start: Callable[..., Chaos]) -> None:
    run = start("--recipients", 300, "--faults", "none", "--rate", 300, "--units", 1, "--lanes", 2)
    code, told = run.end()
    assert (code, told["outcomes"], told["struck"]) == (0, {"delivered": 300}, {})
    run.assert_nothing_is_left()


def test_an_interrupted_run_leaves_nothing(start: Callable[..., Chaos]) -> None:
    run = start("--recipients", 3000, "--faults", "zombies,redis,cuts")
    run.await_line("delivered")
    run.process.send_signal(signal.SIGTERM)
    code, told = run.end()
    assert code == 143
    assert "interrupted" in told["error"]
    run.assert_nothing_is_left()


@pytest.mark.parametrize("options", [("--faults", "kills,floods"), ("--channel", "carrier-pigeon")])
def test_an_unknown_fault_or_channel_is_wrong_input(
    start: Callable[..., Chaos], options: tuple[str, ...]
) -> None:
    code, told = start(*options).end()
    assert code == 2
    assert options[1].rpartition(",")[2] in told["error"]
