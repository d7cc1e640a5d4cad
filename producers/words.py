"""The words of the field, as types: channels, permit kinds, states and outcomes.

They are what Redis, the logs, the command line and the Python functions say; their values never
change once a deployment is born.
"""

from enum import StrEnum
from typing import Final


class Channel(StrEnum):
    """Which WeChat API a broadcast uses."""

    TEMPLATE = "template"
    """``message/wxopen/template/send``: spends form_ids and prepay_ids."""
    SUBSCRIBE = "subscribe"
    """``message/subscribe/send``: spends subscriptions."""


class PermitKind(StrEnum):
    """What a user gave: one right to receive one message (a prepay_id: three)."""

    FORM_ID = "form_id"
    PREPAY_ID = "prepay_id"
    SUBSCRIPTION = "subscription"

    @property
    def letter(self) -> str:
        """How Redis names the kind: f, p or s."""
        return self[0]


KIND_OF: Final = {kind.letter: kind for kind in PermitKind}
"""Letter → kind."""


class TokenSource(StrEnum):
    """Where an app's access_token comes from."""

    STABLE = "stable"
    """``cgi-bin/stable_token``, which WeChat recommends."""
    CLASSIC = "classic"
    """``cgi-bin/token``."""
    URL = "url"
    """An outside token service."""
    REDIS = "redis"
    """A Redis key that somebody else keeps."""


class State(StrEnum):
    """The state of a broadcast."""

    SCHEDULED = "scheduled"
    RUNNING = "running"
    PAUSED = "paused"
    FINISHED = "finished"
    CANCELLED = "cancelled"
    ABORTED = "aborted"


ENDED: Final = frozenset({State.FINISHED, State.CANCELLED, State.ABORTED})
"""States that no move leaves."""


class EventType(StrEnum):
    """What a webhook tells of."""

    FINISHED = "broadcast.finished"
    """Everybody has an outcome."""
    ABORTED = "broadcast.aborted"
    """WeChat refuses the message for everybody."""
    PAUSED = "broadcast.paused"
    """Nothing of it is sent until somebody resumes it; of single messages too."""
    CANCELLED = "broadcast.cancelled"
    """Somebody ended it."""
    SETTLED = "message.settled"
    """A single message has its outcome."""


class Outcome(StrEnum):
    """The final word on a recipient."""

    DELIVERED = "delivered"
    """WeChat accepted the message."""
    NO_PERMIT = "no_permit"
    """The user had no usable permit when the message's turn came."""
    SUPPRESSED = "suppressed"
    """The user is on the app's suppression list, and was sent nothing."""
    KEPT = "kept"
    """The user's last uses are left to single messages (`keep_for_messages`)."""
    CAPPED = "capped"
    """The user had as many of this purpose on that day as there may be (`per_user_per_day`)."""
    REFUSED = "refused"
    """The user does not accept this message (43101 and its like)."""
    INVALID_USER = "invalid_user"
    """The openid is not one of this app's (40003 and its like)."""
    BAD_DATA = "bad_data"
    """WeChat refused the content for this user (47003, 45168)."""
    LATE = "late"
    """The broadcast expired first."""
    CANCELLED = "cancelled"
    """The broadcast was cancelled or aborted first."""
    IN_DOUBT = "in_doubt"
    """Posted, and the answer was lost or forgotten: perhaps delivered, and never repeated."""
    FAILED = "failed"
    """WeChat's answer was final and none of the above."""
