"""The fence: nobody writes into a lane that was divided, and each learns of it in time.

A number of a lane is never used again (`settings.layout`). So what a script's keys are called says
which layout its caller knew, and a lane that is divided has but to refuse every script from then
on, by a key of its own (`keys.shut`): not even a process that stood still for an hour writes where
a user no longer lives. It is looked at within the script, and costs no trip.

Who may write learns what there is now from that refusal. Whoever only reads learns it with a new
connection, which asks before it is used, or, where it is to another node of a cluster, before what
was read is believed (`following`); workers and the service ask each second, and the connections of
the others are closed after each division (`relaning`).
"""

from collections.abc import Callable, Mapping
from typing import Final

import redis
from redis.exceptions import MovedError

from producers.settings import Layout, Settings
from producers.settings.layout import FIELDS
from producers.store import keys
from producers.store.primary import NotDoneError, reply_of

QUESTION: Final = ("HMGET", keys.DEPLOYMENT, *FIELDS)

_FENCED: Final = "FENCED"

_GUARDED: Final = """\
do local seen = '' for _, key in ipairs(KEYS) do if key:sub(1, #seen) ~= seen or seen == '' then \
seen = key:match('^wxb:{%d+}:') or '' if seen ~= '' and redis.call('EXISTS', seen .. 'shut') == 1 \
then return redis.error_reply('FENCED: the lane was divided') end end end end """


class OutlivedError(NotDoneError):
    """This process may not go on: its text says why. For redis-py: a connection did not come up."""


class ServerChangedError(NotDoneError):
    """A server is another one than that on which lanes began to be divided; its text says which."""


class Fence:
    """That of one client's connections: each new one learns which lanes there are.

    Args:
        settings: those of the process; they are given the layout (`Settings.live_in`).

    Attributes:
        is_unsure: one came up since, to a node of a cluster that does not know it.
    """

    mark = "shut"
    """What the name of a key ends with that refuses a script of this process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.is_unsure = False

    def check(self, answer: object) -> None:
        """Take in what Redis answers to `QUESTION`."""
        layout = layout_of(answer)
        if layout is not None and self._settings.lives:
            self._settings.live_in(layout)
        self.is_unsure |= isinstance(answer, MovedError)


class Turn:
    """That of whoever divides lanes: each of its connections asks whether it is its turn still.

    Whoever takes over closes them all, so that nothing of an earlier run is done after that. No
    lane refuses it.

    Attributes:
        held: raises `OutlivedError` when it is another one's turn; None: nothing is changed yet.
    """

    mark = "none"

    def __init__(self) -> None:
        self.held: Callable[[], None] | None = None

    def check(self, answer: object) -> None:  # noqa: ARG002  (whichever lanes there are)
        """Look whether it is its turn.

        Raises:
            OutlivedError: the connection must not be used.
        """
        if self.held is not None:
            self.held()


def layout_of(answer: object) -> Layout | None:
    """Return the layout from an answer to `QUESTION`; None where there is none, or no such reply.

    Of a cluster one node has it; a user may not be allowed to read it.
    """
    if not isinstance(answer, list) or len(answer) != len(FIELDS):
        return None
    found: Mapping[str, str | None] = {
        field: one.decode() if isinstance(one, bytes) else one
        for field, one in zip(FIELDS, answer, strict=True)
    }
    return Layout.read(found) if found["lanes"] and found["buckets"] else None


def is_refusal(error: object) -> bool:
    """Say whether a script was refused in its lane, before it began."""
    return isinstance(error, redis.ResponseError) and reply_of(error).startswith(_FENCED)


def guarded(script: str) -> str:
    """Return a script's text as it runs where no lane of its KEYS was divided; else it is refused.

    On a cluster a declared key does that (`cluster.slots`).
    """
    first, line, rest = script.partition("\n")
    return f"{first}{line}{_GUARDED}{rest}" if first.startswith("#!") else _GUARDED + script
