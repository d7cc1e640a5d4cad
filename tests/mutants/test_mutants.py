"""The breaking itself: what is changed, how a change is put in place, and what is told of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from . import lua_edits, python_edits
from .choice import Case, environment, including
from .equivalents import Equivalents
from .mutant import ROOT, Mutant, files, mutants_of
from .results import told
from .trial import batches, forked, within

LUA = """\
#!lua
-- a < b: a comment is nothing to change
local function low(n, key)
  if n < 3 and not key then return 'a - b' end
  redis.call('SET', key, n + 1, 'NX', 'PX', ttl * 20)
  had[1] = math.min(2 ^ 42, KEYS[2]) return n
end
"""
PYTHON = '''\
"""A docstring: 3 < 4."""

import os

EACH: int = 20


def low(n: int, *, quick: bool = False) -> int:
    """No change."""
    if n < 3 and not quick:  # né: columns are bytes
        os.kill(min(n, EACH), 0)
    assert n > 1
    return n - 1
'''


def changes(path: str, text: str) -> list[str]:
    found = lua_edits.edits(text) if path.endswith(".lua") else python_edits.edits(text)
    return sorted(
        f"{Mutant(path, edit, text).line} {Mutant(path, edit, text).change}" for edit in found
    )


def test_what_is_changed_in_a_script() -> None:
    assert changes("a.lua", LUA) == [
        "4 compare: < → <=",
        "4 constant: 3 → 4",
        "4 drop: return 'a - b' → (nothing)",
        "4 guard: n < 3 and not key → false",
        "4 guard: n < 3 and not key → true",
        "4 logic: and → or",
        "4 not: not → (nothing)",
        "5 constant: 1 → 2",
        "5 constant: 20 → 40",
        "5 drop: redis.call('SET', key, n + 1, 'NX', 'PX', ttl * 20) → (nothing)",
        "5 expiry: , 'PX', ttl * 20 → (nothing)",
        "5 flag: , 'NX' → (nothing)",
        "5 sum: + → -",
        "6 bound: min → max",
        "6 drop: had[1] = math.min(2 ^ 42, KEYS[2]) → (nothing)",
        "6 drop: return n → (nothing)",
    ]


def test_what_is_changed_in_a_module() -> None:
    assert changes("a.py", PYTHON) == [
        "10 compare: < → <=",
        "10 constant: 3 → 4",
        "10 guard: n < 3 and not quick → False",
        "10 guard: n < 3 and not quick → True",
        "10 logic: and → or",
        "10 not: not → (nothing)",
        "11 bound: min → max",
        "11 constant: 0 → 1",
        "11 drop: os.kill(min(n, EACH), 0) → pass",
        "13 constant: 1 → 2",
        "13 drop: return n - 1 → pass",
        "13 sum: - → +",
        "5 constant: 20 → 40",
        "8 constant: False → True",
    ]


def test_every_script_and_every_module_of_the_workers_is_broken() -> None:
    names = {str(path.relative_to(ROOT)) for path in files()}
    assert {"workers/sending/settle.lua", "producers/store/reply.lua"} < names
    assert {"workers/sending/verdict.py", "workers/runtime.py"} < names
    assert all(any(mutants_of(path)) for path in files() if path.suffix == ".lua")


def test_each_equivalent_fits_a_mutant_and_has_a_reason() -> None:
    known = Equivalents()
    assert known.outlived() == []
    assert known.twice == 0
    assert all(len(reason) > 20 for reason in known.reasons)


def test_a_piece_concerns_every_script_that_includes_it() -> None:
    users = including("producers/lanes/need.lua")
    assert {"workers/sending/settle.lua", "workers/sending/take.lua"} < users
    assert "workers/wechat/release.lua" not in users


@pytest.mark.parametrize("given", [{}, {"PYTHONPATH": "/nowhere"}])
def test_a_process_that_a_test_starts_reads_the_mutant_whatever_its_environment(
    tmp_path: Path, given: dict[str, str]
) -> None:
    path = "workers/limits/shares.py"
    env = environment(tmp_path, path, (ROOT / path).read_text("utf-8") + "\nBROKEN = True\n")
    unit = "import workers.limits.shares as s; print(s.BROKEN)"
    starts = (
        "import os, subprocess, sys;"
        f"env = {{**os.environ, **{given!r}}};"
        "[env.pop(name) for name in ('MUTANT',)];"
        f"subprocess.run([sys.executable, '-c', {unit!r}], env=env, check=True)"
    )
    command = [sys.executable, "-c", starts]
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout == "True\n"


def test_a_script_is_read_with_its_mutant_in_it(tmp_path: Path) -> None:
    path = "producers/store/reply.lua"
    env = environment(tmp_path, path, "-- broken\n")
    reads = "from producers.store.scripts import source; print(source('workers.sending', 'take'))"
    command = [sys.executable, "-c", reads]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert "-- broken\n" in done.stdout


def test_the_tests_of_a_mutant_are_few_at_first_and_end_in_time() -> None:
    tests = [Case(f"tests/test_{n}.py::test", 2.0) for n in range(9)]
    assert [len(batch) for batch in batches(tests)] == [3, 6]
    assert len(within(tests, 10)) == 5
    assert len(within(tests, 0)) == 1
    files_of_quick_ones = [Case(f"tests/test_{n}.py::test", 0.0) for n in range(9)]
    assert [len(batch) for batch in batches(files_of_quick_ones)] == [5, 4]


def test_a_run_that_does_not_end_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    def stands_still() -> int:
        subprocess.run(["sleep", "60"], check=False)
        return 0

    assert forked(stands_still, tmp_path / "output", 0.2) is None
    assert forked(lambda: 7, tmp_path / "output", 10) == 7


def test_the_rate_counts_what_no_test_ran_as_alive_and_leaves_out_what_changes_nothing() -> None:
    given = ["killed", "killed", "timeout", "survived", "uncovered", "equivalent"]
    assert told({"status": status} for status in given)["rate"] == 0.6


@pytest.mark.timeout(120)  # runs of pytest in runs of python
def test_a_sample_is_tried_told_and_resumed(tmp_path: Path) -> None:
    def run(*more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tests.mutants", "--only", "workers/limits/shares.py"]
        where = ["--tests", "tests/workers/limits/test_shares.py", "--state", str(tmp_path)]
        return subprocess.run(
            [*command, *where, "--seed", "2", *more],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )

    first = run("--sample", "2")
    assert first.stderr.count("killed") == 2, first.stderr
    report = tmp_path / "report.json"
    again = run("--sample", "3", "--json", str(report))
    assert again.stderr.count(" workers/limits/shares.py:") == 1, again.stderr
    told_then = json.loads(report.read_bytes())
    assert told_then["count"] == 3
    assert told_then["rows"][0]["by"].startswith("tests/workers/limits/test_shares.py::")
