"""Envelopes: the messages of so many broadcasts are kept ready, those of the oldest go."""

from typing import Any

import redis

from producers.broadcasts import Broadcasts
from producers.broadcasts.spec import Spec
from producers.settings import Settings
from workers.sending.claim import Claim, parse_row
from workers.sending.pumping.envelopes import _KEPT, Envelopes


def claim_of(broadcast: str) -> Claim:
    return parse_row("1:o1 f:f1 9 1 0 0 ", "shop", 0, broadcast, 0.0, 0.0)


def test_so_many_are_kept_ready_and_the_oldest_goes(
    client: "redis.Redis", settings: Settings
) -> None:
    envelopes = Envelopes(Broadcasts(client, settings))
    given: dict[str, Any] = {
        "app": "shop",
        "channel": "subscribe",
        "template_id": "T",
        "audience": "all",
    }
    spec = Spec.checked(**given, data={"thing1": "a"}).to_json()
    names = [f"{number:021d}" for number in range(_KEPT + 1)]
    for name in names[:-1]:
        envelopes.learn(name, spec)
    assert envelopes.lacking(map(claim_of, names[:-1])) == []
    envelopes.learn(names[-1], spec)
    lacking = [broadcast for broadcast, _ in envelopes.lacking(map(claim_of, names))]
    assert lacking == names[:1]
