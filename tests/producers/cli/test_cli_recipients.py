"""``wxbroadcast recipients``."""

import csv
import json

import pytest
from cli_runs import run
from shop import Shop

from producers.settings import Settings

PEOPLE = [f"o{n}" for n in range(6)]


@pytest.fixture
def broadcast(shop: Shop) -> str:
    """Give a broadcast whose recipients were delivered, but one who was refused."""
    shop.collector.collect("shop", [{"openid": one, "formId": one} for one in PEOPLE])
    made = shop.broadcast()
    shop.open(made)
    first, *others = shop.take()
    for claim in others:
        shop.settle(claim, msgid="77")
    shop.settle(first, "settle", "void_all", "refused", errcode=43101, streak="-")
    return made


def test_recipients_are_json_lines(settings: Settings, broadcast: str) -> None:
    ran = run(settings, "recipients", broadcast)
    assert ran.code == 0
    found = [json.loads(line) for line in ran.out.splitlines()]
    assert sorted(one["openid"] for one in found) == PEOPLE
    assert sorted(one["outcome"] for one in found) == ["delivered"] * 5 + ["refused"]
    assert "6 recipients" in ran.err


def test_recipients_are_csv(settings: Settings, broadcast: str) -> None:
    ran = run(settings, "recipients", broadcast, "--format", "csv", "--outcome", "refused")
    (one,) = csv.DictReader(ran.out.splitlines())
    assert (one["outcome"], one["errcode"], one["settled_by"]) == ("refused", "43101", "answer")
    assert list(one) == ["openid", "outcome", "errcode", "msgid", "settled_by"]


def test_nobody_is_a_header_alone(settings: Settings, broadcast: str) -> None:
    ran = run(settings, "recipients", broadcast, "--format", "csv", "--outcome", "no_permit")
    assert ran.out == "openid,outcome,errcode,msgid,settled_by\n"
    assert run(settings, "recipients", broadcast, "--outcome", "no_permit").out == ""


def test_the_last_line_counts_them(settings: Settings, broadcast: str) -> None:
    ran = run(settings, "recipients", broadcast, "--outcome", "delivered", "--json")
    assert ran.json == {"id": broadcast, "recipients": 5}
    assert len(ran.out.splitlines()) == 6


def test_wrong_questions_are_wrong_input(settings: Settings, broadcast: str) -> None:
    for outcome, why in (("late", "counted"), ("won", "take one of")):
        ran = run(settings, "recipients", broadcast, "--outcome", outcome, "--json")
        assert ran.code == 2
        assert why in ran.json["error"]
    assert run(settings, "recipients", "nothing").code == 2
