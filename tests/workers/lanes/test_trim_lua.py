"""trim.lua: hours that are past leave the stock, and what was available in them has expired."""

from lane_driver import HOUR, Lane, accept, form, prepay, row


def test_each_use_expires_once_when_its_hour_is_past(lane: Lane) -> None:
    lane.collect(
        {
            "anna": [form("A", lane.now_ms + 5), prepay("P", lane.now_ms + HOUR + 5)],
            "bert": [form("B", lane.now_ms + 5), accept()],
        }
    )
    later = {"p:+1": 3, "u:+1": 1, "s:T": 1}
    steps = [
        (0, 0, {"f:+0": 2, "u:+0": 1} | later, {}),
        (HOUR - 1, 0, {"f:+0": 2, "u:+0": 1} | later, {}),
        (1, 2, {"p:+0": 3, "u:+0": 1, "s:T": 1}, {"expired:f": 2}),
        (0, 0, {"p:+0": 3, "u:+0": 1, "s:T": 1}, {"expired:f": 2}),
        (HOUR, 3, {"s:T": 1}, {"expired:f": 2, "expired:p": 3}),
        (300 * HOUR, 0, {"s:T": 1}, {"expired:f": 2, "expired:p": 3}),
    ]
    collected = {"collected:f": 2, "collected:p": 3, "collected:s": 1}
    for passed, expired, stock, ledger in steps:
        lane.now_ms += passed
        assert lane.trim() == expired
        assert lane.stock() == stock
        assert lane.ledger() == collected | ledger
        lane.check_ledger()


def test_hours_without_uses_leave_no_fields(lane: Lane) -> None:
    lane.give("anna", form("A", lane.now_ms + 5 * HOUR))
    lane.start("b1", "anna")
    lane.take()
    assert lane.trim() == 0
    assert lane.client.hkeys(lane.key("stock", "shop")) == ["trimmed"]


def test_a_held_use_expires_when_it_is_handed_back_and_only_then(lane: Lane) -> None:
    lane.give("anna", form("A", lane.now_ms + 20_000))
    lane.start("b1", "anna")
    claim = lane.take_one()
    lane.now_ms += 2 * HOUR
    assert lane.trim() == 0
    lane.check_ledger("b1")
    lane.settle(row(claim, "delay", "back", errcode=43108, delay=1))
    assert lane.trim() == 0
    assert lane.ledger() == {"collected:f": 1, "expired:f": 1}


def test_a_user_counts_once_though_the_last_use_ended_within_this_hour(lane: Lane) -> None:
    lane.give("anna", form("A", lane.now_ms + 5))
    lane.now_ms += 10
    lane.give("anna", form("B", lane.now_ms + 5 * HOUR))
    assert lane.stock() == {"f:+5": 1, "u:+5": 1}
    assert lane.ledger() == {"collected:f": 2, "expired:f": 1}
    lane.now_ms += HOUR
    assert lane.trim() == 0
    lane.check_ledger()


def test_a_use_that_was_trimmed_is_not_expired_again_by_a_collect(lane: Lane) -> None:
    lane.give("anna", form("A", lane.now_ms + 5), form("Z"))
    lane.now_ms += HOUR
    assert lane.trim() == 1
    lane.give("anna", form("B"))
    assert lane.ledger() == {"collected:f": 3, "expired:f": 1}
    lane.check_ledger()


def test_after_a_long_sleep_each_run_trims_a_few_hundred_hours(lane: Lane) -> None:
    lane.trim()
    lane.give("anna", form("A", lane.now_ms + 5))
    lane.now_ms += 1000 * HOUR
    assert [lane.trim() for _ in range(4)] == [1, 0, 0, 0]
    assert int(lane.client.hget(lane.key("stock", "shop"), "trimmed")) == lane.now_ms // HOUR
    lane.check_ledger()


def test_it_never_reads_a_whole_stock(lane: Lane) -> None:
    lane.trim()
    flooded = {f"s:{n}": 1 for n in range(50_000)}
    lane.client.hset(lane.key("stock", "shop"), mapping=flooded)
    spent_us = []
    for turn in range(5):
        lane.give("anna", form(f"A{turn}", lane.now_ms + 5))
        lane.now_ms += HOUR
        lane.client.config_resetstat()
        assert lane.trim() == 1
        spent_us.append(lane.client.info("commandstats")["cmdstat_evalsha"]["usec"])
    assert min(spent_us) < 2000


def test_what_is_used_up_leaves_no_field(lane: Lane) -> None:
    lane.give("anna", accept(), accept("U"), form("A"))
    lane.start("b1", "anna", channel="subscribe")
    lane.take_one()
    lane.start("b2", "anna")
    stored = lane.client.hgetall(lane.key("stock", "shop"))
    assert "s:T" not in stored
    assert stored["s:U"] == "1"
