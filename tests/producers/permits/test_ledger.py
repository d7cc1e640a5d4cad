"""The ledger: every use of a permit stands in exactly one place, summed over the lanes."""

import json
import time
from typing import Any

import pytest

from producers.errors import UnknownAppError
from producers.permits import ledger
from producers.permits.collect import Collector
from producers.permits.ledger import Uses
from producers.settings import Settings
from producers.words import PermitKind

pytestmark = pytest.mark.parametrize("lanes", [1, 4])


def test_an_app_without_permits_has_zeros_of_every_kind(
    client: Any, settings: Settings, lanes: int
) -> None:
    found = ledger.totals(client, settings, "shop")
    assert found.kinds == {kind: Uses() for kind in PermitKind}
    assert found.total == Uses()


def test_what_is_collected_is_available(client: Any, settings: Settings, lanes: int) -> None:
    Collector(client, settings).collect(
        "shop",
        [
            {
                "openid": f"o{n}",
                "formIds": ["f1", "f2"],
                "prepayId": "p",
                "subscriptions": {"T1": "accept", "T2": "accept", "T3": "reject"},
            }
            for n in range(100)
        ],
    )
    found = ledger.totals(client, settings, "shop")
    for kind, uses in {
        PermitKind.FORM_ID: 200,
        PermitKind.PREPAY_ID: 300,
        PermitKind.SUBSCRIPTION: 200,
    }.items():
        assert found.kinds[kind] == Uses(collected=uses, available=uses)
        assert found.kinds[kind].held == 0
    assert found.total == Uses(collected=700, available=700)


def test_a_withdrawn_subscription_is_void(client: Any, settings: Settings, lanes: int) -> None:
    collector = Collector(client, settings)
    at = time.time_ns() // 1_000_000 - 5000
    for moment, result in enumerate(["accept", "accept", "reject"]):
        collector.collect(
            "shop",
            [
                {"openid": f"o{n}", "subscriptions": {"T1": result}, "at": at + moment}
                for n in range(20)
            ],
        )
    found = ledger.totals(client, settings, "shop").kinds[PermitKind.SUBSCRIPTION]
    assert found == Uses(collected=40, void=40)


def test_held_is_what_is_in_no_other_place(lanes: int) -> None:
    assert Uses(collected=10, available=1, spent=2, void=3, expired=1).held == 3


def test_it_is_told_in_json(client: Any, settings: Settings, lanes: int) -> None:
    Collector(client, settings).collect("shop", [{"openid": "o", "prepayId": "p"}])
    told = json.loads(json.dumps(ledger.totals(client, settings, "shop").as_dict()))
    kinds = told.pop("kinds")
    expected = {"collected": 3, "held": 0, "available": 3, "spent": 0, "void": 0, "expired": 0}
    assert told == kinds["prepay_id"] == expected
    assert set(kinds) == {"form_id", "prepay_id", "subscription"}


def test_an_unknown_app_is_named(client: Any, settings: Settings, lanes: int) -> None:
    with pytest.raises(UnknownAppError, match="no app 'shoq'"):
        ledger.totals(client, settings, "shoq")
