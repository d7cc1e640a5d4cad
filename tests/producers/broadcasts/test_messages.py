"""Single messages: posted, carried, told of; cheap, once each, and none stops another."""

import time
from datetime import timedelta
from typing import Any

import pytest
import redis
from shop import TEMPLATE, Shop

from producers.broadcasts import carriers
from producers.broadcasts.messages import MOST, Messages, Posted
from producers.care.audit import Auditor
from producers.errors import (
    IdempotencyConflictError,
    InvalidInputError,
    MessagesStoppedError,
    NotFoundError,
    TooManyMessagesError,
    UnknownAppError,
)
from producers.recipients.receipts import Receipts
from producers.settings import Settings
from producers.store import keys
from producers.users.forget import Forgetter


class Post:
    """A shop that posts single messages."""

    def __init__(self, client: "redis.Redis", settings: Settings) -> None:
        self.shop = Shop(client, settings)
        self.client, self.settings = client, settings
        self.messages = Messages(client, settings)

    def post(self, openid: str = "oAnna", **changes: Any) -> Posted:
        fields = {
            "app": "shop",
            "channel": "template",
            "template_id": TEMPLATE,
            "data": {"keyword1": "a"},
        }
        return self.messages.post(openid=openid, **{**fields, **changes})

    def open(self, posted: Posted) -> str:
        """Let all of its carrier through, as a delivery does; returns the carrier."""
        carrier = posted.id.partition(".")[0]
        self.shop.open(carrier)
        return carrier

    def outcome(self, posted: Posted) -> str:
        return self.messages.show(posted.id).outcome

    def mail(self, posted: Posted) -> int:
        carrier, _, openid = posted.id.partition(".")
        return self.client.hlen(keys.mail(self.shop.lane(openid), carrier))


@pytest.fixture(params=[1, 4])
def post(request: pytest.FixtureRequest, valkey_url: str, client: "redis.Redis") -> Post:
    settings = Settings(
        _env_file=None,
        redis_url=valkey_url,
        lanes=request.param,
        buckets=256,
        apps={"shop": {"appid": "wx0000000000000001", "secret": "shop-secret"}},
    )
    return Post(client, settings)


def assert_sound(post: Post) -> None:
    assert Auditor(post.client, post.settings).run().wrong == []


def test_a_message_is_carried_with_its_own_content_and_leaves_only_its_outcome(post: Post) -> None:
    for number, openid in enumerate(("oAnna", "oBert")):
        post.shop.give(openid, formIds=[f"f{number}"])
    posted = {who: post.post(who, data={"keyword1": who}) for who in ("oAnna", "oBert")}
    post.open(posted["oAnna"])
    assert {post.messages.show(one.id).state for one in posted.values()} == {"waiting"}
    claims = post.shop.take()
    assert {claim.openid for claim in claims} == {"oAnna", "oBert"}
    assert all(f'"keyword1":"{claim.openid}"' in claim.payload for claim in claims)
    assert post.messages.show(posted["oAnna"].id).state == "in_flight"
    for claim in claims:
        assert post.shop.settle(claim) == "done"
    for one in posted.values():
        shown = post.messages.show(one.id)
        assert (shown.state, shown.outcome, shown.errcode) == ("ended", "delivered", 0)
        assert post.mail(one) == 0
    assert_sound(post)


def test_all_messages_of_a_day_and_template_share_one_carrier(post: Post) -> None:
    carriers = {post.post(f"o{user}").id.partition(".")[0] for user in range(50)}
    assert len(carriers) == 1
    other = post.post("o1", template_id="V" * 43)
    assert other.id.partition(".")[0] not in carriers
    assert len(post.shop.broadcasts.latest("shop")) == 2


def test_who_is_sent_to_is_known_a_week_longer_than_the_carrier(post: Post) -> None:
    posted = post.post()
    carrier, _, openid = posted.id.partition(".")
    lane = post.shop.lane(openid)
    ends_ms = post.client.pexpiretime(keys.lane_broadcast(lane, carrier))
    known_ms = post.client.pexpiretime(keys.recipients(lane, carrier))
    assert abs(known_ms - ends_ms - 7 * 86_400_000) < 5_000


def test_a_users_messages_each_end_in_an_outcome_up_to_a_days_number(post: Post) -> None:
    post.shop.give("oAnna", formIds=[f"f{n}" for n in range(3)])
    posted = [post.post() for _ in range(5)]
    assert len({one.id for one in posted}) == 5
    for _ in range(5):  # one at a time: a user's turn ends with the message
        for claim in post.shop.take():
            assert post.shop.settle(claim) == "done"
        for one in posted:
            carrier = one.id.partition(".")[0]
            lane = post.shop.lane("oAnna")
            delayed = keys.delayed(lane, carrier)
            for item in post.client.zrange(delayed, 0, -1):
                post.client.zadd(delayed, {item: 1})
            post.client.zadd(keys.due(lane), {carrier: 1})
        post.shop.keeper.run_once()
    assert sorted(post.outcome(one) for one in posted) == ["delivered"] * 3 + ["no_permit"] * 2
    for _ in range(MOST - 5):
        post.post()
    with pytest.raises(TooManyMessagesError):
        post.post()
    post.post("oBert")
    assert_sound(post)


