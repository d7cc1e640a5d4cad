"""Knocks: logins before WeChat is asked, so that bad codes cost only those who send them.

Whether a code is good only WeChat can tell, and asking costs the app's quota there. So each login
takes one from two limits of its address, and two of its app: all logins, and *unproven* ones. A
code that proves good gives the unproven one back. Honest phones therefore never fill that limit,
however many share an address; refused codes do, and what they leave of the first limit is kept for
others.

Where the unproven ones are used up, a knock waits in the line of its address, and passes as soon as
one comes back or a new one is due. The line moves by turns: whoever sends bad codes one after the
other uses one up at each turn of theirs, and between two of them everybody else passes. A phone
that shows an earlier ticket of its user, expired or not, needs no unproven one: its user has a
small limit of their own.

What this does not do: an address from which more bad codes come *at once* than the line has places,
or very many such addresses, can still slow the first login of others there; users who were here
before are not touched.
"""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from producers.access import addresses
from producers.access.limits import Admission, Limit, Limits
from producers.errors import FloodError
from producers.settings import Settings
from producers.store import Client, keys

_OF_USER: Final = 12
"""Logins a minute of a user who was here before."""

_LINE: Final = 32
"""Places in the line of one address."""

_LINES: Final = 128
"""Places in all lines of a process: a quarter of the requests that it works on."""

_PATIENCE_S: Final = 8.0
"""The longest wait: with WeChat's own time it stays below that of a request."""

_LOOK_S: Final = 1.0
"""The longest time between two looks at the limits."""


@dataclass(slots=True)
class _Line:
    """Those of one address who wait, the first of them at the limits."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class Knock:
    """A login that may ask WeChat.

    Attributes:
        app: whose door.
        caller: whom it is counted for: an address, or a user; '' for nobody.
        unproven: what it gives back when its code proves good.
        now_ms: the server's clock.
    """

    app: str
    caller: str
    unproven: tuple[Limit, ...]
    now_ms: int


class Knocks:
    """Lets logins pass. Belongs to one event loop."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._limits = Limits(client)
        self._settings = settings
        self._lines: dict[tuple[str, str], _Line] = {}
        self._waiting = 0

    async def admit(self, app: str, address: str, known: str = "") -> Knock:
        """Let a login pass, at once or in its turn.

        Args:
            app: alias of the app.
            address: the client's; empty: none is counted.
            known: openid of an earlier ticket that came with it.

        Raises:
            FloodError: too many logins of this address, user or app, or its line is too long.
            StoreUnavailableError: Redis did not answer.
        """
        caller = caller_of(address, known)
        look = self._look(app, caller, is_known=bool(known))
        place = (app, caller)
        line = self._lines.get(place)
        if line is None:
            admission = await asyncio.to_thread(look)
            if admission.admitted:
                return self._knock(app, caller, admission, is_known=bool(known))
            if admission.wait_ms > _PATIENCE_S * 1000:
                raise FloodError(admission.wait_ms)
            line = self._lines.setdefault(place, _Line())
        if line.waiting >= _LINE or self._waiting >= _LINES:
            raise FloodError(round(_PATIENCE_S * 1000))
        line.waiting += 1
        self._waiting += 1
        try:
            async with asyncio.timeout(_PATIENCE_S), line.turn:
                admission = await self._turn(line, look)
            return self._knock(app, caller, admission, is_known=bool(known))
        except TimeoutError:
            raise FloodError(round(_PATIENCE_S * 1000)) from None
        finally:
            line.waiting -= 1
            self._waiting -= 1
            if not line.waiting:
                self._lines.pop(place, None)

    async def give_back(self, knock: Knock) -> None:
        """The code of a knock was not refused: what it took as unproven is there again.

        Raises:
            StoreUnavailableError: Redis did not answer; the limits give it back in a minute.
        """
        if not knock.unproven:
            return
        await asyncio.to_thread(self._limits.admit, knock.app, knock.unproven)
        line = self._lines.get((knock.app, knock.caller))
        if line is not None:
            line.moved.set()

    async def _turn(self, line: _Line, look: Callable[[], Admission]) -> Admission:
        """Wait, at the head of a line, until there is room."""
        while True:
            line.moved.clear()
            admission = await asyncio.to_thread(look)
            if admission.admitted:
                return admission
            try:
                async with asyncio.timeout(min(admission.wait_ms / 1000, _LOOK_S)):
                    await line.moved.wait()
            except TimeoutError:
                continue

    def _look(self, app: str, caller: str, *, is_known: bool) -> Callable[[], Admission]:
        """Return what counts this login, if its limits have room."""
        limits = self._unproven(app, caller, cost=1) if not is_known else ()
        all_of_app = self._settings.app_logins_per_minute
        limits += (Limit(keys.login_flood(app), all_of_app),)
        if caller:
            most = _OF_USER if is_known else self._settings.logins_per_minute
            limits += (Limit(keys.login_flood(app, caller), most),)
        return lambda: self._limits.admit(app, limits)

    def _unproven(self, app: str, caller: str, *, cost: int) -> tuple[Limit, ...]:
        need = max(0, cost)
        of_app = self._settings.app_logins_per_minute // 2
        limits: tuple[Limit, ...] = (Limit(keys.refused_code_flood(app), of_app, need, cost),)
        if caller:
            most = self._settings.refused_codes_per_minute
            limits += (Limit(keys.refused_code_flood(app, caller), most, need, cost),)
        return limits

    def _knock(self, app: str, caller: str, admission: Admission, *, is_known: bool) -> Knock:
        unproven = () if is_known else self._unproven(app, caller, cost=-1)
        return Knock(app, caller, unproven, admission.now_ms)


def caller_of(address: str, known: str = "") -> str:
    """Return the name under which a login is counted: of its user, or of its address."""
    if known:
        return f"user:{known}"
    if not address:
        return ""
    return hashlib.sha256(addresses.network(address).encode()).hexdigest()[:32]
