"""The tests themselves: where they lie, which of them CI names, and what may skip them."""

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from skips import EXPECTED

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests"
OF_ALL = {"system", "bench", "explore", "miniprogram", "mutants", "support"}
"""Folders of tests that belong to no single room."""


def folders() -> list[str]:
    found = {path.parent.relative_to(TESTS) for path in TESTS.rglob("*.py")}
    return sorted(str(path) for path in found if path.parts and path.parts[0] not in OF_ALL)


@pytest.mark.parametrize("folder", folders())
def test_every_folder_of_tests_mirrors_a_room(folder: str) -> None:
    assert (ROOT / folder / "__init__.py").is_file()


def test_no_two_files_of_tests_have_one_name() -> None:
    """They are no package: the second of a name cannot be imported beside the first."""
    names = Counter(path.name for path in TESTS.rglob("test_*.py"))
    assert [name for name, times in names.items() if times > 1] == []


def test_every_script_and_file_of_tests_that_ci_names_is_there() -> None:
    text = (ROOT / ".ci" / "run").read_text("utf-8")
    named = re.findall(r"(?<=\s)tests/[^\s:;]+", re.sub(r"(?m)(^|\s)#.*|^\s*echo .*", "", text))
    spoken = ["bash", "-c", f"printf '%s\\n' {' '.join(named)}"]
    paths = subprocess.run(spoken, capture_output=True, text=True, check=True).stdout.split()
    assert len(paths) > 5
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_reason_to_skip_is_one_that_a_test_has() -> None:
    texts = [path.read_text("utf-8") for path in TESTS.rglob("*.py") if path.stem != "skips"]
    assert [reason for reason in EXPECTED if not any(reason in text for text in texts)] == []


@pytest.mark.parametrize(
    ("reason", "ci", "code"),
    [
        ("no chromium here", "1", pytest.ExitCode.TESTS_FAILED),
        ("no chromium here", "", pytest.ExitCode.OK),
        ("the clocks change today", "1", pytest.ExitCode.OK),
    ],
)
def test_a_skip_that_is_not_expected_is_an_error_in_ci(
    tmp_path: Path, reason: str, ci: str, code: int
) -> None:
    (tmp_path / "conftest.py").write_text(
        "from skips import Skips\n"
        "def pytest_configure(config):\n"
        "    config.pluginmanager.register(Skips())\n"
    )
    (tmp_path / "test_one.py").write_text(
        f"import pytest\ndef test_skipped(): pytest.skip({reason!r})\ndef test_passed(): pass\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider"]
    env = {**os.environ, "CI": ci, "PYTHONPATH": str(TESTS / "support")}
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout
    assert (reason in done.stdout) == (code != pytest.ExitCode.OK)
