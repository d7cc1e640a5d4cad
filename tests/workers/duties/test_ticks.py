"""Ticks: a series whose time has come makes its broadcast when the duty runs."""

import redis

from producers.permits.collect import Collector
from producers.series import Series
from producers.settings import Settings
from producers.store import keys
from workers.duties.ticks import Ticks


def test_what_is_due_of_series_is_made_once(client: "redis.Redis", settings: Settings) -> None:
    Collector(client, settings).collect("shop", [{"openid": "o1", "formIds": ["f1"]}])
    series = Series(client, settings)
    series.create(
        "evening",
        "0 21 * * *",
        app="shop",
        channel="template",
        template_id="T",
        data={"keyword1": "a"},
        audience="all",
    )
    ticks = Ticks(series)
    assert ticks.due(0.0)
    ticks.run()
    assert series.show("shop", "evening").last_broadcast == ""
    now_ms = client.time()[0] * 1000
    client.hset(keys.series("shop", "evening"), "next_ms", now_ms)
    client.zadd(keys.SERIES_DUE, {"shop evening": now_ms})
    ticks.run()
    made = series.show("shop", "evening").last_broadcast
    assert made
    ticks.run()
    assert series.show("shop", "evening").last_broadcast == made