def test_a_key_posts_one_message(post: Post) -> None:
    first = post.post(key="order-17")
    assert post.post(key="order-17") == Posted(first.id, known=True)
    with pytest.raises(IdempotencyConflictError, match="order-17"):
        post.post(key="order-17", data={"keyword1": "b"})
    assert post.post(key="order-18").id != first.id
    assert post.mail(first) == 1


def test_a_key_is_the_users_own(post: Post) -> None:
    posted = {user: post.post(f"o{user}", key="order-17") for user in range(20)}
    assert [one.known for one in posted.values()] == [False] * 20
    assert {post.messages.show(one.id).state for one in posted.values()} == {"waiting"}


def test_another_process_finds_the_carriers_that_there_are(post: Post) -> None:
    ids = {post.post().id for _ in range(3)}
    other = Messages(post.client, post.settings)
    fourth = other.post(
        app="shop", channel="template", template_id=TEMPLATE, openid="oAnna", data="a"
    )
    assert fourth.id not in ids
    assert len(post.shop.broadcasts.latest("shop")) == 4


def test_a_message_that_nobody_sent_in_time_is_late_and_costs_no_permit(post: Post) -> None:
    post.shop.give("oAnna", formIds=["f1"])
    posted = post.post(expires_in=timedelta(seconds=1))
    time.sleep(1.1)
    assert post.shop.take() == []
    assert post.outcome(posted) == "late"
    assert post.mail(posted) == 0
    assert_sound(post)


def test_a_message_that_waits_for_its_second_attempt_is_not_late(post: Post) -> None:
    post.shop.give("oAnna", formIds=["f1"])
    post.post(expires_in=timedelta(seconds=1))
    (claim,) = post.shop.take()
    post.shop.settle(claim, "keep", "back", "in_doubt", streak="-")  # perhaps sent
    time.sleep(1.1)
    carrier, lane = claim.broadcast, post.shop.lane("oAnna")
    for item in post.client.zrange(keys.delayed(lane, carrier), 0, -1):
        post.client.zadd(keys.delayed(lane, carrier), {item: 1})
    post.shop.keeper.run_once()
    (again,) = post.shop.take()
    assert again.resumed
    assert again.payload == claim.payload


def test_a_resumed_message_whose_content_is_gone_stops_no_take(post: Post) -> None:
    for number, openid in enumerate(("oAnna", "oBert")):
        post.shop.give(openid, formIds=[f"f{number}"])
    lost = post.post("oAnna")
    (claim,) = post.shop.take()
    post.shop.settle(claim, "keep", "back", "in_doubt", streak="-")
    carrier, lane = claim.broadcast, claim.lane
    post.client.delete(keys.mail(lane, carrier))
    for item in post.client.zrange(keys.delayed(lane, carrier), 0, -1):
        post.client.zadd(keys.delayed(lane, carrier), {item: 1})
    post.shop.keeper.run_once()
    post.open(post.post("oBert"))
    claims = {claim.openid: claim.payload for claim in post.shop.take()}
    assert set(claims) == {"oBert"}
    assert "keyword1" in claims["oBert"]
    assert post.outcome(lost) == "in_doubt"  # and nothing without its content was sent
    assert_sound(post)


def test_no_message_stops_another(post: Post) -> None:
    for user in range(10):
        post.shop.give(f"o{user}", formIds=[f"f{user}"])
    posted = [post.post(f"o{user}") for user in range(10)]
    carrier = post.open(posted[0])
    claims = post.shop.take()
    assert len(claims) == 10
    for claim in claims:
        post.shop.settle(claim, "settle", "back", "bad_data", errcode=47003, streak="template")
    assert {post.outcome(one) for one in posted} == {"bad_data"}
    assert post.messages.show(posted[0].id).errcode == 47003
    post.shop.keeper.run_once()
    assert post.shop.broadcasts.status(carrier).state == "running"  # a content is each one's own
    post.post("oAnna", key="after")
    assert_sound(post)


def unknown_template(post: Post) -> int:
    """Settle all that can be taken with 40037, and obey; returns how many there were."""
    claims = post.shop.take()
    for claim in claims:
        post.shop.settle(claim, "delay", "back", errcode=40037, streak="template")
    post.shop.keeper.run_once()
    return len(claims)


