"""Walking something large page by page."""

from collections.abc import Sequence

import pytest

from producers.store.paging import pages, sums

PAGES = {"0": ["7", 1, "2"], "7": ["9", 3, "4"], "9": ["0", 5, "6"]}


class Walk:
    """A script that answers with `PAGES`, and notes what it is asked for."""

    def __init__(self, fails_at: str = "") -> None:
        self.asked: list[str] = []
        self._fails_at = fails_at

    def __call__(self, cursor: str) -> Sequence[object]:
        self.asked.append(cursor)
        if cursor == self._fails_at:
            raise ConnectionError
        return PAGES[cursor]


def test_it_goes_from_cursor_to_cursor_until_the_last_page() -> None:
    walk = Walk()
    assert list(pages(walk)) == [[1, "2"], [3, "4"], [5, "6"]]
    assert walk.asked == ["0", "7", "9"]


def test_numbers_are_summed_over_all_pages() -> None:
    assert sums(Walk()) == [9, 12]


def test_a_page_without_numbers_has_no_sums() -> None:
    assert sums(lambda _: ["0"]) == []


def test_what_a_page_raises_ends_the_walk() -> None:
    walk = Walk("7")
    with pytest.raises(ConnectionError):
        sums(walk)
    assert walk.asked == ["0", "7"]
