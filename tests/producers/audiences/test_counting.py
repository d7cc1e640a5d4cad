"""Counting: an expression costs what its smaller side costs; no empty bucket is visited."""

from lane_driver import BUCKETS, Lane

from producers.audiences.counting import COUNT, CountArgs, CountKeys
from producers.audiences.expressions import Expression
from producers.audiences.filled import filled_buckets

MANY = [f"o{n:03}" for n in range(400)]


def count(lane: Lane, text: str, most: int = 10_000) -> list[int]:
    """Return {buckets counted, members, members read or looked up}."""
    return lane.run(
        COUNT,
        CountKeys(lane.key("audience_buckets", "shop", "all")),
        CountArgs(lane.prefix, "shop", Expression.read(text).postfix, most),
        [*range(BUCKETS)],
    )


def filled(lane: Lane, text: str, cursor: int = 0) -> list[int]:
    return filled_buckets(lane.client, 0, "shop", Expression.read(text).postfix, cursor)


def test_an_intersection_reads_its_smaller_side(lane: Lane) -> None:
    lane.audience("all", *MANY)
    lane.audience("few", *MANY[:5], "oStranger")
    for text in ("all & few", "few & all"):
        assert count(lane, text) == [BUCKETS, 5, 12]
    assert count(lane, "few - all") == [BUCKETS, 1, 12]
    assert count(lane, "all - few") == [BUCKETS, 395, 800]
    assert count(lane, "all | few") == [BUCKETS, 401, 406]


def test_a_run_ends_after_so_many(lane: Lane) -> None:
    lane.audience("all", *MANY)
    counted, members, looked = count(lane, "all | all", most=1)
    assert (counted, looked) == (1, 2 * members)


def test_only_buckets_that_may_have_members_are_visited(lane: Lane) -> None:
    lane.audience("all", *MANY)
    lane.audience("few", MANY[0], MANY[1])
    lane.audience("one", MANY[1])
    buckets = sorted({lane.bucket(MANY[0]), lane.bucket(MANY[1])})
    everywhere = [*range(BUCKETS)]
    assert (
        filled(lane, "all") == filled(lane, "all | few") == filled(lane, "all - few") == everywhere
    )
    assert filled(lane, "all & few") == filled(lane, "few - one") == buckets
    assert filled(lane, "few & one") == filled(lane, "all & few & one") == [lane.bucket(MANY[1])]
    assert filled(lane, "few & nobody") == filled(lane, "nobody - all") == []
    assert filled(lane, "all & all", cursor=3) == everywhere[3:]
