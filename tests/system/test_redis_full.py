"""Redis fills up under a running broadcast: what was sent is recorded, and no one gets it twice."""

from typing import Any

from producers.broadcasts import Broadcasts
from producers.broadcasts.spec import Spec
from producers.store import keys


def test_what_was_sent_is_recorded_on_a_full_redis_and_the_rest_waits_for_room(
    slow_shop: Any, wechat: Any, units: Any, eventually: Any
) -> None:
    shop = slow_shop
    wechat.ask("config", {"latency": {"fixed_ms": 300}})
    shop.collect_subscriptions(900, "T" * 43)
    units.start(shop.settings, wechat, WXB_APPS__SHOP__RATE_PER_SECOND="300")
    spec = Spec.checked(
        app="shop",
        channel="subscribe",
        template_id="T" * 43,
        data={"thing1": "签到提醒"},
        audience="all",
    )
    broadcast = shop.broadcasts.create(spec).id
    look = Broadcasts(shop.client, shop.settings)
    eventually(lambda: look.status(broadcast).settled > 100, "a hundred are sent")
    try:
        shop.client.config_set("maxmemory", "1mb")
        eventually(
            lambda: not shop.client.hlen(keys.flight(0, broadcast)),
            "what was in flight is settled",
            within_s=10,
        )
        status = look.status(broadcast)
        assert 100 < status.settled < 900
        assert status.outcomes == {"delivered": wechat.stats["accepted"]}
    finally:
        shop.client.config_set("maxmemory", "0")
    ended = shop.wait(broadcast)
    assert ended.outcomes == {"delivered": 900}
    assert wechat.stats["duplicates"] == 0
