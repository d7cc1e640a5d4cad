"""A command of ours as a process; all that it starts carries its mark, so that none is missed."""

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


class Run:
    """``wxbroadcast COMMAND --json …``, with a folder of its own for temporary files."""

    def __init__(self, command: str, folder: Path, *options: object) -> None:
        mark = uuid.uuid4().hex
        self._mark = f"RUN_MARK={mark}".encode()
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-m", "producers.cli", command, "--json", *map(str, options)],
            env={
                **os.environ,
                "RUN_MARK": mark,
                "TMPDIR": str(folder),
                "WXB_REDIS_URL": "redis://127.0.0.1:1/0",  # the shell's settings are not its own
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
                    marked = self._mark in (entry / "environ").read_bytes()
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

    def end(self, within_s: float = 110) -> tuple[int, Any, str]:
        """Wait for its end; return exit code, the JSON line and stderr."""
        out, err = self.process.communicate(timeout=within_s)
        return self.process.returncode, json.loads(out.splitlines()[-1]), err

    def assert_nothing_is_left(self) -> None:
        assert self.pids() == []
        assert list(self.folder.iterdir()) == []


def starting(command: str, folder: Path) -> Iterator[Callable[..., Run]]:
    """Yield a starter of runs; end them afterwards."""
    runs: list[Run] = []

    def begin(*options: object) -> Run:
        own = folder / f"run{len(runs)}"
        own.mkdir()
        runs.append(Run(command, own, *options))
        return runs[-1]

    yield begin
    for run in runs:
        if run.process.poll() is None:
            run.process.kill()
            run.process.communicate()
        for pid in run.pids():
            os.kill(pid, signal.SIGKILL)
