"""The board: all of a deployment in a few trips, and nothing of its users."""

from collections.abc import Callable
from typing import Any

import pytest
from shop import Shop

from producers import store
from producers.board import Boards
from producers.board.board import MOST
from producers.errors import UnknownAppError
from producers.settings import Settings
from producers.store import keys


def test_it_shows_what_runs_what_waits_and_what_is_left(shop: Shop) -> None:
    shop.collector.collect("shop", [{"openid": f"o{n}", "formId": f"f{n}"} for n in range(5)])
    shop.give("oz", subscriptions={"T" * 43: "accept"})
    first = shop.broadcast()
    shop.broadcasts.pause(first)
    second = shop.broadcast()
    shop.run_dry(second)
    shop.broadcasts.finish(second)
    third = shop.broadcast()
    board = Boards(shop.client, shop.settings).look()
    (line,) = board.apps
    assert (line.app, line.running, line.paused, line.scheduled) == ("shop", 1, 1, 0)
    assert (line.uses.collected, line.uses.spent, line.uses.available) == (6, 5, 1)
    assert line.ending == {"1h": 0, "24h": 0, "7d": 0, "later": 1}
    assert "no worker alive" in line.hindered
    assert [one.id for one in board.broadcasts] == [third, first, second]
    assert board.left_out == 0
    assert board.workers.workers == 0
    assert line.token_s == 0
    calls, seconds = board.scripts
    assert calls > 3
    assert 0 < seconds < 60
    shown = board.as_dict()
    assert shown["workers"] == {"alive": 0, "closed": []}
    assert shown["apps"][0]["uses"]["spent"] == 5


def test_no_app_takes_the_places_of_the_others(
    client: Any, make_settings: Callable[..., Settings]
) -> None:
    apps = {f"a{n}": {"appid": f"wx{n:016}", "secret": "s"} for n in range(8)}
    settings = make_settings(apps=apps)
    mine = store.connect(settings)
    mine.zadd(keys.active("a0"), {f"b{n:04}": n for n in range(5000)})
    for n in range(1, 8):
        mine.zadd(keys.active(f"a{n}"), {f"c{n}x{i:02}": i for i in range(40)})
    boards = Boards(mine, settings)
    _, ids, left_out, *_ = boards._listed(list(apps))
    assert len(ids) == MOST
    of_each = [sum(one.startswith(f"c{n}x") for one in ids) for n in range(1, 8)]
    assert of_each == [25] * 7
    assert left_out == 5000 + 7 * 40 - MOST
    mine.close()
    mine.connection_pool.disconnect()


def test_its_trips_do_not_grow_with_apps_and_broadcasts(
    client: Any, make_settings: Callable[..., Settings]
) -> None:
    def trips(apps: int) -> int:
        names = {f"a{n}": {"appid": f"wx{n:016}", "secret": "s"} for n in range(apps)}
        settings = make_settings(apps=names)
        mine = store.connect(settings)
        asked: list[int] = []
        taken = mine.connection_pool.get_connection

        def take(*args: Any, **more: Any) -> Any:
            asked.append(1)
            return taken(*args, **more)

        mine.connection_pool.get_connection = take
        Boards(mine, settings).look()
        mine.close()
        mine.connection_pool.disconnect()
        return len(asked)

    assert trips(1) == trips(100) <= 6


def test_an_unknown_app_is_said(shop: Shop) -> None:
    with pytest.raises(UnknownAppError):
        Boards(shop.client, shop.settings).look(["nobody"])
