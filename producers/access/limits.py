"""Limits: how often a user or an address may knock at the door, or an API key ask.

Each limit is one small key, gone when it is empty again. One script run on the server's clock
judges calls against all of their limits and counts them; a lost reply counts nothing twice.

Own code, because the limiters of libraries know one limit a call, on the client's clock or in
several steps, and count a call again whose reply was lost.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from producers.store import Client, keys
from producers.store.scripts import Script, new_token

_MINUTE_MS: Final = 60_000


class LimitsKeys(NamedTuple):
    """KEYS of limits.lua; one per limit follows."""

    reply: str


class LimitsArgs(NamedTuple):
    """ARGV of limits.lua; four per limit follow."""

    most: int


LIMITS: Final = Script(__package__, "limits", LimitsKeys, LimitsArgs, token=True, clock=True)


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit that a call has to pass.

    Attributes:
        key: where it is counted.
        most: so many at once, and spread over `within_ms` again.
        need: room that must be there; 0 never refuses.
        cost: what the call is counted as; 0 only looks, less gives back.
        within_ms: a minute, unless said otherwise.
    """

    key: str
    most: int
    need: int = 1
    cost: int = 1
    within_ms: int = _MINUTE_MS


@dataclass(frozen=True, slots=True)
class Admission:
    """What the limits said.

    Attributes:
        granted: how many calls may pass; so many were counted.
        wait_ms: until one may; 0 when any was granted.
        now_ms: the server's clock.
    """

    granted: int
    wait_ms: int
    now_ms: int

    @property
    def admitted(self) -> bool:
        """Whether all limits had room."""
        return self.granted > 0


class Limits:
    """Judges calls. Safe to share between threads.

    Args:
        client: of Redis.
        when_full: whether calls pass, and are counted, on a Redis that is full. What strangers
            cause had better be refused then.
    """

    def __init__(self, client: Client, *, when_full: bool = False) -> None:
        self._script = LIMITS.on(client, when_full=when_full)
        self._callers = threading.local()

    def admit(self, place: int | str, limits: Sequence[Limit], most: int = 1) -> Admission:
        """Count calls, as far as all their limits have room.

        Args:
            place: of all the limits' keys: a lane, an app's own, or '' for those of API keys.
            limits: at least one.
            most: calls to let pass, from 1.

        Raises:
            StoreUnavailableError: Redis did not answer; they may be counted.
        """
        caller = getattr(self._callers, "id", None)
        if caller is None:
            caller = self._callers.id = new_token()
        each: list[float] = []
        for limit in limits:
            each += (limit.within_ms / limit.most, limit.most, limit.need, limit.cost)
        granted, wait_ms, now_ms = self._script.repeated(
            "judging a limit",
            LimitsKeys(_reply(place, caller)),
            LimitsArgs(most),
            each,
            more_keys=[limit.key for limit in limits],
        )
        return Admission(granted, wait_ms, now_ms)


def _reply(place: int | str, caller: str) -> str:
    if isinstance(place, int):
        return keys.reply(place, "limits", caller)
    return keys.app_reply(place, "limits", caller) if place else keys.key_limit_reply(caller)
