"""One mutant tried: its tests are run until one of them fails, and it is written down which.

A run is a fork of this process, which has imported what all runs need, in a session of its own, so
that whatever a mutant leaves behind ends with it.
"""

import contextlib
import importlib
import json
import os
import re
import runpy
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import pytest
import redis
from cluster import cluster_of_one

from .choice import OPTIONS, Case, Choice, environment
from .equivalents import Equivalents
from .mutant import ROOT, Mutant

FIRST_S: Final = 6.0
FIRST_FILES: Final = 5
"""What is run first, for most mutants die of it: so much of the tests' time, so many files."""

START_S: Final = 40.0
"""How long a run may take beyond four times what its tests took before."""

WARM: Final = (
    "pytest",
    "hypothesis",
    "schemathesis.pytest.plugin",
    "playwright.sync_api",
    "pytest_asyncio",
    "xdist.plugin",
    "aiohttp.web",
    "redis.asyncio",
    "dramatiq",
    "uvloop",
    "producers.cli",
    "producers.web.server",
    "producers.sandbox.thread",
    "producers.testing",
)

_FAILED: Final = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a mutant.

    Attributes:
        status: ``killed``, ``timeout``, ``survived``, ``uncovered`` (no test ran it),
            ``equivalent`` (as `equivalents` says), ``broken`` (it is no Lua).
        by: the test that failed; of an equivalent the reason.
        tests: how many were run, or would have been.
        left: how many of its tests were not run, for all together take longer than allowed.
    """

    status: str
    by: str = ""
    tests: int = 0
    left: int = 0


class Trials:
    """Tries mutants, one after the other."""

    def __init__(self, state: Path, choice: Choice, known: Equivalents, most_s: float) -> None:
        self._state, self._choice, self._known, self._most_s = state, choice, known, most_s
        self._cluster = Cluster()
        warm()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._cluster.stop()

    def judge(self, mutant: Mutant) -> Verdict:
        """Return what becomes of a mutant.

        Args:
            mutant: the change.
        """
        reason = self._known.reason(mutant)
        if reason:
            return Verdict("equivalent", reason)
        if mutant.path.endswith(".lua") and not self._cluster.compiles(mutant.mutated()):
            return Verdict("broken")
        tests = self._choice.of(mutant)
        if not tests:
            return Verdict("uncovered")
        chosen = within(tests, self._most_s)
        left = len(tests) - len(chosen)
        env = environment(self._state, mutant.path, mutant.mutated())
        for batch in batches(chosen):
            status, by = self._run(batch, env)
            if status != "survived":
                return Verdict(status, by, len(chosen), left)
        return Verdict("survived", "", len(chosen), left)

    def control(self, mutant: Mutant) -> None:
        """Run the first tests of a mutant without it.

        Raises:
            RuntimeError: they fail; so no verdict would mean anything.
        """
        tests = within(self._choice.of(mutant), self._most_s)
        for batch in batches(tests)[:1]:
            status, by = self._run(batch, environment(self._state, "", ""))
            if status != "survived":
                raise RuntimeError(f"the tests do not pass on the code as it is: {status} {by}")

    def _run(self, tests: list[Case], env: dict[str, str]) -> tuple[str, str]:
        order, output = self._state / "order.json", self._state / "output.txt"
        order.write_text(json.dumps([test.name for test in tests]))
        files = list(dict.fromkeys(test.file for test in tests))
        allowed = START_S + 4 * sum(test.seconds for test in tests)
        given = env | {"MUTANTS_ORDER": str(order), "MUTANTS_CLUSTER": self._cluster.url()}
        code = forked(lambda: run_pytest(files, given), output, allowed)
        if code is None:
            return "timeout", ""
        if code == 0:
            return "survived", ""
        if code == 5:  # nothing was collected
            raise RuntimeError(f"no test of {files} was found: make the map anew (--map)")
        failed = _FAILED.search(output.read_text("utf-8", "replace"))
        return "killed", failed[1] if failed else "collection"


def forked(work: Callable[[], int], output: Path, allowed_s: float) -> int | None:
    """Do something in a process of its own, with all that it starts; return its exit code.

    Args:
        work: returns the exit code.
        output: where what it prints goes.
        allowed_s: how long it may take; then all of it is killed, and None returned.
    """
    child = os.fork()
    if child == 0:  # from here on nothing returns
        os.setsid()
        place = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(place, 1)
        os.dup2(place, 2)
        code = 3
        try:
            code = work()
            sys.stdout.flush()
        finally:
            os._exit(code)
    deadline = time.monotonic() + allowed_s
    ended, status = 0, 0
    while not ended and time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if not ended:
        os.waitpid(child, 0)
        return None
    return os.waitstatus_to_exitcode(status)


def run_pytest(files: list[str], env: dict[str, str]) -> int:
    """Run files of tests in this process, and return pytest's exit code.

    Args:
        files: of the checkout.
        env: becomes this process's environment.
    """
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(env)
    runpy.run_path(str(Path(__file__).parent / "overlay.py"), run_name="overlay")
    loaded = "-Wignore::pytest.PytestAssertRewriteWarning"  # `warm` did, for all runs
    return int(pytest.main([*OPTIONS, loaded, "-x", "--tb=no", *files]))


def warm() -> None:
    """Import once what every run needs, and no mutant changes: modules of others, and producers."""
    for name in WARM:
        importlib.import_module(name)


def within(tests: list[Case], most_s: float) -> list[Case]:
    """Return the first tests that take no longer than so much together, and one at the least."""
    chosen, seconds = [], 0.0
    for test in tests:
        seconds += test.seconds
        if chosen and seconds > most_s:
            break
        chosen.append(test)
    return chosen


def batches(tests: list[Case]) -> list[list[Case]]:
    """Return the tests in two runs: a short one of few files, and the rest."""
    first: list[Case] = []
    files: set[str] = set()
    seconds = 0.0
    for test in tests:
        seconds += test.seconds
        if first and (seconds > FIRST_S or len(files | {test.file}) > FIRST_FILES):
            break
        first.append(test)
        files.add(test.file)
    return [batch for batch in (first, tests[len(first) :]) if batch]


class Cluster:
    """The cluster that all runs use; a new one when a script does not end in it."""

    def __init__(self) -> None:
        self._held = contextlib.ExitStack()
        self._client: redis.Redis | None = None
        self._url = ""

    def url(self) -> str:
        """Return its URL; it answers."""
        if self._client is not None:
            with contextlib.suppress(redis.RedisError):
                self._client.ping()
                return self._url
            self.stop()
        with socket.create_server(("127.0.0.1", 0)) as one:
            port = int(one.getsockname()[1])
        self._url = self._held.enter_context(cluster_of_one(port))
        self._client = redis.Redis.from_url(self._url, socket_timeout=2)
        return self._url

    def compiles(self, text: str) -> bool:
        """Return whether Redis takes a script, or a piece of scripts."""
        self.url()
        assert self._client is not None
        try:
            self._client.script_load(text)
        except redis.ResponseError:
            return False
        return True

    def stop(self) -> None:
        """End it."""
        if self._client is not None:
            self._client.close()
            self._client = None
        self._held.close()
