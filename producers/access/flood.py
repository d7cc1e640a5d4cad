"""Flood limits: how often one user or one address may knock at the mini-program's door.

Each limit is one small key, gone when it is empty again. One script run on the server's clock
judges and counts a call against all of its limits; a lost reply counts nothing twice.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from producers.store import Client, keys, scripts
from producers.store.retry import repeat

_MINUTE_MS: Final = 60_000


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
        admitted: whether all had room; only then was the call counted.
        wait_ms: until they would have; 0 when admitted.
        now_ms: the server's clock.
    """

    admitted: bool
    wait_ms: int
    now_ms: int


class Flood:
    """Judges calls. Safe to share between threads."""

    def __init__(self, client: Client) -> None:
        self._script = client.register_script(scripts.source(__package__, "flood"))
        self._callers = threading.local()

    def admit(self, place: int | str, limits: Sequence[Limit]) -> Admission:
        """Count one call, if all its limits have room.

        Args:
            place: of all the limits' keys: a lane, or an app's own.
            limits: at least one.

        Raises:
            StoreUnavailableError: Redis did not answer.
        """
        caller = getattr(self._callers, "id", None)
        if caller is None:
            caller = self._callers.id = scripts.new_token()
        args: list[str | float] = [scripts.new_token(), ""]
        for limit in limits:
            args += (limit.within_ms / limit.most, limit.most, limit.need, limit.cost)
        if isinstance(place, int):
            reply = keys.reply(place, "flood", caller)
        else:
            reply = keys.app_reply(place, "flood", caller)
        script_keys = [reply, *(limit.key for limit in limits)]
        admitted, wait_ms, now_ms = repeat(
            "judging a flood limit", lambda: self._script(keys=script_keys, args=args)
        )
        return Admission(admitted == 1, wait_ms, now_ms)
