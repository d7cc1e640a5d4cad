"""The list of broadcasts: page by page, each exactly once."""

import time

import pytest
from shop import Shop

from producers.broadcasts.status import Register, StatusPage
from producers.errors import InvalidInputError, NotFoundError, UnknownAppError
from producers.store import keys

both_layouts = pytest.mark.parametrize("lanes", [1, 4])


@pytest.fixture
def register(shop: Shop) -> Register:
    return Register(shop.client, shop.settings)


def pages(register: Register, limit: int) -> list[StatusPage]:
    found, cursor = [], ""
    while True:
        found.append(register.page("shop", cursor, limit))
        cursor = found[-1].cursor
        if not cursor:
            return found


def ids(found: list[StatusPage]) -> list[str]:
    return [status.id for page in found for status in page.broadcasts]


def broadcasts(shop: Shop, count: int, *, at_once: bool = False) -> list[str]:
    """Create some, a millisecond apart or all in one; returns them newest first."""
    made = [shop.broadcast() for _ in range(count)]
    now = shop.now_ms()
    times = {one: now + (0 if at_once else n) for n, one in enumerate(made)}
    shop.client.zadd(keys.history("shop"), times)
    time.sleep(0.001 * count)  # whoever makes more makes newer ones
    return sorted(made, key=lambda one: (times[one], one), reverse=True)


@both_layouts
@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8, 1000])
def test_each_comes_once_the_newest_first(
    shop: Shop, register: Register, limit: int, at_once: bool
) -> None:
    made = broadcasts(shop, 7, at_once=at_once)
    found = pages(register, limit)
    assert ids(found) == made
    assert all(len(page.broadcasts) <= limit for page in found)
    assert all(page.as_dict()["broadcasts"] for page in found)


@both_layouts
def test_a_new_one_moves_no_page(shop: Shop, register: Register) -> None:
    made = broadcasts(shop, 6)
    first = register.page("shop", "", 2)
    broadcasts(shop, 3)
    rest = register.page("shop", first.cursor, 10)
    assert ids([first, rest]) == made


@both_layouts
def test_one_whose_retention_is_over_is_left_out(shop: Shop, register: Register) -> None:
    made = broadcasts(shop, 3)
    shop.client.delete(keys.home(register.home_lane(made[1]), made[1]))
    assert ids(pages(register, 1)) == [made[0], made[2]]
    with pytest.raises(NotFoundError):
        register.status(made[1])


def test_an_app_without_broadcasts_has_one_empty_page(register: Register) -> None:
    assert register.page("shop") == StatusPage([], "")


def test_wrong_questions_are_refused(register: Register) -> None:
    for cursor in ("x", "1", "1.", ".a", "-1.a", "1.A", "1.a\n", "٣.a", f"1.{'a' * 65}"):
        with pytest.raises(InvalidInputError, match="cursor"):
            register.page("shop", cursor)
    for limit in (0, -1, 1001):
        with pytest.raises(InvalidInputError, match="limit"):
            register.page("shop", "", limit)
    with pytest.raises(UnknownAppError):
        register.page("shoq")


def test_the_id_of_a_single_message_is_told_from_a_broadcasts(shop: Shop) -> None:
    with pytest.raises(NotFoundError, match="message show"):
        shop.broadcasts.status("m20782f80a022aaeb2d1.oAnna")
