"""Test sends: a message to a few, on carriers of their own, with what became of each."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from clerks import shelve
from shop import TEMPLATE, Shop

from producers.broadcasts import carriers
from producers.errors import InvalidInputError, MessagesStoppedError, NobodySendsError
from producers.permits.demand import DemandTable
from producers.rehearsals import Trials, Tried
from producers.rehearsals.trials import MOST
from producers.settings import Settings
from producers.store import keys
from producers.suppressions import Suppressions
from producers.templates import Field
from producers.templates import Template as Listed
from producers.words import State

both_layouts = pytest.mark.parametrize("lanes", [1, 4])
SPEC: dict[str, Any] = {
    "app": "shop",
    "channel": "subscribe",
    "template_id": TEMPLATE,
    "audience": "nobody-yet",
    "data": {"thing1": "a"},
}


@pytest.fixture
def trials(shop: Shop) -> Trials:
    """Test sends of a shop where a worker beats."""
    shop.client.zadd(keys.WORKERS, {"w1": shop.now_ms() + 60_000})
    return Trials(shop.client, shop.settings)


def accept(shop: Shop, *openids: str) -> None:
    for openid in openids:
        shop.give(openid, subscriptions={TEMPLATE: "accept"})


def carrier(tried: Tried) -> str:
    [one] = {trial.message.partition(".")[0] for trial in tried.trials}
    return one


@both_layouts
def test_each_is_told_what_became_of_it_and_what_to_do(shop: Shop, trials: Trials) -> None:
    accept(shop, "oA", "oB", "oD")
    Suppressions(shop.client, shop.settings).opt_out("shop", "oD")
    tried = trials.begin(
        ["oA", "oB", "oC", "oD"], **SPEC, page="pages/a", lang="en_US", miniprogram_state="trial"
    )
    assert {one.state for one in tried.trials} == {"waiting"}
    shop.open(carrier(tried))
    claims = {claim.openid: claim for claim in shop.take()}
    assert {*claims} == {"oA", "oB"}
    for part in ('"lang":"en_US"', '"page":"pages/a"', '"miniprogram_state":"trial"'):
        assert part in claims["oA"].payload
    assert trials.look(tried).trials[0].state == "in_flight"
    shop.settle(claims["oA"])
    shop.settle(claims["oB"], "settle", "void", "refused", errcode=43101, streak="refused")
    done = trials.look(tried)
    assert (done.ended, done.delivered, done.waits) == (True, False, "")
    assert [(one.openid, one.outcome, one.errcode) for one in done.trials] == [
        ("oA", "delivered", 0),
        ("oB", "refused", 43101),
        ("oC", "no_permit", 0),
        ("oD", "suppressed", 0),
    ]
    assert "has not accepted this template" in done.trials[1].meaning
    assert all(one.advice for one in done.trials[1:])
    assert shop.broadcasts.status(carrier(tried)).total == 4
    assert shop.wrong() == []


@both_layouts
def test_all_delivered_is_delivered_and_twice_is_another_test(shop: Shop, trials: Trials) -> None:
    accept(shop, "oA", "oB")
    tried = trials.begin(["oA", "oB"], **SPEC)
    shop.open(carrier(tried))
    for claim in shop.take():
        shop.settle(claim)
    done = trials.look(tried)
    assert (done.ended, done.delivered) == (True, True)
    again = trials.begin(["oA"], **SPEC)
    assert again.trials[0].message != tried.trials[0].message
    assert shop.take() == []  # the accept was spent
    assert trials.look(again).trials[0].outcome == "no_permit"


def test_nothing_is_posted_where_nobody_would_send_it(
    shop: Shop, trials: Trials, make_settings: Callable[..., Settings]
) -> None:
    hour = datetime.fromtimestamp(shop.now_ms() / 1000, UTC).hour
    window = f"{(hour + 2) % 24:02}:00-{(hour + 3) % 24:02}:00"
    shut = {"send_window": window, "zone": "UTC"}
    held = make_settings(lanes=1, app={**shut, "window_holds_messages": True})
    with pytest.raises(NobodySendsError, match=r"wait for the app's hours, which open \d\d:00"):
        Trials(shop.client, held).begin(["oA"], **SPEC)
    Trials(shop.client, make_settings(lanes=1, app=shut)).begin(["oZ"], **SPEC)  # messages pass
    shop.client.delete(keys.WORKERS)
    with pytest.raises(NobodySendsError, match="no worker alive: start"):
        trials.begin(["oA"], **SPEC)
    with pytest.raises(NobodySendsError):
        Trials(shop.client, shop.settings).begin(["oA"], **SPEC)
    assert len(shop.broadcasts.latest("shop")) == 1  # the one that passed
    assert shop.broadcasts.status(shop.broadcasts.latest("shop")[0]).total == 1


@pytest.mark.parametrize(
    ("openids", "fault"),
    [
        ([], "1 to 20"),
        ([f"o{n}" for n in range(MOST + 1)], "1 to 20"),
        ("oA", "a list"),
        (["oA", "oA"], "twice"),
        (["oA", "o A"], "test: "),
    ],
)
def test_every_fault_is_named_and_nothing_is_sent(
    shop: Shop, trials: Trials, openids: Any, fault: str
) -> None:
    with pytest.raises(InvalidInputError, match=fault) as refused:
        trials.begin(openids, **{**SPEC, "data": {"nonsense": "x"}})
    assert any("nonsense" in one for one in refused.value.faults)
    assert shop.broadcasts.latest("shop") == []


def test_what_wechat_says_of_a_test_stops_no_other_message(shop: Shop, trials: Trials) -> None:
    testers = [f"o{n:02}" for n in range(12)]
    accept(shop, *testers, "oReal")
    tried = trials.begin(testers, **SPEC)
    for _ in range(3):
        for claim in shop.take():
            shop.settle(claim, "settle", "back", "failed", errcode=40037, streak="template")
        shop.keeper.run_once()
    assert shop.broadcasts.status(carrier(tried)).state is State.PAUSED
    done = trials.look(tried)
    assert done.ended  # the last ones wait, and nobody waits for them
    assert "stopped: WeChat does not know the template, errcode 40037" in done.waits
    real = shop.post("oReal")
    assert shop.broadcasts.status(real).state is State.RUNNING
    with pytest.raises(MessagesStoppedError):
        _post_a_test(shop)
    again = trials.begin(["oNew"], **SPEC)  # whoever tests again has looked
    assert carrier(again) == carrier(tried)
    assert shop.broadcasts.status(carrier(again)).state is State.RUNNING


def _post_a_test(shop: Shop) -> None:
    spec = {name: value for name, value in SPEC.items() if name != "audience"}
    shop.messages.post(**spec, openid="oX", test=True)


@both_layouts
def test_each_is_told_what_its_own_row_says_or_the_first(shop: Shop, trials: Trials) -> None:
    accept(shop, "oA", "oB")
    spec = {**SPEC, "audience": "", "data": {"thing1": "{name}，连续签到 {days} 天"}}
    rows = ["openid,days,name\n", "oX,3,Xi\n", "oA,7,Anna\n", "oY,,{}\n", "oB,9,Bert\n", "oZ\n"]
    tried = trials.begin(["oA", "oB", "oC"], **spec, rows=iter(rows))
    assert [one.row for one in tried.trials] == [3, 5, 2]
    shop.open(carrier(tried))
    told = {claim.openid: claim.payload for claim in shop.take()}
    assert "Anna，连续签到 7 天" in told["oA"]
    assert "Bert，连续签到 9 天" in told["oB"]
    assert trials.look(tried).trials[2].outcome == "no_permit"
    # what their rows break is told before anything is sent
    bad = ["openid,days,name\n", f"oA,7,{'长' * 21}\n", "oB,9,Bert\n"]
    with pytest.raises(InvalidInputError, match="row 2: "):
        trials.begin(["oA", "oB"], **spec, rows=bad)
    with pytest.raises(InvalidInputError, match="no column 'days'"):
        trials.begin(["oA"], **spec, rows=["openid,name\n", "oA,Anna\n"])
    with pytest.raises(InvalidInputError, match="none below the header"):
        trials.begin(["oA"], **spec, rows=["openid,name,days\n"])
    assert shop.broadcasts.status(carrier(tried)).total == 3


def test_what_one_of_them_is_told_fits_the_template_or_nothing_is_sent(
    shop: Shop, trials: Trials
) -> None:
    accept(shop, "oA", "oB")
    state = Field("enum_string1", "enum_string", "状态", "", ("开",))
    shelve(shop.client, Listed(TEMPLATE, "会议通知", "one_off", (state,)))
    spec = {**SPEC, "audience": "", "data": {"enum_string1": "{state}"}}
    with pytest.raises(InvalidInputError, match="enum_string1 is '关'"):
        trials.begin(["oA", "oB"], **spec, rows=["openid,state\n", "oA,开\n", "oB,关\n"])
    assert shop.broadcasts.latest("shop") == []


def test_what_is_tried_again_says_what_wechat_answered(shop: Shop, trials: Trials) -> None:
    accept(shop, "oA")
    tried = trials.begin(["oA"], **SPEC)
    [claim] = shop.take()
    shop.settle(claim, "delay", "back", "failed", errcode=41030)
    found = trials.look(tried)
    assert (found.ended, found.trials[0].state) == (False, "waiting")
    assert found.waits.startswith("tried again; WeChat's answers to tests of it today: 41030 (the")


def test_a_test_asks_no_phone_for_more(shop: Shop, trials: Trials) -> None:
    trials.begin(["oA"], **SPEC)
    assert DemandTable(shop.client, shop.settings).demand("shop").messages == frozenset()
    shop.post("oA")
    assert DemandTable(shop.client, shop.settings).demand("shop").messages == {TEMPLATE}


def test_what_is_not_sent_within_a_minute_is_never_sent(shop: Shop, trials: Trials) -> None:
    accept(shop, "oA")
    tried = trials.begin(["oA"], **SPEC)
    lane, _, item = keys.place_of("oA", shop.settings)
    mail = keys.mail(lane, carrier(tried))
    expires_at_ms, _, content = shop.client.hget(mail, item).partition(" ")
    assert 50_000 < int(expires_at_ms) - shop.now_ms() <= 60_000
    shop.client.hset(mail, item, f"{shop.now_ms() - 1} {content}")
    assert shop.take() == []
    assert trials.look(tried).trials[0].outcome == "late"


def test_carriers_of_tests_are_told_from_others_by_their_ids(shop: Shop) -> None:
    ids = {
        carriers.carrier_id("shop", "subscribe", TEMPLATE, 20_000, number, test=test)
        for number in range(3)
        for test in (True, False)
    }
    assert len(ids) == 6
    assert sum(map(keys.is_test_carrier, ids)) == 3
    assert all(map(keys.is_carrier, ids))
    assert len({len(one) for one in ids}) == 1
