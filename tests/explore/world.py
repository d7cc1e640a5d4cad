"""Worlds: small enough to be walked through whole.

A world says who gave which permits, what is sent, and which faults may happen how often. Everything
else that may happen follows from what stands (see `actions`).
"""

from dataclasses import dataclass, field
from typing import Final

from producers.settings import Layout

TEMPLATE: Final = "T"
BROADCAST: Final = "00000000002" + "0" * 10
"""Its home is lane 0, of one lane and of two."""

NEAR, NEAR_TOO, FAR = "o4", "o5", "o3"
"""Users of lane 0, and one whose lane is 1 where there are two."""


@dataclass(frozen=True)
class World:
    """One world.

    Attributes:
        name: for the command line.
        about: what it is there for.
        users: openid → what each gave, as an upload (see `producers.permits.uploads`).
        channel: of the broadcast.
        faults: fault → how many may happen in one run; see `actions`, each names its fault.
        refusals: errcodes that WeChat may answer with, each of which costs a ``refusal``.
        lanes: 1 or 2.
        canary: K.
        posts: openids who are sent a single message too.
        attempts: tries per message.
        expires_s: how long the broadcast lives.
        workers: 1 or 2.
        unsplit: whoever created the broadcast died before any lane heard of it.
        together: so many faults of all kinds, ticks beside, may happen in one run; None: each as
            often as it may.
    """

    name: str
    about: str
    users: dict[str, dict[str, object]]
    channel: str
    faults: dict[str, int] = field(default_factory=dict)
    refusals: tuple[int, ...] = ()
    lanes: int = 1
    canary: int = 2
    posts: tuple[str, ...] = ()
    attempts: int = 3
    expires_s: int = 7 * 86_400
    workers: int = 2
    unsplit: bool = False
    together: int | None = None

    @property
    def layout(self) -> Layout:
        """Which lanes there are."""
        return Layout(self.lanes, [self.lanes])

    @property
    def names(self) -> tuple[str, ...]:
        """The workers' names."""
        return ("w1", "w2")[: self.workers]

    def given(self, permit: str) -> int:
        """Return how often WeChat takes a permit that was given, before any other is collected."""
        kind, _, name = permit.partition(":")
        if kind == "f":
            return 1
        if kind == "p":
            return 3
        openid = name.partition(":")[0]
        return len(self.users.get(openid, {}).get("accepts", ()))  # type: ignore[arg-type]


def forms(*users: str, each: int = 2) -> dict[str, dict[str, object]]:
    """Give each user form_ids."""
    return {user: {"formIds": [f"{user}{letter}" for letter in "abc"[:each]]} for user in users}


def prepays(*users: str) -> dict[str, dict[str, object]]:
    """Give each user a prepay_id, which is three uses."""
    return {user: {"prepayId": f"wx{user}"} for user in users}


def accepts(*users: str, each: int = 2) -> dict[str, dict[str, object]]:
    """Give each user accepts of the template."""
    return {user: {"accepts": list(range(each))} for user in users}
