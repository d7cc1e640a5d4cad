"""The explorer: a world that it walks through whole, defects that it finds, and what it found.

The large worlds are walked through by ``python -m tests.explore``.
"""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from producers.store import keys

from . import actions, product, valkey
from .actions import apply, enabled
from .defects import DEFECTS, ELSEWHERE
from .invariants import BrokenError
from .product import laid
from .replay import replay
from .search import explore
from .state import State, canonical
from .valkey import Part
from .world import BROADCAST, NEAR, NEAR_TOO, World, forms
from .worlds import WORLDS


@pytest.mark.timeout(120)  # seconds of CPU: 16,000 transitions of real scripts
def test_a_small_world_holds_whole() -> None:
    found = explore("ci", processes=1, seconds=110)
    assert found.violation is None
    assert found.ended, found
    assert found.states > 2_500
    assert found.transitions > 9_000


def walked(world: World) -> list[State]:
    """Return all states of a world."""
    with laid(world) as here:
        found = {(first := here.first()).digest(): first}
        todo = [first]
        while todo:
            state = todo.pop()
            for label in enabled(world, state):
                after, _ = apply(here, state, label)
                if found.setdefault(after.digest(), after) is after:
                    todo.append(after)
    return list(found.values())


def as_they_are(world: World) -> list[State]:
    """Return all states of a world, those that are alike too."""
    whole = product.form
    with pytest.MonkeyPatch.context() as patch:
        for module in (actions, product):
            patch.setattr(module, "canonical", lambda state: (state, {}))
        patch.setattr(valkey, "until_about", lambda until, _: until)
        patch.setattr(product, "form", lambda world: whole(world)._replace(steers=lambda _, f: f))
        return walked(world)


def representative(world: World, state: State) -> bytes:
    """Return the digest of the state that stands for all that are like one."""

    def kept(name: str, value: tuple[str, int]) -> tuple[str, int]:
        text, until = value
        if text[0] == "h":
            words = text[1:].split("\x1f")
            fields = dict(zip(words[::2], words[1::2], strict=True))
            steering = sorted(product.form(world).steers(name, fields).items())
            text = "h" + "\x1f".join(word for pair in steering for word in pair)
        return text, valkey.until_about(until, state.now)

    parts = [
        part and Part({name: kept(name, value) for name, value in part.keys.items()})
        for part in (state.redis, state.disk)
    ]
    redis, disk = parts
    assert redis
    return canonical(state._replace(redis=redis, disk=disk))[0].digest()


ONE, TWO = forms(NEAR, each=1), forms(NEAR, NEAR_TOO, each=1)


@pytest.mark.parametrize(
    "world",
    [
        World("buried", "", ONE, "template", {"burial": 1, "tick": 1}, canary=1),
        World("unheard", "", ONE, "template", {"reply": 1, "death": 1}, canary=1),
        World("restarted", "", ONE, "template", {"restart": 1, "death": 1}, canary=1),
        World("two", "", TWO, "template", {"tick": 1}, canary=1),
    ],
    ids=lambda world: world.name,
)
def test_each_state_stands_for_all_that_are_like_it_and_none_is_left_out(world: World) -> None:
    """What waits for an answer names fences in it, which are not numbered anew meanwhile."""
    fewer = [state for state in walked(world) if not any(one.asking for one in state.workers)]
    more = [state for state in as_they_are(world) if not any(one.asking for one in state.workers)]
    assert len(fewer) < len(more)
    stood_for = {representative(world, state) for state in more}
    assert {state.digest() for state in fewer} == stood_for


def test_with_so_many_faults_together_it_sees_all_that_so_many_lead_to() -> None:
    faults = {"burial": 1, "lost": 1, "death": 1, "tick": 1}
    world = World("bounded", "", ONE, "template", faults, canary=1)

    def spent(state: State) -> int:
        return sum(faults[name] - left for name, left in state.budget if name != "tick")

    def bare(state: State) -> bytes:
        tick = state.left("tick")
        return state._replace(budget=(("tick", tick),)).digest()

    whole = walked(world)
    assert {bare(state) for state in walked(replace(world, together=1))} == {
        bare(state) for state in whole if spent(state) <= 1
    }
    assert max(map(spent, whole)) == 3


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
        ("used-by-another", 4, "I3"),
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


def test_what_a_restart_leaves_in_doubt_is_dated_by_the_models_clock() -> None:
    met = replay("restart", [("restart", "keeps"), ("begin an epoch", "w1")], lives=False)
    copy = met.redis.hash(keys.lane_broadcast(0, BROADCAST))
    assert int(copy["unsure_at_ms"]) == met.now


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
