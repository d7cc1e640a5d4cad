"""Every error this package raises on purpose.

::

    WxbroadcastError             catch this to catch them all
    ├── SettingsError            a setting is missing or wrong: fix it and start again
    ├── LayoutMismatchError      lanes or buckets differ from those the deployment was born with
    ├── InvalidInputError        what the caller gave is wrong; ``faults`` lists each one
    │   └── UnknownAppError      no such app in the settings
    ├── NotFoundError            no such broadcast or audience
    ├── IdempotencyConflictError the key was used before with other content
    ├── IllegalMoveError         the broadcast's state does not allow this move
    └── StoreUnavailableError    Redis did not answer in time, within the bounded retries

Producers raise them to their callers, who show ``str(error)``: it says what to do. Nothing is
stored when one of them is raised, unless its docstring says so.
"""

from collections.abc import Sequence


class WxbroadcastError(Exception):
    """The root of all errors of this package."""


class SettingsError(WxbroadcastError):
    """A setting is missing or wrong; the message names the variable and what to set."""


class LayoutMismatchError(WxbroadcastError):
    """The settings' lanes or buckets differ from those stored when the deployment was born."""


class InvalidInputError(WxbroadcastError):
    """What the caller gave is wrong.

    Attributes:
        faults: one sentence per fault, each saying what was found and what is accepted.
    """

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = tuple(faults)


class UnknownAppError(InvalidInputError):
    """No app of that alias stands in the settings."""

    def __init__(self, app: str, known: Sequence[str]) -> None:
        names = ", ".join(sorted(known)) or "none"
        super().__init__([f"no app {app!r} in WXB_APPS (it has: {names})"])
        self.app = app


class NotFoundError(WxbroadcastError):
    """No broadcast or audience of that name."""


class IdempotencyConflictError(WxbroadcastError):
    """The idempotency key was used before, with other content.

    Attributes:
        key: the key.
        broadcast_id: the broadcast that the key created.
    """

    def __init__(self, key: str, broadcast_id: str) -> None:
        super().__init__(
            f"key {key!r} already created broadcast {broadcast_id} with other content; "
            "use another key for another broadcast"
        )
        self.key = key
        self.broadcast_id = broadcast_id


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


class StoreUnavailableError(WxbroadcastError):
    """Redis did not answer within the bounded retries."""
