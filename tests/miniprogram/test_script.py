"""The mini-program script: its own tests, which run in node, and its place in the package."""

import re
import subprocess
from importlib import resources
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SUITES = sorted(path.name for path in HERE.glob("*.test.js"))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("suite", SUITES)
def test_in_node(node: str, suite: str) -> None:
    done = subprocess.run(
        [node, "--test", suite],
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:]
    passed = re.search(r"^(?:#|ℹ) pass (\d+)$", done.stdout, re.MULTILINE)
    assert passed is not None, done.stdout[-2000:]
    assert int(passed[1]) > 0


def test_it_comes_with_the_package() -> None:
    folder = resources.files("producers") / "miniprogram"
    for name in ("push-code.js", "app.json", "pages/check-in/check-in.wxml"):
        assert (folder / name).is_file(), name
