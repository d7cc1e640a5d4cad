"""The explorer: a world that it walks through whole, defects that it finds, and what it found.

The large worlds are walked through by ``python -m tests.explore``.
"""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from .defects import DEFECTS, ELSEWHERE
from .invariants import BrokenError
from .replay import replay
from .search import explore
from .worlds import WORLDS


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


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("defect", "steps", "what"),
    [
        ("canary-per-lane", 2, "I7 at most K"),
        ("unposted-is-posted", 3, "I1 what WeChat took"),
        ("recovered-as-new", 2, "I1 what WeChat took"),
        ("reached-is-refused", 4, "I2 what is recorded"),
        ("cursor-stays", 0, "I2 each recipient"),
        ("take-anew", 1, "what lies under a worker's name"),
        ("place-kept", 2, "liveness"),
    ],
)
def test_each_kind_of_defect_is_found_by_what_it_breaks(defect: str, steps: int, what: str) -> None:
    violation = explore(DEFECTS[defect].world, processes=1, defect=defect).violation
    assert violation is not None
    assert violation.name.startswith(what)
    assert len(violation.path) == steps


def test_the_table_names_each_defect_and_each_test_that_shows_what_no_world_can() -> None:
    readme = Path(__file__).with_name("README.md").read_text("utf-8")
    assert re.findall(r"^\| `([\w-]+)` \| \w.* \| `[\w-]+` \| \d+ \|", readme, re.MULTILINE) == [
        *DEFECTS
    ]
    for what, test in ELSEWHERE.items():
        assert f"| {what} | `{test}` |" in readme
        assert (Path(__file__).parents[1] / test).is_file()


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


SET_ASIDE = [
    ("take", "w1", "0"),
    ("die", "w1"),
    ("recover", "d1", "b", "0"),
    ("take", "w1", "0"),
    ("recover", "w1", "b", "0"),
]
CANCELLED = [("move", "cancel", "b"), ("adopt", "b", "0")]


def test_what_was_set_aside_of_a_broadcast_that_drops_is_not_sent_again() -> None:
    """It was queued once more between the cancel and its sweep, which then left others out."""
    replay("aside", [*SET_ASIDE, *CANCELLED, ("decide", "b", "replay")])
    replay("aside", [*SET_ASIDE, CANCELLED[0], ("decide", "b", "replay"), CANCELLED[1]])


def test_who_is_forgotten_while_a_dropped_broadcast_is_swept_counts_once() -> None:
    """A resumed message that waited was counted by the forgetting, and again by the sweep."""
    world = replace(WORLDS["aside"], faults={**WORLDS["aside"].faults, "forget": 1})
    replay(world, [*SET_ASIDE[:3], *CANCELLED, ("forget", "o4")])


def test_who_is_forgotten_in_a_canarys_place_frees_it() -> None:
    """Handed back unsent, a resumed message of a forgotten user kept its place: nothing moved."""
    world = replace(WORLDS["any"], faults={**WORLDS["any"].faults, "tick": 2})
    resumed = [("take", "w1", "0"), ("recover", "w1", "b", "0"), ("take", "w2", "0")]
    replay(world, [*resumed, ("forget", "o4"), ("post", "w2", "b/o4", "45009")])


TO_THE_FIRST = [("take", "w1", "0"), ("mark", "w1", "m/o4"), ("post", "w1", "m/o4", "ok")]
TO_THE_SECOND = [("take", "w1", "0"), ("mark", "w1", "b/o4"), ("post", "w1", "b/o4", "cut")]


def test_a_receipt_is_of_what_was_sent_before_it_came() -> None:
    """A later message's doubt took the receipt of a send that was not settled yet."""
    meanwhile = [("tick", "long"), ("receipt", "m", "o4", "0")]
    replay("message", [*TO_THE_FIRST, *meanwhile, *TO_THE_SECOND, ("settle", "w1", "0")])


def test_a_late_receipt_of_a_doubt_is_not_that_of_what_is_sent_now() -> None:
    """A second message, perhaps never posted, was delivered by the receipt of a first in doubt."""
    in_doubt = [*TO_THE_FIRST[:2], ("post", "w1", "m/o4", "ok, lost"), ("settle", "w1", "0")]
    marked = [*TO_THE_SECOND[:2], ("die", "w1")]
    later = [("tick", "long"), ("receipt", "m", "o4", "0")]
    replay("message", [*in_doubt, *marked, *later, ("keep", "0"), ("recover", "d1", "b", "0")])
