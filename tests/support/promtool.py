"""Prometheus's own tool, which checks rules, configurations and names of figures."""

import shutil
import subprocess
from importlib.resources import files
from typing import Final

ALERTS: Final = files("producers.metrics").joinpath("alerts.yml")


def promtool(*arguments: str, given: str = "") -> str:
    program = shutil.which("promtool")
    assert program, "promtool is needed: apt-get install prometheus"
    done = subprocess.run(
        [program, *arguments], input=given, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
