"""Receipts settle what is in doubt, once; what stays is listed and settled by decision."""

from typing import Any

import pytest
from lane_driver import mark_posting

from producers.broadcasts import Broadcasts
from producers.broadcasts.spec import Spec
from producers.care.audit import Auditor
from producers.errors import InvalidInputError, NotFoundError
from producers.permits.collect import Collector
from producers.recipients import Recipients
from producers.recipients.doubts import Doubts
from producers.recipients.receipts import Receipts
from producers.store import clock, keys
from producers.users import Users
from workers.duties.recover import Recoverer
from workers.sending.take import Asking, Taker

TEMPLATE = "T" * 43


class Desk:
    """A subscribe broadcast whose sends are in the hands of a worker that dies."""

    def __init__(self, client: Any, settings: Any, users: int = 6) -> None:
        self.client, self.settings = client, settings
        self.broadcasts = Broadcasts(client, settings)
        self.receipts = Receipts(client, settings)
        self.doubts = Doubts(client, settings)
        Collector(client, settings).collect(
            "shop",
            [{"openid": f"o{n}", "subscriptions": {TEMPLATE: "accept"}} for n in range(users)],
        )
        spec = Spec.checked(
            app="shop", channel="subscribe", template_id=TEMPLATE, audience="all",
            data={"thing1": "x"},
        )  # fmt: skip
        self.id = self.broadcasts.create(spec).id

    def take(self) -> None:
        """Claim everything as worker w1, about to be posted."""
        for lane in self.settings.layout.lanes:
            self.client.hset(keys.lane_broadcast(lane, self.id), "open", "1")
            taker = Taker(self.client, self.settings, "w1", self.broadcasts.ttl_ms)
            taker.take(Asking.of("shop", lane, 100), {})
            mark_posting(self.client, lane, self.id, "w1")

    def die(self) -> None:
        """Recover what w1 holds: all of it may have been sent."""
        recoverer = Recoverer(self.client, self.settings, self.broadcasts)
        for lane in self.settings.layout.lanes:
            recoverer.recover("shop", self.id, lane, "w1")

    def take_and_die(self) -> None:
        self.take()
        self.die()

    def now_ms(self) -> int:
        return clock.now_ms(self.client)

    def receipt(self, openid: str, errcode: int = 0, msgid: str = "1", at_ms: int = 0) -> str:
        return self.receipts.settle(
            "shop", openid, TEMPLATE, msgid=msgid, errcode=errcode, at_ms=at_ms or self.now_ms()
        )

    def outcomes(self) -> dict[str, int]:
        return self.broadcasts.status(self.id).outcomes


@pytest.fixture(params=[1, 4])
def desk(request: pytest.FixtureRequest, client: Any, make_settings: Any) -> Desk:
    client.flushall()
    return Desk(client, make_settings(lanes=request.param))


def test_a_receipt_settles_a_doubt_once(desk: Desk) -> None:
    desk.take_and_die()
    assert desk.outcomes() == {"in_doubt": 6}

    assert desk.receipt("o1", msgid="11") == "delivered"
    assert desk.receipt("o2", errcode=7, msgid="12") == "failed"
    assert desk.receipt("o1", msgid="11") == "confirmed"
    assert desk.receipt("o2", errcode=7, msgid="12") == "confirmed"

    assert desk.outcomes() == {"delivered": 1, "in_doubt": 4, "failed": 1}
    assert Auditor(desk.client, desk.settings).run().wrong == []


def test_a_receipt_of_another_time_or_template_settles_nothing(desk: Desk) -> None:
    desk.take_and_die()
    assert desk.receipt("o1", at_ms=desk.now_ms() - 60_000) == "kept"
    other = desk.receipts.settle("shop", "o1", "another", msgid="5", errcode=0, at_ms=desk.now_ms())
    assert other == "kept"
    assert desk.outcomes() == {"in_doubt": 6}


def test_a_receipt_that_comes_before_the_doubt_settles_it_when_it_comes(desk: Desk) -> None:
    desk.take()
    assert desk.receipt("o3") == "kept"
    assert desk.receipt("o4", errcode=9, msgid="2") == "kept"
    desk.die()
    assert desk.outcomes() == {"delivered": 1, "in_doubt": 4, "failed": 1}
    assert len(list(desk.doubts.of(desk.id))) == 4


def test_kept_receipts_have_a_bound_and_an_end(desk: Desk) -> None:
    for n in range(60):
        desk.receipt("stranger", msgid=str(n))
    lane, _, _ = keys.place_of("stranger", desk.settings)
    key = keys.receipts(lane, "shop", "stranger")
    assert desk.client.hlen(key) == 50
    assert 0 < desk.client.pttl(key) <= 86_400_000


def test_an_operator_decides_on_what_no_receipt_settled(desk: Desk) -> None:
    desk.take_and_die()
    assert {doubt.openid for doubt in desk.doubts.of(desk.id)} == {f"o{n}" for n in range(6)}
    with pytest.raises(InvalidInputError):
        desk.doubts.decide(desk.id, "lost")

    assert desk.doubts.decide(desk.id, "failed") == 6
    assert desk.doubts.decide(desk.id, "failed") == 0

    assert desk.outcomes() == {"failed": 6}
    assert list(desk.doubts.of(desk.id)) == []
    with pytest.raises(NotFoundError):
        desk.doubts.decide("nothing", "failed")


def test_a_failed_receipt_keeps_its_errcode(desk: Desk) -> None:
    desk.take_and_die()
    assert desk.receipt("o1", errcode=43101, msgid="1") == "failed"
    assert desk.receipt("o2", msgid="2") == "delivered"
    rows = {
        one.openid: (one.outcome, one.errcode, one.settled_by)
        for one in Recipients(desk.client, desk.settings).iterate(desk.id)
    }
    assert rows["o1"] == ("failed", 43101, "receipt")
    assert rows["o2"] == ("delivered", 0, "receipt")
    [send] = Users(desk.client, desk.settings).show("shop", "o1").sends
    assert (send.outcome, send.errcode, send.settled_by) == ("failed", 43101, "receipt")
    assert Auditor(desk.client, desk.settings).run().wrong == []


def test_a_failed_receipt_that_came_first_keeps_its_errcode(desk: Desk) -> None:
    desk.take()
    assert desk.receipt("o3", errcode=20013, msgid="3") == "kept"
    desk.die()
    [row] = [
        one
        for one in Recipients(desk.client, desk.settings).iterate(desk.id, "failed")
        if one.openid == "o3"
    ]
    assert (row.errcode, row.settled_by) == (20013, "receipt")