def test_a_template_that_wechat_refuses_stops_all_its_carriers_and_says_so(post: Post) -> None:
    for user in range(30):
        post.shop.give(f"o{user}", formIds=[f"f{user}x{n}" for n in range(2)])
    posted = [post.post(f"o{user}", key=f"k{user}") for user in range(30)]
    second = post.post("o0").id.partition(".")[0]
    first = posted[0].id.partition(".")[0]
    touched = 0
    for _ in range(8):
        touched += unknown_template(post)
    assert touched <= 2 * 10
    for carrier in (first, second):
        status = post.shop.broadcasts.status(carrier)
        assert (status.state, status.errcode) == ("paused", 40037)
    with pytest.raises(MessagesStoppedError, match=f"40037.*wxbroadcast resume {first}") as stopped:
        post.post("oAnna")
    assert (stopped.value.errcode, stopped.value.carrier) == (40037, first)
    assert post.post("o7", key="k7") == Posted(posted[7].id, known=True)
    post.post("oAnna", template_id="V" * 43)
    assert {post.messages.show(one.id).state for one in posted} == {"waiting"}
    assert_sound(post)

    post.shop.broadcasts.resume(first)
    assert post.shop.broadcasts.status(second).state == "running"
    post.post("oAnna")


@pytest.mark.parametrize("stopped", [False, True])
def test_a_days_first_carrier_needs_no_canary_when_the_last_one_delivered(
    post: Post, stopped: bool
) -> None:
    post.shop.give("oAnna", formIds=["f1"])
    posted = post.post()
    carrier = posted.id.partition(".")[0]
    (claim,) = post.shop.take()
    post.shop.settle(claim)
    if stopped:
        post.shop.broadcasts.move(carrier, "pause", "WeChat refuses it", 40037)
    yesterday = carriers.carrier_id("shop", "template", TEMPLATE, int(carrier[1:6]) - 1, 0)
    for lane in post.settings.layout.lanes:
        for name in (keys.home, keys.lane_broadcast):
            if post.client.exists(name(lane, carrier)):
                post.client.rename(name(lane, carrier), name(lane, yesterday))
    home = post.shop.broadcasts.home_lane
    post.client.rename(keys.home(home(carrier), yesterday), keys.home(home(yesterday), yesterday))

    def opens(template_id: str) -> bool:
        today = post.post("oBert", template_id=template_id).id.partition(".")[0]
        lane = keys.lane_broadcast(post.shop.lane("oBert"), today)
        return post.client.hget(lane, "open") == "1"

    assert not opens("V" * 43)
    assert opens(TEMPLATE) is not stopped


@pytest.mark.parametrize("users", [10])
def test_k_users_refused_before_any_delivery_stop_a_carrier_and_none_after(
    post: Post, users: int
) -> None:
    for user in range(2 * users):
        post.shop.give(f"o{user}", formIds=[f"f{user}"])
    posted = [post.post(f"o{user}") for user in range(2 * users)]
    carrier = posted[0].id.partition(".")[0]
    for _ in range(8):
        for claim in post.shop.take():
            post.shop.settle(
                claim, "settle", "void_all", "refused", errcode=43101, streak="refusal"
            )
        post.shop.keeper.run_once()
    status = post.shop.broadcasts.status(carrier)
    assert (status.state, status.errcode, status.settled) == ("paused", 43101, 10)
    post.shop.broadcasts.resume(carrier)
    post.shop.open(carrier)
    for claim in post.shop.take():
        post.shop.settle(claim, "settle", "void_all", "refused", errcode=43101, streak="refusal")
    post.shop.keeper.run_once()
    assert post.shop.broadcasts.status(carrier).state == "running"
    assert post.shop.broadcasts.status(carrier).outcomes == {"refused": 20}


def test_a_carrier_ends_after_its_day_and_what_waited_is_late(post: Post) -> None:
    posted = post.post()
    carrier = posted.id.partition(".")[0]
    home = keys.home(post.shop.broadcasts.home_lane(carrier), carrier)
    life_ms = int(post.client.hget(home, "expires_at_ms")) - post.shop.now_ms()
    assert 25 * 3_600_000 - 1000 <= life_ms <= 49 * 3_600_000
    post.client.hset(home, "expires_at_ms", 1)
    for _ in range(3):
        post.shop.keeper.run_once()
    status = post.shop.broadcasts.status(carrier)
    assert (status.state, status.complete, status.outcomes) == ("finished", True, {"late": 1})
    assert post.outcome(posted) == "late"
    assert_sound(post)


