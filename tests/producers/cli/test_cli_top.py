"""``wxbroadcast top``: the board at a terminal of 80 columns, and what its keys do."""

import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator

import pytest
from cli_runs import run, variables
from shop import Shop
from textual.pilot import Pilot
from textual.widgets import DataTable, Static

from producers.board import Board, Boards
from producers.cli.screen import Sure, Top
from producers.errors import StoreUnavailableError
from producers.settings import Settings

COLUMNS = (80, 24)


def screen(shop: Shop, every_s: float = 60) -> Top:
    boards = Boards(shop.client, shop.settings)

    def move(broadcast: str, how: str) -> object:
        return getattr(shop.broadcasts, how)(broadcast)

    return Top(boards.look, move, every_s)


def give(shop: Shop, users: int) -> None:
    shop.collector.collect("shop", [{"openid": f"o{n}", "formId": f"f{n}"} for n in range(users)])


def text_of(top: Top, name: str) -> str:
    return str(top.query_one(f"#{name}", Static).render())


def rows_of(top: Top, name: str = "broadcast-rows") -> list[str]:
    table = top.query_one(f"#{name}", DataTable)
    return [" ".join(str(cell) for cell in table.get_row(row.key)) for row in table.ordered_rows]


async def until(pilot: Pilot[None], holds: Callable[[], object], that: str) -> None:
    deadline = time.monotonic() + 15
    while not holds():
        assert time.monotonic() < deadline, f"never came true: {that}"
        await pilot.pause(0.02)


async def test_it_shows_broadcasts_and_moves_the_one_under_the_cursor(shop: Shop) -> None:
    give(shop, 7)
    first, second = shop.broadcast(), shop.broadcast()
    top = screen(shop, every_s=0.2)

    def is_now(state: str) -> Callable[[], bool]:
        return lambda: any(first in row and state in row for row in rows_of(top))

    async with top.run_test(size=COLUMNS) as pilot:
        await until(pilot, lambda: len(rows_of(top)) == 2, "both are shown")
        assert [row.split(" ")[0] for row in rows_of(top)] == [second, first]
        assert "0/7" in rows_of(top)[0]
        assert "0 workers" in text_of(top, "sums")
        assert "no worker alive" in text_of(top, "sums")
        await pilot.press("down")
        await until(pilot, lambda: first in text_of(top, "one"), "the cursor is at the first")
        await pilot.press("p")
        await until(pilot, lambda: isinstance(top.screen, Sure), "it asks")
        await pilot.press("n")
        await until(pilot, lambda: not isinstance(top.screen, Sure), "it was answered")
        assert shop.broadcasts.status(first).state == "running"
        for key, state in (("p", "paused"), ("r", "running"), ("c", "cancelled")):
            await pilot.press(key)
            await until(pilot, lambda: isinstance(top.screen, Sure), "it asks")
            await pilot.press("y")
            await until(pilot, lambda: not isinstance(top.screen, Sure), "it was answered")
            await until(pilot, is_now(state), f"it is {state}")
            assert shop.broadcasts.status(first).state == state
            assert first in text_of(top, "one")  # the cursor stays with it
        await pilot.press("a")
        await until(pilot, lambda: len(rows_of(top)) == 1, "what has ended is hidden")
        assert second in rows_of(top)[0]
        await pilot.press("2")
        await until(pilot, lambda: rows_of(top, "app-rows"), "the apps are shown")
        assert rows_of(top, "app-rows")[0].startswith("shop 1 0 0")


async def test_a_move_that_is_refused_and_a_redis_that_is_away_are_told(shop: Shop) -> None:
    give(shop, 1)
    broadcast = shop.broadcast()
    away = False
    boards = Boards(shop.client, shop.settings)

    def look() -> Board:
        if away:
            raise StoreUnavailableError("Redis does not answer: \x1b[2J")
        return boards.look()

    def move(broadcast: str, how: str) -> object:
        return getattr(shop.broadcasts, how)(broadcast)

    top = Top(look, move, 0.2)
    async with top.run_test(size=COLUMNS, notifications=True) as pilot:
        await until(pilot, lambda: broadcast in text_of(top, "one"), "it is under the cursor")
        await pilot.press("r")
        await until(pilot, lambda: isinstance(top.screen, Sure), "it asks")
        await pilot.press("y")
        await until(
            pilot,
            lambda: any("running" in note.message for note in top._notifications),
            "the refusal is told",
        )
        away = True
        await until(pilot, lambda: "does not answer" in text_of(top, "sums"), "Redis is away")
        assert "\x1b" not in text_of(top, "sums")
        assert broadcast in rows_of(top)[0]  # what was seen last stays


def test_without_a_terminal_it_is_one_look_as_json(shop: Shop, settings: Settings) -> None:
    give(shop, 2)
    broadcast = shop.broadcast()
    ran = run(settings, "top")
    assert ran.code == 0
    assert [one["id"] for one in ran.json["broadcasts"]] == [broadcast]
    assert ran.json["apps"][0]["uses"]["available"] == 2
    assert run(settings, "top", "--app", "nobody", "--json").code == 2


@pytest.fixture
def terminal(settings: Settings) -> Iterator[list[str]]:
    """Give tmux with `top` in it, 80 columns wide, as over ssh."""
    assert shutil.which("tmux"), "tmux is needed: apt-get install tmux"
    tmux = ["tmux", "-L", f"wxb-{uuid.uuid4().hex[:8]}", "-f", "/dev/null"]
    command = f"{sys.executable} -m producers.cli top"
    subprocess.run(
        [*tmux, "new-session", "-d", "-x", "80", "-y", "24", command],
        env={**os.environ, **variables(settings), "TERM": "xterm-256color"},
        check=True,
    )
    yield tmux
    subprocess.run([*tmux, "kill-server"], check=False)


def shown(tmux: list[str]) -> str:
    done = subprocess.run([*tmux, "capture-pane", "-p"], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.timeout(60)
def test_at_a_real_terminal_of_80_columns(shop: Shop, terminal: list[str]) -> None:
    give(shop, 3)
    broadcast = shop.broadcast()

    def until(text: str) -> str:
        deadline = time.monotonic() + 20
        while text not in (seen := shown(terminal)):
            assert time.monotonic() < deadline, seen
            time.sleep(0.1)
        return seen

    until(broadcast)
    seen = until("Quit")
    assert max(map(len, seen.splitlines())) <= 80
    for word in ("running", "0/3", "0 workers", "Pause", "Cancel", "Quit"):
        assert word in seen
    subprocess.run([*terminal, "send-keys", "p"], check=True)
    until("[y] yes")
    subprocess.run([*terminal, "send-keys", "y"], check=True)
    until(" paused ")
    assert shop.broadcasts.status(broadcast).state == "paused"
