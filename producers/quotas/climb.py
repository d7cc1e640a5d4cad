"""The climb: how many sends a second an app may start after WeChat said that they were too many.

A limit error lowers an app's limit (penalize.lua), and the limiter lets it climb by itself
(climb.lua, which this reckons after, for people): evenly to where WeChat refused, on at the same
pace, then doubling. So it stays near what WeChat takes, and is back at the app's rate within two
spans and one for each doubling that is left.
"""

import re
from typing import Final

_LIMIT: Final = re.compile(r"(\d{1,15}) (\d{1,15}) (\d{1,15}) (\d{1,15}) (\d{1,15})")
_MOST: Final = 2**40
_FAR_MS: Final = 1_200_000
"""As in climb.lua: a climb that begins later is from before the clock was set back."""

FREE: Final = 20_000
"""Sends per second: as reserve.lua; an app without a rate has no limit any more beyond it."""


def climbed(text: str | None, now_ms: int) -> float | None:
    """Return the limit in force, in sends per second; None when there is none.

    Args:
        text: field ``limit`` of the app's limiter.
        now_ms: the server's clock.
    """
    found = _LIMIT.fullmatch(text or "")
    if found is None:
        return None
    low, peak, since_ms, span_ms, _ = map(int, found.groups())
    if not 1 <= low <= peak <= _MOST or span_ms < 1 or since_ms > now_ms + _FAR_MS:
        return None
    passed = max(0, now_ms - since_ms) / span_ms
    rate = low + (peak - low) * min(passed, 2)
    if passed > 2:
        rate *= 2 ** min(passed - 2, 60)
    return int(min(rate, _MOST)) / 1000
