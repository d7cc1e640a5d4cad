"""The doctor says when buckets are crowded: a step over one of them would hold Redis too long."""

from typing import Any

from producers.audiences.batches import AudienceKeys
from producers.care.check import Health
from producers.care.doctor import examine
from producers.store import keys


def test_crowded_buckets_are_told(client: Any, settings: Any) -> None:
    size = AudienceKeys.of(0, "shop", "all").size
    for users, health in (
        (settings.buckets * 1000, Health.OK),
        (settings.buckets * 1001, Health.WARN),
    ):
        client.set(size, users)
        found = next(check for check in examine(settings) if check.name == "layout")
        assert found.health is health, found
    assert "1,001 users of shop in each" in found.found
    client.delete(size)
    assert not client.exists(keys.audience_size(0, "shop", "all"))


def test_a_change_of_lanes_that_is_under_way_is_told(client: Any, settings: Any) -> None:
    def told() -> list[Any]:
        return [check for check in examine(settings) if check.name == "lanes"]

    assert told() == []
    client.hset(keys.DEPLOYMENT, mapping={"relaning": "4", "shut": "1"})
    [check] = told()
    assert check.health is Health.WARN
    assert check.found == "0 of 1 divided, lane 0 stands still for it"
    assert "`wxbroadcast lanes 4` goes on" in check.advice
    client.hdel(keys.DEPLOYMENT, "relaning", "shut")
