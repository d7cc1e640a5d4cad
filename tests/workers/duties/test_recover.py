"""What no peer would be buried for: orphans, and what a living worker has forgotten."""

import pytest
import redis

from producers.broadcasts import Broadcasts
from producers.settings import Settings
from producers.store import keys
from workers.duties.recover import FORGOTTEN_MS, ORPHAN_MS, Entry, Recoverer, forgotten

NOW_MS = 1_000_000


def entry(worker: str, age_ms: int, fence: str = "7") -> Entry:
    return Entry("1:anna", worker, fence, "f:A", 2_000_000, NOW_MS - age_ms, 0, resumed=False)


@pytest.fixture
def recoverer(client: "redis.Redis", settings: Settings) -> Recoverer:
    client.zadd(keys.WORKERS, {"alive": 1})
    return Recoverer(client, settings, Broadcasts(client, settings))


@pytest.mark.parametrize(
    ("worker", "age_ms", "found"),
    [
        ("unknown", ORPHAN_MS + 1, {"unknown"}),
        ("unknown", ORPHAN_MS - 1, set()),
        ("alive", ORPHAN_MS + 1, set()),
        ("-", ORPHAN_MS + 1, set()),
        ("aside", ORPHAN_MS + 1, set()),
    ],
)
def test_an_orphans_worker_is_unknown_and_its_entry_old(
    recoverer: Recoverer, worker: str, age_ms: int, found: set[str]
) -> None:
    assert recoverer.orphans([entry(worker, age_ms)], NOW_MS) == found


@pytest.mark.parametrize(
    ("worker", "age_ms", "in_hand", "found"),
    [
        ("me", FORGOTTEN_MS + 1, set(), True),
        ("me", FORGOTTEN_MS - 1, set(), False),
        ("me", FORGOTTEN_MS + 1, {"7"}, False),
        ("me", FORGOTTEN_MS + 1, {"8"}, True),
        ("another", FORGOTTEN_MS + 1, set(), False),
    ],
)
def test_forgotten_is_what_is_old_under_ones_own_name_and_not_in_hand(
    worker: str, age_ms: int, in_hand: set[str], found: bool
) -> None:
    one = entry(worker, age_ms)
    assert forgotten([one], "me", in_hand, NOW_MS) == ([one] if found else [])


def test_an_entry_reads_as_the_claim_that_it_was(
    client: "redis.Redis", recoverer: Recoverer
) -> None:
    client.hset(keys.flight(0, "b1"), "1:anna", "w1 9 p:PREPAY:2 2000 1000 3 1")
    client.expire(keys.flight(0, "b1"), 60)
    (one,) = recoverer.entries("b1", 0)
    claim = one.claim("shop", 0, "b1")
    assert (claim.item, claim.fence, claim.member) == ("1:anna", "9", "p:PREPAY:2")
    assert (claim.expires_at_ms, claim.tries, claim.resumed) == (2000, 3, True)
