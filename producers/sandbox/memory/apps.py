"""The mini-programs that the sandbox knows, and which openids are theirs.

Openids belong to one mini-program; another's token gets 40003 for them. Shapes are observed, not
promised (28 characters, first ``o``), so any visible text of up to 128 characters is accepted.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from producers.sandbox.replies import RefusalError

_OPENID: Final = re.compile(r"[!-~]{1,128}")


class Apps:
    """Which appids and secrets are right; in open mode (``secrets`` None) all are."""

    def __init__(self) -> None:
        self._owners: dict[str, str] = {}

    @staticmethod
    def check_secret(secrets: Mapping[str, str] | None, appid: str, secret: str) -> None:
        """Check an appid with its secret.

        Raises:
            RefusalError: 41002, 41004 missing; 40013, 40125 wrong.
        """
        if not appid:
            raise RefusalError(41002)
        if not secret:
            raise RefusalError(41004)
        if secrets is None:
            return
        if appid not in secrets:
            raise RefusalError(40013)
        if secrets[appid] != secret:
            raise RefusalError(40125)

    def own(self, appid: str, openids: Iterable[str]) -> None:
        """Make openids an app's own."""
        self._owners.update(dict.fromkeys(openids, appid))

    def meet(self, openid: str) -> None:
        """Make an openid known, to whichever app."""
        self._owners.setdefault(openid, "")

    def check_openid(
        self, openid: object, appid: str, *, invalid: frozenset[str], known_only: bool
    ) -> str:
        """Check a receiver.

        Args:
            openid: ``touser`` as it came.
            appid: whose token the call carries.
            invalid: openids that are nobody's.
            known_only: refuse openids that no permit, code or app brought in.

        Returns:
            The openid.

        Raises:
            RefusalError: 40003.
        """
        if not isinstance(openid, str) or not _OPENID.fullmatch(openid) or openid in invalid:
            raise RefusalError(40003)
        owner = self._owners.get(openid)
        if (owner and owner != appid) or (known_only and owner is None):
            raise RefusalError(40003)
        return openid
