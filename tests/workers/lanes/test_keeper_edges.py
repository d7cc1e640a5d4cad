"""Edges: what they ask for is done soon, the same thing once at a time."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from producers.settings import Settings
from workers.lanes.edges import Edges
from workers.lanes.errands import Errands


@pytest.fixture
def lanes() -> int:
    return 4


@pytest.fixture
def errands() -> Iterator[Errands]:
    one = Errands()
    yield one
    one.close()


def test_the_same_errand_runs_once_at_a_time(
    errands: Errands, eventually: Callable[..., Any]
) -> None:
    go, done = threading.Event(), []

    def errand() -> None:
        assert go.wait(5)
        done.append("it")

    for _ in range(3):
        errands.run(("split", "b1"), errand)
    errands.run(("split", "b2"), lambda: done.append("another"))
    eventually(lambda: done == ["another"], "another one is not held up")
    go.set()
    eventually(lambda: len(done) == 2, "it is done")
    eventually(lambda: not errands._known, "it may be asked for again")
    errands.run(("split", "b1"), errand)
    eventually(lambda: done == ["another", "it", "it"], "and so it was")


def test_an_errand_that_fails_is_said_and_may_be_asked_for_again(
    errands: Errands, eventually: Callable[..., Any], lines: list[Any]
) -> None:
    done = []

    def errand() -> None:
        done.append("it")
        raise ValueError

    for runs in (1, 2):
        errands.run(("finish", "b1"), errand)
        eventually(lambda runs=runs: len(done) == runs and not errands._known, "it is over")
    assert [(line["duty"], line["error"]) for line in lines] == [("finish", "ValueError")] * 2


def test_nothing_begins_once_it_is_closed(errands: Errands) -> None:
    errands.close()
    errands.run(("split", "b1"), pytest.fail)
    assert not errands._known


class Doers:
    """Everybody who does what edges ask for; each notes it."""

    def __init__(self) -> None:
        self.done: list[tuple[Any, ...]] = []

    def fill(self, broadcast: str, lane: int) -> None:
        self.done.append(("fill", broadcast, lane))

    def finish(self, broadcast: str) -> None:
        self.done.append(("finish", broadcast))

    def open_lanes(self, app: str, broadcast: str, lanes: list[int]) -> None:
        self.done.append(("open", app, broadcast, lanes))

    def obey(self, broadcast: str, lane: int) -> None:
        self.done.append(("obey", broadcast, lane))


@pytest.mark.parametrize(
    ("tell", "done", "woken"),
    [
        (lambda it: it.low("b1", 2), [("fill", "b1", 2)], []),
        (lambda it: it.complete("b1"), [("finish", "b1")], []),
        (lambda it: it.flag("shop", "b1", 1, "complete"), [("finish", "b1")], []),
        (lambda it: it.flag("shop", "b1", 1, "closed"), [], [("shop", 1)]),
        (lambda it: it.flag("shop", "b1", 1, "queued"), [], [("shop", 1)]),
        (
            lambda it: it.flag("shop", "b1", 1, "opened"),
            [("open", "shop", "b1", [0, 2, 3])],
            [("shop", 1)],
        ),
        (lambda it: it.flag("shop", "b1", 1, "verdict abort 40037"), [("obey", "b1", 1)], []),
    ],
)
def test_each_edge_asks_for_what_the_keeper_would_do(
    errands: Errands,
    eventually: Callable[..., Any],
    tell: Callable[[Edges], None],
    done: list[Any],
    woken: list[Any],
    settings: Settings,
) -> None:
    doers: Any = Doers()
    awake: list[tuple[str, int]] = []
    edges = Edges(
        errands, settings, doers, doers, doers, lambda app, lane: awake.append((app, lane))
    )
    tell(edges)
    eventually(lambda: not errands._known, "the errand is over")
    assert (doers.done, awake) == (done, woken)
