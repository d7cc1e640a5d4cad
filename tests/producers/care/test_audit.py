"""The audit agrees with a sound deployment, and names what does not agree."""

from typing import Any

import pytest

from producers.broadcasts import Broadcasts
from producers.broadcasts.spec import Spec
from producers.care.audit import Auditor
from producers.permits.collect import Collector
from producers.store import keys
from workers.sending.take import Asking, Taker

pytestmark = pytest.mark.parametrize("lanes", [1, 4])


@pytest.fixture
def broadcast(client: Any, settings: Any) -> str:
    """Give a broadcast of 40 recipients of whom 10 have no permit, some in flight."""
    Collector(client, settings).collect(
        "shop",
        [{"openid": f"o{n}", "formIds": [f"a{n}", f"b{n}"]} for n in range(30)]
        + [{"openid": f"o{n}", "prepayId": f"wx{n}"} for n in range(5)]
        + [{"openid": f"s{n}", "subscriptions": {"T": "accept"}} for n in range(10)],
    )
    spec = Spec.checked(app="shop", channel="template", template_id="T", data="a", audience="all")
    made = Broadcasts(client, settings).create(spec).id
    for lane in settings.layout.lanes:
        client.hset(keys.lane_broadcast(lane, made), "open", "1")
        taker = Taker(client, settings, "w1", 10**9)
        taker.take(Asking.of("shop", lane, 5), {})
    return made


def test_a_sound_deployment_has_no_differences(client: Any, settings: Any, broadcast: str) -> None:
    found = Auditor(client, settings).run()
    assert found.findings == []
    assert found.users == {"shop": 40}
    assert found.ledgers["shop"].total.held > 0
    assert Auditor(client, settings).run(broadcast).findings == []


def test_a_permit_that_vanished_is_named(client: Any, settings: Any, broadcast: str) -> None:
    lane = keys.place_of("o29", settings)[0]
    client.delete(keys.permits(lane, "shop", "o29"))
    wrong = Auditor(client, settings).run().wrong
    assert [(one.found - one.counted, "form_id" in one.what) for one in wrong if "uses" in one.what]
    assert any("form_id uses that end in hour" in one.what for one in wrong)


def test_a_lost_outcome_and_a_lost_message_are_named(
    client: Any, settings: Any, broadcast: str
) -> None:
    lane = next(n for n in settings.layout.lanes if client.llen(keys.queue(n, broadcast)))
    client.lpop(keys.queue(lane, broadcast))
    client.hincrby(keys.lane_broadcast(lane, broadcast), "o:no_permit", 1)
    wrong = {one.what for one in Auditor(client, settings).run(broadcast).wrong}
    assert "recipients: settled, queued, delayed or in hand, and split" in wrong
    assert "recipients no_permit: written, and counted" in wrong
    assert "settled recipients: sum of the outcomes, and counted" in wrong
