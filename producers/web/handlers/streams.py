"""Streams: library code that reads a body, or writes an export, while the client waits.

Each holds a thread for as long as its client takes, so there are only a few (see `places`); one
more is told to come again.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from typing import Final, ParamSpec, TypeVar

from producers.web.call import Call
from producers.web.traffic.threads import on_thread

P = ParamSpec("P")
R = TypeVar("R")

_ROWS: Final = 1000
"""Rows of an export that are made at once."""


async def on_stream(call: Call, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run library code that reads the body's lines.

    Raises:
        ProblemError: busy: no place is free; or what the body's reader raises.
    """
    services = call.services
    with services.streams.taken(call.app):
        return await on_thread(services.stream_threads, work, *args, **kwargs)


class Export:
    """An export in large pieces, each made on a thread when the client took the one before.

    It holds its place until it is closed.
    """

    def __init__(self, first: bytes, pieces: AsyncGenerator[bytes, None]) -> None:
        self._first = first
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._first
        async for piece in self._pieces:
            yield piece

    async def aclose(self) -> None:
        """End it, and give its place to another."""
        await self._pieces.aclose()


async def exported(call: Call, rows: Iterator[bytes]) -> Export:
    """Begin an export.

    The first piece is made at once: what is wrong from the start is a problem, not a cut.

    Raises:
        ProblemError: busy; or what the rows raise.
    """
    pieces = _pieces(call, rows)
    return Export(await anext(pieces, b""), pieces)


async def _pieces(call: Call, rows: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
    services = call.services
    with services.streams.taken(call.app):
        while piece := await on_thread(services.stream_threads, _some, rows):
            yield piece


def _some(rows: Iterator[bytes]) -> bytes:
    return b"".join(row for _, row in zip(range(_ROWS), rows, strict=False))
