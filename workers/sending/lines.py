"""Lines: what waits to be done many at a time: a line for each place, each served by its own task.

A place whose script runs long holds up no other. What is put in wakes the line's task; what is put
in before that runs is served with it. A line ends where nothing comes any more: of an app that
went, in a lane that was divided.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine, Hashable, Iterator
from typing import Any, Final, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")

_IDLE_S: Final = 60.0


async def company(linger_s: float) -> None:
    """Sleep half to one and a half times so long: to a moment that all lines have in common.

    What more than one line does then may share a trip to Redis.
    """
    left_s = linger_s - asyncio.get_running_loop().time() % linger_s
    await asyncio.sleep(left_s if left_s >= linger_s / 2 else left_s + linger_s)


class Line(Generic[Item]):
    """What waits at one place.

    Attributes:
        items: the next one first.
        filled: set while there are any.
    """

    __slots__ = ("filled", "items")

    def __init__(self) -> None:
        self.items: deque[Item] = deque()
        self.filled = asyncio.Event()

    async def wait(self) -> bool:
        """Wait until there are any; returns False where none came for long: the line may end.

        Whoever serves it ends then, before anything else runs on the loop.
        """
        if not self.items:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_IDLE_S):
                    await self.filled.wait()
        return bool(self.items)

    def pop(self, most: int) -> list[Item]:
        """Take so many at the most."""
        items = self.items
        some = [items.popleft() for _ in range(min(most, len(items)))]
        if not items:
            self.filled.clear()
        return some


class Lines(Generic[Key, Item]):
    """All lines of one kind; belongs to one event loop.

    Args:
        serve: serves one line until it is cancelled, or `Line.wait` says that it may end.
    """

    def __init__(self, serve: Callable[[Key, Line[Item]], Coroutine[Any, Any, None]]) -> None:
        self._serve = serve
        self._lines: dict[Key, Line[Item]] = {}
        self._tasks = set[asyncio.Task[None]]()

    def __iter__(self) -> Iterator[Line[Item]]:
        return iter(self._lines.values())

    def put(self, key: Key, item: Item) -> None:
        """Put one in, at the end."""
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = Line()
            task = asyncio.get_running_loop().create_task(self._serve_until_idle(key, line))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        line.items.append(item)
        if not line.filled.is_set():
            line.filled.set()

    async def _serve_until_idle(self, key: Key, line: Line[Item]) -> None:
        await self._serve(key, line)
        del self._lines[key]

    async def close(self) -> None:
        """Serve no more; what waits is left."""
        for task in [*self._tasks]:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
