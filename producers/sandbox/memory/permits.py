"""The permits that users gave, and what is left of them.

A form_id is one message and a prepay_id three, within 7 days, to the user who gave it; a
subscription is a counter per user and template, without a time limit.

Sources: the 2018 pages of templateMessage.send;
https://developers.weixin.qq.com/miniprogram/dev/framework/open-ability/subscribe-message.html
"""

import re
from typing import Final, NamedTuple

from producers.sandbox.replies import RefusalError
from producers.words import PermitKind

LIFETIME_S: Final = 7 * 86_400
USES: Final = {PermitKind.FORM_ID: 1, PermitKind.PREPAY_ID: 3}
_PREPAY_SHAPE: Final = re.compile(r"wx\d")


class Permit(NamedTuple):
    """A form_id or prepay_id as it was given."""

    openid: str
    kind: PermitKind
    expires_at_s: float


class Permits:
    """The ledger.

    Attributes:
        given: uses handed out, by kind.
        used: uses spent, by kind.
        remaining: uses handed out and not spent, by kind, expired ones included.
    """

    def __init__(self) -> None:
        self._permits: dict[str, Permit] = {}
        self._uses: dict[str, int] = {}
        self._subscriptions: dict[tuple[str, str], int] = {}
        self.given = dict.fromkeys(PermitKind, 0)
        self.used = dict.fromkeys(PermitKind, 0)
        self.remaining = dict.fromkeys(PermitKind, 0)

    def give(self, kind: PermitKind, openid: str, permit_id: str, expires_at_s: float) -> bool:
        """Hand out a form_id or prepay_id; the same one again changes nothing.

        Returns:
            Whether it is new.
        """
        if permit_id in self._permits:
            return False
        self._permits[permit_id] = Permit(openid, kind, expires_at_s)
        self.given[kind] += USES[kind]
        self.remaining[kind] += USES[kind]
        return True

    def subscribe(self, openid: str, template_id: str, count: int) -> None:
        """Add accepts of a template."""
        key = (openid, template_id)
        self._subscriptions[key] = self._subscriptions.get(key, 0) + count
        self.given[PermitKind.SUBSCRIPTION] += count
        self.remaining[PermitKind.SUBSCRIPTION] += count

    def unsubscribe(self, openid: str, template_id: str) -> int:
        """Take all accepts of a template away, as a user can.

        Returns:
            How many there were.
        """
        count = self._subscriptions.pop((openid, template_id), 0)
        self.remaining[PermitKind.SUBSCRIPTION] -= count
        return count

    def subscriptions_of(self, openid: str, template_id: str) -> int:
        """How many accepts are left."""
        return self._subscriptions.get((openid, template_id), 0)

    def check(self, permit_id: str, openid: str, now_s: float, *, unknown: bool) -> PermitKind:
        """Check a form_id or prepay_id without spending it.

        Args:
            permit_id: ``form_id`` as it came.
            openid: the receiver.
            now_s: epoch seconds.
            unknown: whether one that was never handed out is taken for good.

        Returns:
            Its kind.

        Raises:
            RefusalError: 41028 unknown, expired or another user's; 41029 used up.
        """
        permit = self._permits.get(permit_id)
        if permit is None:
            if not unknown:
                raise RefusalError(41028)
            kind = PermitKind.PREPAY_ID if _PREPAY_SHAPE.match(permit_id) else PermitKind.FORM_ID
        else:
            if permit.openid != openid or now_s >= permit.expires_at_s:
                raise RefusalError(41028)
            kind = permit.kind
        if self._uses.get(permit_id, 0) >= USES[kind]:
            raise RefusalError(41029)
        return kind

    def spend(self, kind: PermitKind, permit_id: str) -> None:
        """Use a form_id or prepay_id once."""
        self._uses[permit_id] = self._uses.get(permit_id, 0) + 1
        self.used[kind] += 1
        if permit_id in self._permits:
            self.remaining[kind] -= 1

    def spend_subscription(self, openid: str, template_id: str, *, counted: bool) -> None:
        """Use an accept once; ``counted`` False leaves the counter as it is (long-term)."""
        if counted:
            self._subscriptions[openid, template_id] -= 1
            self.remaining[PermitKind.SUBSCRIPTION] -= 1
        self.used[PermitKind.SUBSCRIPTION] += 1

    def uses_of(self, permit_id: str) -> int:
        """How many messages a form_id or prepay_id delivered."""
        return self._uses.get(permit_id, 0)
