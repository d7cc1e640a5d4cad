"""Retries: exactly those who are asked for, nobody whom the family delivered to, frozen."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from log_lines import recorded
from shop import OTHER, TEMPLATE, Shop

from producers.audiences.batches import AudienceKeys
from producers.errors import (
    IdempotencyConflictError,
    IllegalMoveError,
    InvalidInputError,
    NotFoundError,
    StoreUnavailableError,
)
from producers.recipients import Recipients
from producers.recipients.receipts import Receipts
from producers.retries import Retries
from producers.retries.frozen import SELECT, SelectArgs
from producers.retries.retry import MOST
from producers.store import keys
from producers.users.forget import Forgetter

both_layouts = pytest.mark.parametrize("lanes", [1, 4])

PEOPLE = [f"o{n:03}" for n in range(60)]
FATES = {
    "delivered": ("settle", "spent", "delivered", 0),
    "refused": ("settle", "void", "refused", 43101),
    "failed": ("settle", "spent", "failed", 45009),
    "in_doubt": ("settle", "doubt", "in_doubt", 0),
}


@pytest.fixture
def retries(shop: Shop) -> Retries:
    return Retries(shop.client, shop.settings)


def fate(openid: str) -> str:
    """Say what becomes of one of the people: every fifth has no permit."""
    return ("no_permit", *FATES)[int(openid[1:]) % 5]


def of(*fates: str) -> set[str]:
    return {openid for openid in PEOPLE if fate(openid) in fates}


def give(shop: Shop, openids: Any, name: str) -> None:
    uploads = [{"openid": openid, "formId": f"{openid}{name}"} for openid in openids]
    shop.collector.collect("shop", uploads)


def settle(shop: Shop, broadcast: str, what: Callable[[str], str]) -> set[str]:
    """Settle all that can be taken of it, and let it end; returns to whom it was sent."""
    shop.open(broadcast)
    sent = set()
    for _ in range(3):
        while claims := shop.take():
            for claim in claims:
                assert claim.broadcast == broadcast
                action, use, outcome, errcode = FATES[what(claim.openid)]
                sent.add(claim.openid)
                shop.settle(claim, action, use, outcome, errcode=errcode, streak="-")
        shop.keeper.run_once()
    return sent


@pytest.fixture
def ended(shop: Shop) -> str:
    """Give a broadcast to the people, which has ended."""
    shop.audiences.import_rows("shop", "vip", [one.encode() for one in PEOPLE])
    give(shop, [one for one in PEOPLE if fate(one) != "no_permit"], "a")
    broadcast = shop.broadcast(audience="vip")
    settle(shop, broadcast, fate)
    status = shop.broadcasts.status(broadcast)
    assert (status.state, status.outcomes["delivered"]) == ("finished", 12)
    return broadcast


def whom(shop: Shop, broadcast: str) -> set[str]:
    """Return to whom a broadcast goes that nobody has taken from."""
    return {
        item.partition(":")[2]
        for lane in shop.settings.layout.lanes
        for item in shop.client.lrange(keys.queue(lane, broadcast), 0, -1)
    }


def kept(shop: Shop) -> set[str]:
    """Return the keys of frozen recipients."""
    found = {*shop.client.scan_iter("*:audience:shop:~*", count=1000)}
    assert all(shop.client.ttl(key) > 0 for key in found)
    return found


@both_layouts
@pytest.mark.parametrize(
    ("outcomes", "errcodes", "expected"),
    [
        ("failed", (), of("failed")),
        ("failed,no_permit", (), of("failed", "no_permit")),
        (["failed", "refused", "no_permit"], [43101], of("refused")),
        (["failed", "refused", "no_permit"], [0, 45009], of("failed", "no_permit")),
    ],
)
def test_it_goes_to_exactly_those_who_had_one_of_the_outcomes(
    shop: Shop, retries: Retries, ended: str, outcomes: Any, errcodes: Any, expected: set[str]
) -> None:
    made = retries.retry(ended, outcomes, errcodes)
    assert (made.known, made.recipients) == (False, len(expected))
    assert whom(shop, made.id) == expected
    status = shop.broadcasts.status(made.id)
    assert (status.state, status.total, status.expected) == ("running", *2 * (len(expected),))
    assert (status.retry_of, status.family) == (ended, [ended, made.id])
    assert shop.broadcasts.status(ended).family == [ended, made.id]
    assert shop.wrong() == []


@both_layouts
def test_nobody_of_a_family_gets_it_twice_over_retries_of_retries(
    shop: Shop, retries: Retries, ended: str
) -> None:
    delivered = [*of("delivered")]
    first = retries.retry(ended, "failed,no_permit").id
    give(shop, of("failed", "no_permit"), "b")
    halves = {one: "delivered" if n % 2 else "failed" for n, one in enumerate(sorted(PEOPLE))}
    sent = settle(shop, first, lambda openid: halves[openid])
    assert sent == of("failed", "no_permit")
    delivered += [one for one in sent if halves[one] == "delivered"]
    # of the first again, whose failures were delivered by half since
    again = retries.retry(ended, "failed,no_permit,refused").id
    left = {one for one in sent if halves[one] == "failed"}
    assert whom(shop, again) == left | of("refused")
    give(shop, left | of("refused"), "c")
    delivered += settle(shop, again, lambda _: "delivered")
    with pytest.raises(InvalidInputError, match=r"nobody of broadcast .* is left"):
        retries.retry(first, ["failed", "no_permit", "refused"])
    assert len(delivered) == len({*delivered})
    assert {*delivered} == {*PEOPLE} - of("in_doubt")
    assert shop.broadcasts.status(again).family == [ended, first, again]
    assert shop.wrong() == []


def test_those_in_doubt_come_only_when_named_twice(
    shop: Shop, retries: Retries, ended: str
) -> None:
    with pytest.raises(InvalidInputError, match="they perhaps had it; ask for even_in_doubt"):
        retries.retry(ended, ["in_doubt"])
    with pytest.raises(InvalidInputError, match="name in_doubt among the outcomes too"):
        retries.retry(ended, ["failed"], even_in_doubt=True)
    made = retries.retry(ended, ["in_doubt"], even_in_doubt=True)
    assert whom(shop, made.id) == of("in_doubt")


def test_whom_a_retry_left_in_doubt_the_next_one_leaves_out(
    shop: Shop, retries: Retries, ended: str
) -> None:
    first = retries.retry(ended, "failed").id
    give(shop, of("failed"), "b")
    doubted = {*sorted(of("failed"))[:5]}
    settle(shop, first, lambda openid: "in_doubt" if openid in doubted else "failed")
    assert whom(shop, retries.retry(ended, "failed").id) == of("failed") - doubted


def test_whom_a_receipt_found_delivered_is_left_out(shop: Shop, retries: Retries) -> None:
    uploads = [{"openid": one, "subscriptions": {TEMPLATE: "accept"}} for one in PEOPLE[:4]]
    shop.collector.collect("shop", uploads)
    broadcast = shop.broadcast("subscribe")
    settle(shop, broadcast, lambda _: "in_doubt")
    Receipts(shop.client, shop.settings).settle(
        "shop", PEOPLE[0], TEMPLATE, msgid="1", errcode=0, at_ms=shop.now_ms()
    )
    made = retries.retry(broadcast, "in_doubt", even_in_doubt=True)
    assert whom(shop, made.id) == {*PEOPLE[1:4]}


def test_the_recipients_are_frozen(shop: Shop, retries: Retries, ended: str) -> None:
    made = retries.retry(ended, "failed,no_permit")
    shop.audiences.import_rows("shop", "vip", [b"oNew"])
    shop.audiences.delete("shop", "vip")
    assert whom(shop, made.id) == of("failed", "no_permit")
    assert len(kept(shop)) > 1
    with pytest.raises(NotFoundError):  # nobody else may send to them
        shop.broadcast(audience=shop.broadcasts.status(made.id).audience)


@both_layouts
def test_of_a_cancelled_one_those_without_an_outcome_come(shop: Shop, retries: Retries) -> None:
    give(shop, PEOPLE, "a")
    shop.audiences.import_rows("shop", "vip", [one.encode() for one in PEOPLE])
    broadcast = shop.broadcast(audience="vip")
    shop.open(broadcast)
    done = set()
    for claim in shop.take(5):
        done.add(claim.openid)
        shop.settle(claim)
    shop.broadcasts.cancel(broadcast)
    shop.keeper.run_once()
    for wrong in ("late", "failed"):
        with pytest.raises(InvalidInputError, match="nobody"):
            retries.retry(broadcast, wrong)
    first = retries.retry(broadcast, "cancelled", template_id=OTHER, data={"keyword1": "b"})
    assert first.recipients == len(PEOPLE) - len(done)
    spec = shop.broadcasts.spec(first.id)
    assert (spec.template_id, spec.data, spec.channel) == (OTHER, {"keyword1": "b"}, "template")
    shop.broadcasts.cancel(first.id)
    shop.keeper.run_once()
    second = retries.retry(first.id, "cancelled").id
    assert settle(shop, second, lambda _: "delivered") == {*PEOPLE} - done


def test_the_same_key_is_the_same_retry(shop: Shop, retries: Retries, ended: str) -> None:
    made = retries.retry(ended, "failed", key="k")
    again = retries.retry(ended, ["failed"], key="k")
    assert (again.id, again.known, again.recipients) == (made.id, True, made.recipients)
    for other in ({"outcomes": "no_permit"}, {"outcomes": "failed", "page": "pages/x"}):
        with pytest.raises(IdempotencyConflictError):
            retries.retry(ended, key="k", **other)
    assert shop.broadcasts.status(ended).family == [ended, made.id]


def test_one_of_a_family_is_sent_at_a_time(shop: Shop, retries: Retries, ended: str) -> None:
    running = shop.broadcast(audience="vip")
    with pytest.raises(IllegalMoveError, match=r"cannot retry broadcast .* it is running"):
        retries.retry(running, "failed")
    shop.broadcasts.cancel(running)
    made = retries.retry(ended, "failed").id
    with pytest.raises(IllegalMoveError, match=f"of the family of {made}, which is running"):
        retries.retry(ended, "no_permit")
    shop.broadcasts.cancel(made)
    assert retries.retry(ended, "no_permit").recipients == 12


def test_of_two_at_the_same_moment_one_is_made(
    shop: Shop, retries: Retries, ended: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    others: list[str] = []
    choose = retries._frozen.choose

    def slow(*args: Any, **kwargs: Any) -> int:
        if not others:
            others.append("")
            others.append(retries.retry(ended, "failed").id)
        return choose(*args, **kwargs)

    monkeypatch.setattr(retries._frozen, "choose", slow)
    with pytest.raises(IllegalMoveError, match="being retried by another call"):
        retries.retry(ended, "failed")
    assert shop.broadcasts.status(ended).family == [ended, others[1]]
    assert shop.broadcasts.status(others[1]).total == 12
    assert len({key.split(":")[4] for key in kept(shop)}) == 1


@pytest.mark.parametrize("where", ["choose", "_store", "_adopt_where_it_may"])
def test_a_half_built_one_never_sends_and_the_same_key_goes_on(
    shop: Shop, retries: Retries, ended: str, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    class DeadError(Exception):
        pass

    def die(*_: Any, **__: Any) -> None:
        raise DeadError

    with monkeypatch.context() as patch:
        patch.setattr(retries._frozen if where == "choose" else retries, where, die)
        patch.setattr(retries._frozen, "discard", lambda *_: None)
        with pytest.raises(DeadError):
            retries.retry(ended, "failed", key="k")
    if where != "_adopt_where_it_may":  # it is written at its home: the keeper goes on
        shop.keeper.run_once()
        assert shop.take() == []
    kept(shop)
    made = retries.retry(ended, "failed", key="k")
    assert made.known == (where == "_adopt_where_it_may")
    give(shop, of("failed"), "b")
    assert settle(shop, made.id, lambda _: "delivered") == of("failed")


def test_a_store_that_is_silent_once_it_is_written_leaves_it_its_recipients(
    shop: Shop, retries: Retries, ended: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(*_: Any) -> None:
        raise StoreUnavailableError

    with monkeypatch.context() as patch:
        patch.setattr(retries, "_adopt_where_it_may", silent)
        with pytest.raises(StoreUnavailableError):
            retries.retry(ended, "failed", key="k")
    made = retries.retry(ended, "failed", key="k")
    assert made.known
    assert whom(shop, made.id) == of("failed")


@both_layouts
def test_a_user_who_is_forgotten_is_in_no_retry(shop: Shop, retries: Retries, ended: str) -> None:
    ann, bob, *rest = sorted(of("failed"))
    forgetter = Forgetter(shop.client, shop.settings)
    forgetter.forget("shop", ann)
    made = retries.retry(ended, "failed").id
    assert whom(shop, made) == {bob, *rest}
    forgetter.forget("shop", bob)
    assert shop.mentions(bob) == set()
    assert whom(shop, made) == {*rest}
    assert shop.wrong() == []


def test_a_user_who_is_forgotten_while_it_is_chosen_is_not_brought_back(
    shop: Shop, retries: Retries, ended: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = min(of("failed"))
    forgetter = Forgetter(shop.client, shop.settings)
    lose_names = forgetter._lose_names
    made: list[str] = []

    def slow(*args: Any) -> Any:
        if not made:
            made.append(retries.retry(ended, "failed").id)
        return lose_names(*args)

    monkeypatch.setattr(forgetter, "_lose_names", slow)
    forgetter.forget("shop", ann)
    assert shop.mentions(ann) == set()
    assert ann not in whom(shop, made[0])


def test_what_cannot_be_retried_is_said(shop: Shop, retries: Retries, ended: str) -> None:
    with pytest.raises(NotFoundError):
        retries.retry("nothing", "failed")
    with pytest.raises(InvalidInputError, match="single messages"):
        retries.retry(shop.post("o001"), "failed")
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"outcomes": "delivered"}, "nobody is sent the same twice"),
        ({"outcomes": []}, "name at least one of"),
        ({"outcomes": ["lost"]}, "outcome 'lost': take some of"),
        ({"outcomes": "failed", "errcodes": [10**9]}, "whole numbers"),
        ({"outcomes": "failed", "errcodes": range(101)}, "up to 100"),
        ({"outcomes": "failed", "audience": "all"}, "a retry changes"),
        ({"outcomes": "failed", "data": {"thing1": ""}}, "keyword"),
        ({"outcomes": "failed", "key": "a b"}, "visible ASCII"),
    ]
    for given, says in wrong:
        with pytest.raises(InvalidInputError, match=says):
            retries.retry(ended, **given)
    assert kept(shop) == set()


def test_a_family_whose_outcomes_are_gone_is_not_retried(
    shop: Shop, retries: Retries, ended: str
) -> None:
    first = retries.retry(ended, "failed").id
    shop.broadcasts.cancel(first)
    shop.client.hset(keys.home(shop.broadcasts.home_lane(first), first), "ended_at_ms", 1)
    with pytest.raises(NotFoundError, match=f"broadcast {first} are not kept any more"):
        retries.retry(ended, "no_permit")


def test_a_family_has_an_end(shop: Shop, retries: Retries, ended: str) -> None:
    for _ in range(MOST):
        shop.broadcasts.cancel(retries.retry(ended, "failed").id)
    with pytest.raises(InvalidInputError, match=f"retried {MOST} times"):
        retries.retry(ended, "failed")


def test_it_leaves_its_line(retries: Retries, ended: str, tmp_path: Path) -> None:
    with recorded(tmp_path) as lines:
        made = retries.retry(ended, "failed,no_permit", [0, 45009])
        written = lines()
    (line,) = [one for one in written if one["event"] == "broadcast_retried"]
    assert line["retry_for"] == "failed,no_permit 0,45009"
    assert (line["broadcast"], line["retry_of"], line["root"]) == (made.id, ended, ended)
    assert line["recipients"] == made.recipients


def test_pages_of_its_recipients_are_its_own(shop: Shop, retries: Retries, ended: str) -> None:
    made = retries.retry(ended, "failed").id
    give(shop, of("failed"), "b")
    settle(shop, made, lambda _: "delivered")
    found = Recipients(shop.client, shop.settings).iterate(made)
    assert {one.openid for one in found} == of("failed")


@pytest.mark.parametrize(("sets", "buckets"), [(1, 2), (1, 0), (0, 0)])
def test_a_step_names_the_bucket_of_each_of_its_sets(
    client: "redis.Redis", sets: int, buckets: int
) -> None:
    """Too many, too few, or no step at all: it is refused before anything is written."""
    args = SelectArgs(keys.lane_prefix(0), "shop", "b1", 1000, "failed", "", 0, "", "", "", "")
    members = [keys.audience(0, "shop", "~r", bucket) for bucket in range(sets)]
    with pytest.raises(redis.ResponseError, match="arguments"):
        SELECT.on(client)(
            AudienceKeys.of(0, "shop", "~r"), args, list(range(buckets)), more_keys=members
        )
    assert client.keys("*~r*") == []
