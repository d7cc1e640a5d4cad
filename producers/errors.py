"""Every error this package raises on purpose.

::

    WxbroadcastError             catch this to catch them all
    ├── SettingsError            a setting is missing or wrong: fix it and start again
    ├── LayoutMismatchError      lanes or buckets are set otherwise than the deployment has them
    ├── InvalidInputError        what the caller gave is wrong; ``faults`` lists each one
    │   └── UnknownAppError      no such app in the settings
    ├── ForgedError              a callback that WeChat did not sign
    ├── NotFoundError            no such broadcast or audience
    ├── IdempotencyConflictError the key was used before with other content
    ├── IllegalMoveError         the broadcast's state does not allow this move
    ├── TooManyMessagesError     one user was posted too many messages of one template today
    ├── MessagesStoppedError     WeChat refuses the template; nothing of it is posted until resumed
    ├── NobodySendsError         no worker would send it now, so nothing was posted
    ├── DoorError                the mini-program's door stays shut; the phone is told no more
    │   ├── TicketError          the ticket is no good: the phone logs in again
    │   │   ├── ExpiredTicketError
    │   │   ├── ForgedTicketError
    │   │   └── ForeignTicketError   a genuine one, of another app
    │   ├── ForeignOpenidError   the upload names another user than the ticket
    │   ├── CodeRefusedError     WeChat does not take the login code: a new wx.login
    │   ├── FloodError           too often; ``wait_ms`` says when again
    │   └── LoginUnavailableError    no verdict on the code; ``wait_ms`` says when again
    └── StoreUnavailableError    Redis did not answer in time, or cannot do what was asked
        └── LaneDividedError     a part of the deployment is being moved; again in a moment

Producers raise them to their callers, who show ``str(error)``: it says what to do. Nothing is
stored when one of them is raised, unless its docstring says so.
"""

from collections.abc import Sequence


class WxbroadcastError(Exception):
    """The root of all errors of this package."""


class SettingsError(WxbroadcastError):
    """A setting is missing or wrong; the message names the variable and what to set."""


class LayoutMismatchError(WxbroadcastError):
    """The lanes or buckets that are set differ from those of the deployment."""


class InvalidInputError(WxbroadcastError):
    """What the caller gave is wrong.

    Attributes:
        faults: one sentence per fault, each saying what was found and what is accepted.
    """

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = tuple(faults)


class ForgedError(WxbroadcastError):
    """A callback that WeChat did not sign, or not for this app; answer 403 and not the reason.

    Attributes:
        reason: one fixed word, for the log.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"not a push of WeChat: {reason}")
        self.reason = reason


class UnknownAppError(InvalidInputError):
    """No app of that alias stands in the settings."""

    def __init__(self, app: str, known: Sequence[str]) -> None:
        names = ", ".join(sorted(known)[:20]) or "none"
        if len(known) > 20:
            names += f" and {len(known) - 20:,} more"
        super().__init__([f"no app {app!r} in WXB_APPS (it has: {names})"])
        self.app = app


class NotFoundError(WxbroadcastError):
    """No broadcast or audience of that name."""


class IdempotencyConflictError(WxbroadcastError):
    """The idempotency key was used before, with other content.

    Attributes:
        key: the key.
        broadcast_id: the broadcast, or the message, that the key created.
    """

    def __init__(self, key: str, broadcast_id: str) -> None:
        super().__init__(
            f"key {key!r} already created {broadcast_id} with other content; "
            "use another key for other content"
        )
        self.key = key
        self.broadcast_id = broadcast_id


class TooManyMessagesError(WxbroadcastError):
    """One user was posted as many messages of one template today as there may be."""

    def __init__(self, template_id: str, most: int) -> None:
        super().__init__(
            f"this user was posted {most} messages of template {template_id} today; "
            "no more until tomorrow"
        )


class MessagesStoppedError(WxbroadcastError):
    """WeChat refused too many messages of this template in a row; an operator must look.

    Attributes:
        template_id: the template.
        errcode: WeChat's.
        reason: why it was stopped, in words.
        carrier: what an operator resumes, once it is mended.
    """

    def __init__(self, template_id: str, errcode: int, reason: str, carrier: str) -> None:
        super().__init__(
            f"messages of template {template_id} are stopped: WeChat answered {errcode} "
            f"({reason}); once that is mended: wxbroadcast resume {carrier}"
        )
        self.template_id = template_id
        self.errcode = errcode
        self.reason = reason
        self.carrier = carrier


class NobodySendsError(WxbroadcastError):
    """Nothing would be sent now, so nothing was posted.

    Attributes:
        reason: why not, and what to do.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"nothing was sent: {reason}")
        self.reason = reason


class IllegalMoveError(WxbroadcastError):
    """The broadcast's state does not allow this move.

    Attributes:
        broadcast_id: the broadcast.
        state: the state it is in, unchanged.
        move: what was asked.
    """

    def __init__(self, broadcast_id: str, state: str, move: str) -> None:
        super().__init__(f"cannot {move} broadcast {broadcast_id}: it is {state}")
        self.broadcast_id = broadcast_id
        self.state = state
        self.move = move


class DoorError(WxbroadcastError):
    """The mini-program's door stays shut for this call."""


class TicketError(DoorError):
    """The ticket is no good; the text is the same for every reason."""

    def __init__(self) -> None:
        super().__init__("the ticket is not valid here: log in again")


class ExpiredTicketError(TicketError):
    """It was good once."""


class ForgedTicketError(TicketError):
    """Nobody here signed it, or the app's secret has changed since."""


class ForeignTicketError(TicketError):
    """It is genuine, and of another app."""


class ForeignOpenidError(DoorError):
    """An upload names another user than the ticket."""

    def __init__(self) -> None:
        super().__init__("openid is not the ticket's: leave it out")


class CodeRefusedError(DoorError):
    """WeChat does not take the login code.

    Attributes:
        errcode: WeChat's; 0: the code has not the shape of one.
    """

    def __init__(self, errcode: int) -> None:
        super().__init__(f"the login code was refused (errcode {errcode}): call wx.login again")
        self.errcode = errcode


class FloodError(DoorError):
    """One call too many.

    Attributes:
        wait_ms: until there is room again.
    """

    def __init__(self, wait_ms: int) -> None:
        super().__init__(f"too many calls: wait {wait_ms} ms")
        self.wait_ms = wait_ms


class LoginUnavailableError(DoorError):
    """There is no verdict on the login code.

    Attributes:
        wait_ms: when to try again, with a new code.
    """

    def __init__(self, wait_ms: int) -> None:
        super().__init__(f"no login now: try again in {wait_ms} ms, with a new code")
        self.wait_ms = wait_ms


class StoreUnavailableError(WxbroadcastError):
    """Redis did not answer within the deadline or the bounded retries, or cannot do what was asked.

    Nobody knows whether the last step was made. The same call again loses nothing, and doubles
    nothing: but a message or a broadcast that has no key.
    """


class LaneDividedError(StoreUnavailableError):
    """Lanes are being added, and those that this was about are on their way: again in a moment.

    Nothing was done in that lane.
    """

    def __init__(self, why: str = "") -> None:
        super().__init__(
            why
            or "lanes are being added, and what this is about is on its way: nothing of it was "
            "done; the same call again in a moment"
        )
