"""The layout: each bucket lies in one lane at any moment, and no lane's number comes twice."""

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.settings import Layout

BUCKETS = 384


def life(*counts: int) -> Iterator[Layout]:
    """Yield every layout that a deployment goes through."""
    for at in range(1, len(counts) + 1):
        now = counts[:at]
        yield Layout(BUCKETS, now)
        if at == len(counts):
            return
        for divided in range(now[-1]):
            yield Layout(BUCKETS, now, counts[at], divided)
            yield Layout(BUCKETS, now, counts[at], divided, shut=True)
        yield Layout(BUCKETS, now, counts[at], now[-1])


EVERY = list(life(2, 4, 12, 48))


@pytest.mark.parametrize("layout", EVERY, ids=repr)
def test_what_is_written_is_what_is_read(layout: Layout) -> None:
    found = {field: value or None for field, value in layout.written().items()}
    assert Layout.read(found) == layout
    assert hash(Layout.read(found)) == hash(layout)


def test_each_is_older_than_those_that_follow() -> None:
    ages = [one.age for one in EVERY]
    assert ages == sorted(ages)
    assert len(set(ages)) == len(ages)


@pytest.mark.parametrize("layout", EVERY, ids=repr)
def test_each_bucket_lies_in_one_of_the_lanes_and_none_is_empty(layout: Layout) -> None:
    found = {layout.of_number(bucket) for bucket in range(BUCKETS)}
    assert found == set(layout.lanes)
    assert len(layout.lanes) == len(found)
    assert layout.shut is None or layout.shut in layout.lanes


def test_a_number_never_comes_again_for_other_buckets() -> None:
    of: dict[int, frozenset[int]] = {}
    for layout in EVERY:
        for lane in layout.lanes:
            buckets = (b for b in range(BUCKETS) if layout.of_number(b) == lane)
            mine = frozenset(buckets)
            assert of.setdefault(lane, mine) == mine


def test_a_division_keeps_the_order_of_the_lanes() -> None:
    for before, after in itertools.pairwise(EVERY):
        stay = [lane for lane in before.lanes if lane in after.lanes]
        assert [lane for lane in after.lanes if lane in stay] == stay
        places = [after.ancestors(lane) for lane in after.lanes]
        assert [lane for lane in before.lanes if any(lane in one for one in places)] == list(
            before.lanes
        )


@given(st.integers(0, BUCKETS - 1))
def test_a_lane_comes_out_of_those_that_its_buckets_were_in(bucket: int) -> None:
    were: list[int] = []
    for layout in EVERY:
        lane = layout.of_number(bucket)
        were += [] if lane in were else [lane]
        assert layout.ancestors(lane) == were
        assert layout.heir(lane) == lane
        for older in were:
            assert layout.heir(older) in layout.heirs(bucket)


def test_an_heir_is_one_of_the_lanes_that_came_out_of_it() -> None:
    for before, after in itertools.pairwise(EVERY):
        for lane in before.lanes:
            assert lane in after.ancestors(after.heir(lane))


@pytest.mark.parametrize("lane", [-1, 66, 1000])
def test_what_never_was_a_lane_is_none(lane: int) -> None:
    with pytest.raises(ValueError, match="no lane"):
        EVERY[-1].heir(lane)
    with pytest.raises(ValueError, match="no lane"):
        EVERY[-1].ancestors(lane)


def test_the_lanes_follow_each_other_once() -> None:
    for layout in EVERY:
        lane: int | None = layout.lanes[0]
        found = []
        while lane is not None:
            found.append(lane)
            lane = layout.after(lane)
        assert found == list(layout.lanes)


def test_who_lives_where_never_changes_between_versions() -> None:
    layout = Layout(16384, [16])
    assert layout.bucket_of("oGZUI0egBJY1zhBYw2KhdUfwVJJE") == 5369
    assert layout.of_openid("oGZUI0egBJY1zhBYw2KhdUfwVJJE") == 5369 % 16
    half = Layout(16384, [16], 64, 10)
    assert half.of_openid("oGZUI0egBJY1zhBYw2KhdUfwVJJE") == 16 + 5369 % 64
    assert half.home_of("shop") == Layout(16384, [16, 64]).home_of("shop")


def test_a_number_names_one_lane_at_any_moment_and_then_its_heir() -> None:
    for before, after in itertools.pairwise(EVERY):
        numbers = [before.number_of(lane) for lane in before.lanes]
        assert len(set(numbers)) == len(numbers)
        for lane, number in zip(before.lanes, numbers, strict=True):
            assert before.of_number(number) == lane
            assert after.of_number(number) == after.heir(lane)
