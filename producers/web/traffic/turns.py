"""Turns: few requests begin in one turn of the event loop, and addresses alternate.

Between any two turns the loop takes new connections and reads from all others, so what a turn may
hold is what everybody waits for. A request that finds nobody waiting begins at once.
"""

import asyncio
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from producers.web.http.connection import Connection

_IN_A_TURN: Final = 64
"""Requests that begin in one turn of the loop; fewer would make small batches for Redis."""
_OF_MANY: Final = 16
"""For so many counts one with others behind it on its connection: four of them fill a turn."""

_Line = deque[tuple["Connection", asyncio.Future[None]]]


class Turns:
    """Says who begins next. Belongs to one event loop."""

    def __init__(self) -> None:
        self._begun = 0
        """In this turn of the loop, as they count."""
        self._lines: OrderedDict[str, _Line] = OrderedDict()
        """Who waits, by address; the address whose turn is next comes first."""

    def begins(self) -> bool:
        """Begin a request now, if nobody waits and there is room in this turn."""
        if self._lines or self._begun >= _IN_A_TURN:
            return False
        self._begun += 1
        if self._begun == 1:
            asyncio.get_running_loop().call_soon(self._next)
        return True

    async def wait(self, connection: "Connection") -> None:
        """Wait for a connection's turn.

        Raises:
            asyncio.CancelledError: the connection was lost meanwhile.
        """
        loop = asyncio.get_running_loop()
        if not self._lines and not self._begun:
            loop.call_soon(self._next)
        turn = loop.create_future()
        self._lines.setdefault(connection.peer, deque()).append((connection, turn))
        await turn

    def _next(self) -> None:
        """Let the next ones begin: one of each address, then another of each."""
        self._begun = 0
        lines = self._lines
        while lines and self._begun < _IN_A_TURN:
            peer = next(iter(lines))
            connection, turn = lines[peer].popleft()
            if lines[peer]:
                lines.move_to_end(peer)
            else:
                del lines[peer]
            if connection.transport is None:
                turn.cancel()
            elif not turn.done():
                turn.set_result(None)
                self._begun += _OF_MANY if connection.waits else 1
        if self._begun:
            asyncio.get_running_loop().call_soon(self._next)
