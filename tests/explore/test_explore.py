"""The explorer: a world that it walks through whole, defects that it finds, and what it found.

The large worlds are walked through by ``python -m tests.explore``.
"""

from pathlib import Path

import pytest

from .invariants import BrokenError
from .replay import replay
from .search import explore


@pytest.mark.timeout(120)  # seconds of CPU: 16,000 transitions of real scripts
def test_a_small_world_holds_whole() -> None:
    found = explore("ci", processes=1, seconds=110)
    assert found.violation is None
    assert found.ended, found
    assert found.states > 3000
    assert found.transitions > 10_000


def test_a_search_goes_on_where_it_was_left(tmp_path: Path) -> None:
    whole = explore("ci", processes=1, depth=4)
    explore("ci", processes=1, depth=2, state_dir=tmp_path)
    rest = explore("ci", processes=1, depth=4, state_dir=tmp_path, resume=True)
    assert (rest.states, rest.transitions, rest.levels) == (
        whole.states,
        whole.transitions,
        whole.levels,
    )


def test_a_defect_is_found_and_its_path_replayed() -> None:
    violation = explore("ci", processes=1, defect="settled-by-anyone").violation
    assert violation is not None
    with pytest.raises(BrokenError):
        replay("ci", violation.path, defect="settled-by-anyone")
    replay("ci", violation.path)


SWAPPED_AFTER_A_RESTART = [
    ("on disk",),
    ("take", "w1", "0"),
    ("take", "w1", "0"),
    ("post", "w1", "b/o5", "ok"),
    ("settle", "w1", "0"),
    ("post", "w1", "b/o4", "41028"),
    ("settle", "w1", "0"),
    ("post", "w1", "b/o4", "ok"),
    ("restart", "forgets"),
    ("begin an epoch", "w1"),
    ("take", "w1", "0"),
    ("settle", "w1", "0"),
    ("take", "w1", "0"),
    ("post", "w1", "b/o5", "used"),
]


def test_what_a_swap_gives_after_a_restart_may_have_been_used() -> None:
    replay("restart-swap", SWAPPED_AFTER_A_RESTART)
    with pytest.raises(BrokenError, match="nobody is delivered twice"):
        replay("restart-swap", SWAPPED_AFTER_A_RESTART, defect="swap-sure")
