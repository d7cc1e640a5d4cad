"""Breaks the code on purpose, one small change at a time, and says which change no test notices.

Run ``python -m tests.mutants --sample 200 --seed 1``. A *mutant* is one such change of a Lua script
or of a module; a test that fails for it *kills* it; one that lives names a missing test, or a piece
of code that is not needed, or stands in ``equivalents.toml`` with the reason why nobody could
tell it from the code.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "support"))  # as pytest does for the tests