def test_after_a_carrier_was_cancelled_messages_go_to_the_next(post: Post) -> None:
    posted = post.post()
    carrier = posted.id.partition(".")[0]
    post.shop.broadcasts.cancel(carrier)
    assert post.outcome(posted) == "cancelled"
    following = post.post("oBert")
    assert following.id.partition(".")[0] != carrier
    assert post.messages.show(following.id).state == "waiting"
    assert_sound(post)


def test_a_paused_carrier_keeps_its_messages(post: Post) -> None:
    post.shop.give("oAnna", formIds=["f1"])
    carrier = post.open(post.post("oBert"))
    post.shop.broadcasts.pause(carrier)
    posted = post.post()
    assert post.shop.take() == []
    post.shop.broadcasts.resume(carrier)
    assert [claim.openid for claim in post.shop.take()] == ["oAnna"]
    assert post.messages.show(posted.id).state == "in_flight"


def test_a_receipt_finds_a_message_behind_many_broadcasts(post: Post) -> None:
    post.shop.give("oAnna", subscriptions={TEMPLATE: "accept"})
    posted = post.post(channel="subscribe", data={"thing1": "a"})
    (claim,) = post.shop.take()
    post.shop.settle(claim, msgid="2500000000000000001")
    for _ in range(60):
        post.shop.broadcast()
    settled = Receipts(post.client, post.settings).settle(
        "shop",
        "oAnna",
        TEMPLATE,
        msgid="2500000000000000001",
        errcode=20003,
        at_ms=post.shop.now_ms(),
    )
    assert settled == "failed"
    assert post.outcome(posted) == "failed"
    assert_sound(post)


@pytest.mark.parametrize("in_hands", [False, True])
def test_a_forgotten_users_message_is_unknown(post: Post, in_hands: bool) -> None:
    post.shop.give("oAnna", formIds=["f1"])
    posted = post.post()
    claims = post.shop.take() if in_hands else []
    Forgetter(post.client, post.settings).forget("shop", "oAnna")
    for claim in claims:
        post.shop.settle(claim)
    with pytest.raises(NotFoundError):
        post.messages.show(posted.id)
    assert post.mail(posted) == 0
    assert "oAnna" not in str(post.client.hgetall(keys.mail(0, posted.id.partition(".")[0])))
    assert_sound(post)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"openid": "no openid"}, "openid"),
        ({"data": {}}, "data"),
        ({"channel": "mail"}, "channel"),
        ({"expires_in": timedelta(days=2)}, "expires_in"),
        ({"expires_in": timedelta(0)}, "expires_in"),
        ({"key": "two words"}, "key"),
        ({"template_id": ""}, "template_id"),
    ],
)
def test_a_message_that_cannot_be_sent_is_refused_whole(
    post: Post, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidInputError, match=says):
        post.post(**changes)
    assert post.client.keys("*mail*") == []


def test_unknown_apps_and_messages_are_said(post: Post) -> None:
    with pytest.raises(UnknownAppError):
        post.post(app="nobody")
    for message in ("", "oAnna", "m1.", "m20000abc.oAnna", "1a2.oAnna"):
        with pytest.raises(NotFoundError):
            post.messages.show(message)


def test_a_carrier_takes_no_more_from_the_moment_of_its_verdict(post: Post) -> None:
    """The keeper brings it to the other lanes a second later."""
    posted = post.post()
    carrier = posted.id.partition(".")[0]
    lane = post.shop.lane("oAnna")
    post.client.hset(keys.lane_broadcast(lane, carrier), "verdict", "abort 40037")
    with pytest.raises(MessagesStoppedError) as stopped:
        post.post(next(o for n in range(99) if post.shop.lane(o := f"o{n}") == lane))
    assert stopped.value.errcode == 40037


def test_whoever_asks_again_for_a_user_who_had_enough_today_costs_redis_little(post: Post) -> None:
    first = post.post(key="first")
    for _ in range(MOST - 1):
        post.post()
    with pytest.raises(TooManyMessagesError):
        post.post()
    post.client.config_resetstat()
    for number in range(50):
        with pytest.raises(TooManyMessagesError):
            post.post(key=f"again-{number}")
    calls = post.client.info("commandstats")
    assert calls["cmdstat_evalsha"]["calls"] == 50
    assert "cmdstat_hexists" not in calls  # no carrier is looked into
    assert post.post(key="first") == Posted(first.id, known=True)


def test_a_carrier_whose_day_is_over_takes_no_more(post: Post) -> None:
    first = post.post().id.partition(".")[0]
    lane = post.shop.lane("oAnna")
    post.client.hset(keys.lane_broadcast(lane, first), "drop", "late")
    again = post.post(next(o for n in range(99) if post.shop.lane(o := f"o{n}") == lane))
    assert again.id.partition(".")[0] != first
