"""How many places one app may fill where several fill them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.limits.shares import share, worth


def fill(places: int, wanting: int) -> list[int]:
    """Return what each of several apps holds that came one after the other and let nothing go."""
    held: list[int] = []
    for _ in range(wanting):
        mine = 0
        while mine < share(places, sum(held), alone=False) and sum(held) + mine < places:
            mine += 1
        held.append(mine)
    return held


def test_one_app_alone_has_all_of_it() -> None:
    assert share(1000, 0, alone=True) == 1000


@pytest.mark.parametrize("places", [4, 100, 1000])
def test_whoever_comes_finds_two_thirds_of_what_is_left(places: int) -> None:
    first, second, third = fill(places, 3)
    assert first == places * 2 // 3
    assert second == max(1, (places - first) * 2 // 3)
    assert third >= 1 or places == 4


@given(places=st.integers(1, 5000), others=st.integers(0, 6000))
def test_nobody_may_fill_more_than_is_there(places: int, others: int) -> None:
    for alone in (True, False):
        assert 0 <= share(places, others, alone=alone) <= max(0, places - others)


def test_apps_that_all_want_more_come_to_hold_the_same() -> None:
    held = [700, 0, 0]
    for _ in range(2000):  # each lets one go, and takes as many as it may
        for app in range(3):
            held[app] = max(0, held[app] - 1)
            held[app] = max(held[app], share(1000, sum(held) - held[app], alone=False))
    assert max(held) - min(held) <= 2
    assert 1000 - sum(held) >= 140


@pytest.mark.parametrize(("room", "found"), [(0, 0), (99, 0), (100, 100), (500, 500)])
def test_little_room_is_not_worth_a_take(room: int, found: int) -> None:
    assert worth(room, 800, 128) == found
