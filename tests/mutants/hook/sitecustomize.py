"""Run by every Python that a trial starts, before anything else: see `overlay`."""

import os
import runpy
from pathlib import Path

if "MUTANT" in os.environ:
    runpy.run_path(str(Path(__file__).parents[1] / "overlay.py"), run_name="overlay")
