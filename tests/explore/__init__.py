"""Every interleaving: walks through all that a small world of the real scripts can do.

``python -m tests.explore`` from a checkout. See README.md.
"""

import sys
from pathlib import Path

# what tests share lies beside; pytest puts it there by itself
_SUPPORT = str(Path(__file__).parent.parent / "support")
if _SUPPORT not in sys.path:
    sys.path.append(_SUPPORT)
