"""Login codes: one use, five minutes.

Source: https://developers.weixin.qq.com/miniprogram/dev/api/open-api/login/wx.login.html
"""

import hashlib
from dataclasses import dataclass
from typing import Final

from producers.sandbox.replies import RefusalError

LIFETIME_S: Final = 300


@dataclass(slots=True)
class _Code:
    openid: str
    expires_at_s: float
    used: bool = False


class Codes:
    """The codes handed out."""

    def __init__(self) -> None:
        self._codes: dict[str, _Code] = {}

    def give(self, code: str, openid: str, now_s: float) -> None:
        """Hand out a code."""
        self._codes[code] = _Code(openid, now_s + LIFETIME_S)

    def spend(self, code: str, now_s: float, *, unknown: bool) -> str:
        """Use a code.

        Args:
            code: as it came.
            now_s: epoch seconds.
            unknown: whether one that was never handed out makes a user of its own.

        Returns:
            The openid.

        Raises:
            RefusalError: 40029 unknown or expired, 40163 used.
        """
        found = self._codes.get(code)
        if found is None:
            if not unknown:
                raise RefusalError(40029)
            digest = hashlib.sha256(code.encode()).hexdigest()
            found = self._codes[code] = _Code(f"o{digest[:27]}", now_s + LIFETIME_S)
        if found.used:
            raise RefusalError(40163)
        if now_s >= found.expires_at_s:
            raise RefusalError(40029)
        found.used = True
        return found.openid
