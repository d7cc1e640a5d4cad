"""What the users of crowded buckets hold is recounted in pages, each user once and whole."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from shop import TEMPLATE, Shop

from producers.care import holdings
from producers.care.holdings import (
    AUDIT_USERS,
    BUCKETS,
    USERS,
    Holdings,
    Part,
    UsersArgs,
    UsersKeys,
)
from producers.store import keys

MANY = 3 * USERS


@pytest.fixture
def shop(client: Any, make_settings: Callable[..., Any]) -> Shop:
    """Give a shop all of whose users lie in one bucket."""
    return Shop(client, make_settings(lanes=1, buckets=1))


def fill(shop: Shop, users: range) -> None:
    shop.collector.collect("shop", ({"openid": f"o{n}", "formIds": [f"f{n}"]} for n in users))


def stock_of(shop: Shop) -> dict[str, int]:
    return {field: int(uses) for field, uses in shop.client.hgetall(keys.stock(0, "shop")).items()}


def recounted(shop: Shop, buckets: list[int] | None = None) -> Counter[str]:
    part = Part(0, "shop", 0, [0] if buckets is None else buckets)
    return Holdings(shop.client).recount([part])[0]


def forget(shop: Shop, openid: str) -> None:
    shop.client.delete(keys.permits(0, "shop", openid))
    shop.client.srem(keys.audience(0, "shop", "all", 0), openid)


def test_a_crowded_bucket_is_what_the_stock_counts(shop: Shop) -> None:
    fill(shop, range(MANY))
    shop.give("o1", formIds=[f"more{n}" for n in range(60)], prepayId="wx1")
    shop.give("o2", subscriptions={TEMPLATE: "accept"})
    assert recounted(shop) == {**stock_of(shop), "users": MANY}


def test_many_buckets_are_what_the_stock_counts(
    client: Any, make_settings: Callable[..., Any]
) -> None:
    shop = Shop(client, make_settings(lanes=1, buckets=3 * BUCKETS))
    fill(shop, range(MANY))
    filled = [
        at for at in range(3 * BUCKETS) if shop.client.exists(keys.audience(0, "shop", "all", at))
    ]
    assert len(filled) > 2 * BUCKETS
    assert recounted(shop, filled) == {**stock_of(shop), "users": MANY}


def test_small_parts_ride_together_and_each_has_its_own(
    client: Any, make_settings: Callable[..., Any]
) -> None:
    shop = Shop(client, make_settings(lanes=1, buckets=2 * BUCKETS))
    fill(shop, range(MANY))
    shop.give("o1", formIds=[f"more{n}" for n in range(9)])
    parts = [Part(0, "shop", 0, range(at, 2 * BUCKETS, 7)) for at in range(7)]
    together = Holdings(client).recount(parts)
    assert together == [recounted(shop, list(part.buckets)) for part in parts]
    assert sum(together, Counter()) == {**stock_of(shop), "users": MANY}


def test_a_script_begins_no_further_user_after_a_thousand_uses(shop: Shop) -> None:
    some = [f"o{n}" for n in range(30)]
    for openid in some:
        shop.give(openid, formIds=[f"{openid}.{n}" for n in range(90)])
    args = UsersArgs(keys.lane_prefix(0), "shop", 0)
    counted, *_ = AUDIT_USERS.on(shop.client)(UsersKeys(keys.stock(0, "shop")), args, some)
    assert counted == 12  # the twelfth reaches a thousand
    found = recounted(shop)
    assert (found.pop("users"), found) == (30, stock_of(shop))


def test_a_user_of_an_older_layout_counts_for_all_that_is_read(shop: Shop) -> None:
    shop.give("o1", subscriptions={TEMPLATE: "accept"})
    ids = {f"id:{n}": "1" for n in range(550)}
    for n in range(4):
        shop.client.hset(keys.subscriptions(0, "shop", f"o{n}"), mapping=ids)
        shop.client.expire(keys.subscriptions(0, "shop", f"o{n}"), 60)
    args, some = UsersArgs(keys.lane_prefix(0), "shop", 0), [f"o{n}" for n in range(4)]
    counted, *_ = AUDIT_USERS.on(shop.client)(UsersKeys(keys.stock(0, "shop")), args, some)
    assert counted == 2


def shrunk_meanwhile(
    shop: Shop, users: range, monkeypatch: pytest.MonkeyPatch
) -> tuple[Counter[str], list[str]]:
    """Recount while most users leave after the first page, and others come; and who was given."""
    fill(shop, users)
    pages, given, real = iter(range(1000)), list[str](), holdings.repeat_all

    def slowly(during: str, *args: Any) -> list[Any]:
        answers = real(during, *args)
        if during == "reading openids":
            given.extend(openid for _, openids in answers for openid in openids)
            if next(pages) == 0:
                for n in users[MANY:]:
                    forget(shop, f"o{n}")
                fill(shop, range(users.stop, users.stop + 20))
        return answers

    with monkeypatch.context() as patched:
        patched.setattr(holdings, "repeat_all", slowly)
        return recounted(shop), given


def test_who_stays_is_counted_once_while_others_come_and_go(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A set that shrinks between two pages may give members twice: they count once.

    Whether it does is chance, by the names and the server's seed: other names are tried then.
    """
    given: list[str] = []
    for first in range(0, 300 * MANY, 10 * MANY):
        for openid in given:
            forget(shop, openid)
        users = range(first, first + 8 * MANY)
        found, given = shrunk_meanwhile(shop, users, monkeypatch)
        assert {f"o{n}" for n in users[:MANY]} <= {*given}
        assert found["users"] == len({*given})
        (hour,) = {field[2:] for field in found if field != "users"}
        there = {one for one in given if shop.client.exists(keys.permits(0, "shop", one))}
        assert found[f"f:{hour}"] == found[f"u:{hour}"] == len(there)
        if len(given) > len({*given}):
            return
    pytest.fail("nobody was ever given twice")
