"""Phones that file permits which WeChat does not know: what they cost everybody else."""

import threading
import time
from typing import Any

import pytest

from producers.broadcasts.spec import Spec
from producers.care.audit import Auditor

HONEST = 3600
LIARS = 60
SEND = "/cgi-bin/message/wxopen/template/send"


def spec() -> Spec:
    return Spec.checked(
        app="shop", channel="template", template_id="T" * 43, data="a,b,c", audience="all"
    )


class Phones(threading.Thread):
    """Phones of users liar0 …, each of which files ten permits of its own making now and again."""

    def __init__(self, shop: Any) -> None:
        super().__init__(daemon=True)
        self._shop = shop
        self._filed = 0
        self._end = threading.Event()

    def file(self) -> None:
        """File ten permits of each."""
        self._filed += 10
        self._shop.collector.collect(
            "shop",
            (
                {
                    "openid": f"liar{phone}",
                    "formIds": [f"bogus{phone}x{self._filed + n}" for n in range(10)],
                }
                for phone in range(LIARS)
            ),
        )

    def run(self) -> None:
        while not self._end.wait(0.1):
            self.file()

    def end(self) -> None:
        self._end.set()
        self.join(10)


@pytest.mark.timeout(120)
def test_phones_that_refill_bogus_permits_cost_a_broadcast_five_percent(
    shop, make_settings, wechat, units
) -> None:
    settings = make_settings(app={"rate_per_second": 400})
    shop = type(shop)(shop.client, settings, wechat)
    shop.collect_form_ids(HONEST, each=2)
    phones = Phones(shop)
    phones.file()
    units.start(settings, wechat)
    phones.start()
    try:
        for round_ in (1, 2):
            started = time.monotonic()
            status = shop.wait(shop.broadcasts.create(spec()).id, 50)
            took_s = time.monotonic() - started
            assert status.outcomes == {"delivered": HONEST, "no_permit": LIARS}
            dead = wechat.stats["apis"][SEND]["by_errcode"]["41028"]
            assert dead <= 0.05 * HONEST, "the first broadcast paid, the second nothing"
            assert took_s <= 1.05 * HONEST / 400 + 3, round_  # the canary, and a busy machine
    finally:
        phones.end()
    assert dead <= 1000
    assert Auditor(shop.client, settings).run().wrong == []


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_bogus_prepay_id_holds_a_broadcast_up_for_two_minutes_at_most(
    shop, wechat, units, eventually
) -> None:
    shop.collect_form_ids(100)
    shop.collector.collect("shop", [{"openid": "liar0", "prepayId": "wx2026bogus"}])
    units.start(shop.settings, wechat)
    started = time.monotonic()
    status = shop.wait(shop.broadcasts.create(spec()).id, 150)
    assert status.outcomes == {"delivered": 100, "no_permit": 1}
    assert time.monotonic() - started <= 122
