"""Where node is, and what a run of the mini-program is called with."""

import shutil
import subprocess

import pytest


@pytest.fixture(scope="session")
def node() -> str:
    """Give the path of a node that is new enough; a test that needs it fails without one."""
    found = shutil.which("node") or shutil.which("nodejs")
    if found is None:
        pytest.fail("the mini-program script is tested with node: install it (apt: nodejs)")
    told = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    if int(told.strip().removeprefix("v").split(".")[0]) < 18:
        pytest.fail(f"{found} is {told.strip()}: node 18 or newer runs these tests")
    return found
