"""The fence: no process with other lanes than the deployment's reaches its keys.

While the lanes of a deployment are changed (`relaning`), and from then on, each new connection asks
once how many there are, and is closed again where they are not those of its process. Whoever
changes them closes all older connections first: so not even a process that stood still for an hour
writes where a user no longer lives. A script under way has ended by then, and nothing is asked
beside the sending.

On a cluster one node has the deployment, and asks for all: the others do not know, and a lane may
come to lie on any of them. So each script names, beside its keys, one of its lane that is there
once processes with so many lanes are refused (`keys.fenced`): it goes where the lane goes.
"""

import contextlib
from collections.abc import Callable
from typing import Any, Final

import redis

from producers.settings import Settings
from producers.store import keys
from producers.store.primary import NotDoneError

RELANING: Final = "relaning"
"""Field of `keys.DEPLOYMENT` while the lanes are changed: to how many."""

QUESTION: Final = ("HMGET", keys.DEPLOYMENT, "lanes", RELANING)

_FENCED: Final = "FENCED"


class FencedError(NotDoneError):
    """The deployment has other lanes than this process, or is about to; its text says what to do.

    Trying again at once is in vain. For redis-py it is a connection that did not come up.

    Attributes:
        lanes: those that the deployment has, or gets; 0: it is not known.
    """

    def __init__(self, message: str, lanes: int) -> None:
        super().__init__(message)
        self.lanes = lanes


class Fence:
    """That of one client's connections.

    Args:
        settings: those of the process; what they live in must not change (`Settings.live_in`).

    Attributes:
        outlived: whether the deployment was seen with other lanes than these.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.outlived = False

    @property
    def mark(self) -> str:
        """What the name of a key ends with that refuses a script of this process."""
        return f":{self._settings.lanes}"

    def check(self, answer: object) -> None:
        """Look at what Redis answers to `QUESTION`.

        Raises:
            FencedError: the connection must not be used.
        """
        if not isinstance(answer, list) or len(answer) != len(QUESTION) - 2:
            return  # a node that does not have it, or a user who may not read it
        lanes, towards = (one.decode() if isinstance(one, bytes) else one for one in answer)
        if towards:
            raise under_way(lanes, towards)
        if lanes and self._settings.lives and int(lanes) != self._settings.lanes:
            self.outlived = True
            raise FencedError(
                f"this deployment has {lanes} lanes, this process {self._settings.lanes}: start it "
                "anew, with WXB_LANES unset, or set to what it has",
                int(lanes),
            )


class Turn:
    """That of whoever changes the lanes: each of its connections asks whether it is its turn still.

    Whoever takes over closes them all, so that nothing of an earlier run is done after that.

    Attributes:
        held: raises `FencedError` when it is another one's turn; None: nothing is changed yet.
        mark: as of a `Fence`: no lane refuses it.
    """

    mark = ""

    def __init__(self) -> None:
        self.held: Callable[[], None] | None = None

    def check(self, answer: object) -> None:  # noqa: ARG002  (whichever lanes there are)
        """Look whether it is its turn.

        Raises:
            FencedError: the connection must not be used.
        """
        if self.held is not None:
            self.held()


def under_way(lanes: str, towards: str) -> FencedError:
    """Return the error that says that the lanes are being changed."""
    return FencedError(
        f"the lanes of this deployment are being changed from {lanes} to {towards}: nothing is "
        f"stored or sent until `wxbroadcast lanes {towards}` has ended; run it again if it was "
        "killed",
        int(towards),
    )


def is_refusal(error: BaseException) -> bool:
    """Say whether a script was refused in its lane, before it began."""
    return isinstance(error, redis.ResponseError) and _FENCED in str(error)


def refused() -> FencedError:
    """Return the error of a script that was refused, where nothing more is known."""
    return FencedError("this process has other lanes than the deployment: start it anew", 0)


def is_outlived(client: Any) -> bool:
    """Say whether a client met a deployment with other lanes than its own: it never works again."""
    fence = _fence_of(client)
    return fence is not None and fence.outlived


def look(client: Any) -> bool:
    """Ask once whether a client's process is outlived; for who may be asked nothing for long."""
    fence = _fence_of(client)
    if fence is not None:
        with contextlib.suppress(redis.RedisError):  # then later; or the fence has noted it
            fence.check(client.execute_command(*QUESTION))
    return is_outlived(client)


def _fence_of(client: Any) -> Fence | None:
    pool = getattr(client, "connection_pool", None)
    fence = pool.connection_kwargs.get("fence") if pool is not None else None
    return fence if isinstance(fence, Fence) else None
