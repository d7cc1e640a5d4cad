"""Lines: one for each place, each served by its own task."""

import asyncio

import pytest
from send_path import soon

from workers.sending.lines import Line, Lines


class Shop:
    """Serves each line two at a time, unless a place is held up."""

    def __init__(self) -> None:
        self.served: list[tuple[str, list[int]]] = []
        self.held_up: set[str] = set()
        self.lines: Lines[str, int] = Lines(self._serve)

    async def _serve(self, place: str, line: Line[int]) -> None:
        while True:
            await line.filled.wait()
            if place in self.held_up:
                await asyncio.Event().wait()
            self.served.append((place, line.pop(2)))


@pytest.fixture
def shop() -> Shop:
    return Shop()


async def test_what_was_put_in_is_served_in_order_and_many_at_a_time(shop: Shop) -> None:
    for item in range(5):
        shop.lines.put("a", item)
    await soon(lambda: len(shop.served) == 3, "all are served")
    assert shop.served == [("a", [0, 1]), ("a", [2, 3]), ("a", [4])]
    shop.lines.put("a", 5)
    await soon(lambda: shop.served[-1] == ("a", [5]), "and what comes later")
    await shop.lines.close()


async def test_a_place_that_is_held_up_holds_up_no_other(shop: Shop) -> None:
    shop.held_up = {"a"}
    shop.lines.put("a", 1)
    shop.lines.put("b", 2)
    await soon(lambda: shop.served == [("b", [2])], "the other one is served")
    await shop.lines.close()


async def test_a_line_is_empty_when_its_last_one_is_taken() -> None:
    line: Line[int] = Line()
    line.items.extend(range(3))
    line.filled.set()
    assert line.pop(2) == [0, 1]
    assert line.filled.is_set()
    assert (line.pop(9), line.filled.is_set()) == ([2], False)
    assert line.pop(9) == []


async def test_once_closed_nothing_is_served_and_what_waits_is_left(shop: Shop) -> None:
    shop.held_up = {"a"}
    shop.lines.put("a", 1)
    await asyncio.sleep(0)
    await shop.lines.close()
    shop.held_up = set()
    shop.lines.put("a", 2)
    await asyncio.sleep(0.01)
    assert shop.served == []
    assert [list(line.items) for line in shop.lines] == [[1, 2]]
