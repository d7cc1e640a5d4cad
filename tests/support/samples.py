"""What WeChat was seen to say, collected outside of the project: real samples, and a reference.

They lie in `shared/` beside the project, or where ``WECHAT_CASES`` says. Whoever does not have them
skips what is tested against them, and is told so at the end of the run.
"""

import json
import os
from pathlib import Path
from typing import Any, Final

import pytest

BESIDE: Final = Path(__file__).resolve().parents[3] / "shared" / "wechat-cases.json"
CASES: Final = Path(os.environ.get("WECHAT_CASES") or BESIDE)
REFERENCE: Final = CASES.with_name("wechat-api.md")
ABSENT: Final = "WeChat's samples are not here (WECHAT_CASES says where)"

needs_cases: Final = pytest.mark.skipif(not CASES.is_file(), reason=ABSENT)
needs_reference: Final = pytest.mark.skipif(not REFERENCE.is_file(), reason=ABSENT)


def cases() -> list[dict[str, Any]]:
    """Return the samples; none where they are not."""
    if not CASES.is_file():
        return []
    found: list[dict[str, Any]] = json.loads(CASES.read_text("utf-8"))["cases"]
    return found
