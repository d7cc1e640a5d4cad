"""``wxbroadcast chaos``: nobody twice and nobody forgotten, in short; and nothing left behind."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_run import Run, starting

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """Start chaos runs; end them with the test."""
    yield from starting("chaos", tmp_path)


@pytest.mark.parametrize(("channel", "seed"), [("template", 1), ("subscribe", 2)])
def test_nobody_twice_and_nobody_forgotten_through_all_faults(
    start: Callable[..., Run], channel: str, seed: int
) -> None:
    """What must hold on any machine; how long a recovery took is the command's own verdict."""
    run = start("--recipients", 2000, "--kills", 4, "--channel", channel, "--seed", seed)
    code, told, _ = run.end()
    assert [wrong for wrong in told["wrong"] if "a recovery took" not in wrong] == []
    assert code == (0 if told["good"] else 1)
    assert told["outcomes"]["delivered"] + told["in_doubt"] == 2000
    assert (told["lost"], told["duplicates"], told["permits_unaccounted"]) == (0, 0, 0)
    assert told["struck"]["kills"] == 4
    assert told["recoveries"] > 0
    assert told["lost_replies"] > 0
    assert told["seed"] == seed
    run.assert_nothing_is_left()


@pytest.mark.parametrize(("channel", "seed"), [("template", 3), ("subscribe", 4)])
def test_a_hostile_crowd_costs_honest_users_nothing(
    start: Callable[..., Run], channel: str, seed: int
) -> None:
    """Beside kills, through a real service; how long honest phones waited is the command's word."""
    options = ("--recipients", 600, "--rate", 40, "--kills", 2, "--faults", "kills,hostile")
    run = start(*options, "--channel", channel, "--seed", seed)
    code, told, _ = run.end()
    timed = ("a recovery took", "honest requests took")
    assert [wrong for wrong in told["wrong"] if not any(one in wrong for one in timed)] == []
    assert code == (0 if told["good"] else 1)
    assert told["outcomes"]["delivered"] + told["in_doubt"] == 600
    assert (told["lost"], told["duplicates"], told["permits_unaccounted"]) == (0, 0, 0)
    assert (told["struck"]["hostile"], told["honest_failed"]) == (1, 0)
    assert set(told["mob"]) == {
        "flood", "guess", "hold", "junk", "lie", "push", "reject", "replay"
    }  # fmt: skip
    run.assert_nothing_is_left()


@pytest.mark.parametrize(
    ("channel", "faults", "seed"),
    [("template", "kills,nodes,reshards", 5), ("subscribe", "kills,partitions,redis", 6)],
)
def test_a_cluster_that_is_broken_costs_nobody_anything(
    start: Callable[..., Run], channel: str, faults: str, seed: int
) -> None:
    """Its nodes die, stand still, restart and move their slots; what claims await is a replica."""
    options = ("--cluster", "--recipients", 800, "--rate", 40, "--kills", 2, "--faults", faults)
    run = start(*options, "--channel", channel, "--seed", seed)
    code, told, _ = run.end()
    assert [wrong for wrong in told["wrong"] if "a recovery took" not in wrong] == []
    assert code == (0 if told["good"] else 1)
    assert told["outcomes"]["delivered"] + told["in_doubt"] == 800
    assert (told["lost"], told["duplicates"], told["permits_unaccounted"]) == (0, 0, 0)
    assert told["struck"].keys() == set(faults.split(","))
    assert told["failovers"] == 1
    run.assert_nothing_is_left()


def test_of_those_in_doubt_few_were_never_posted_to(start: Callable[..., Run]) -> None:
    run = start(
        "--recipients",
        6000,
        "--kills",
        6,
        "--faults",
        "kills",
        "--channel",
        "subscribe",
        "--seed",
        7,
    )
    _, told, _ = run.end()
    assert told["struck"]["kills"] == 6
    assert (told["lost"], told["duplicates"], told["permits_unaccounted"]) == (0, 0, 0)
    assert told["in_doubt"] > 0
    # one in twelve on a quiet machine; two in three when nothing tells them apart
    assert told["false_doubts"] <= 2 + 0.4 * told["in_doubt"]
    run.assert_nothing_is_left()


def test_without_faults_everybody_is_delivered(start: Callable[..., Run]) -> None:
    run = start("--recipients", 300, "--faults", "none", "--rate", 300, "--units", 1, "--lanes", 2)
    code, told, _ = run.end()
    assert (code, told["outcomes"], told["struck"]) == (0, {"delivered": 300}, {})
    run.assert_nothing_is_left()


def test_an_interrupted_run_leaves_nothing(start: Callable[..., Run]) -> None:
    run = start("--recipients", 3000, "--faults", "zombies,redis,cuts")
    run.await_line("delivered")
    run.process.send_signal(signal.SIGTERM)
    code, told, _ = run.end()
    assert code == 143
    assert "interrupted" in told["error"]
    run.assert_nothing_is_left()


@pytest.mark.parametrize(
    "options",
    [("--faults", "kills,floods"), ("--channel", "carrier-pigeon"), ("--faults", "kills,nodes")],
)
def test_an_unknown_fault_or_channel_is_wrong_input(
    start: Callable[..., Run], options: tuple[str, ...]
) -> None:
    code, told, _ = start(*options).end()
    assert code == 2
    assert options[1].rpartition(",")[2] in told["error"]


def test_all_who_tell_of_a_broadcast_say_the_same(start: Callable[..., Run]) -> None:
    """Through kills too: a worker is asked for its figures before, and dies with its hands full.

    Without cuts: a settling whose reply is lost when its worker is killed leaves no line.
    """
    options = ("--recipients", 300, "--rate", 40, "--kills", 2, "--faults", "kills,wechat")
    run = start("--compare", *options, "--channel", "subscribe", "--seed", 8)
    code, told, _ = run.end()
    assert [wrong for wrong in told["wrong"] if "a recovery took" not in wrong] == []
    assert code == (0 if told["good"] else 1)
    rows = {row.pop("name"): row for row in told["views"]}
    assert told["outcomes"].keys() == {"delivered", "in_doubt"}
    for outcome, count in told["outcomes"].items():
        row = rows[f"outcome {outcome}"]
        assert row.pop("equal")
        assert set(row.values()) == {count}
        assert {"Redis", "HTTP", "page", "top", "report", "lines", "workers' metrics"} <= set(row)
    assert rows["answers"]["lines"] == rows["answers"]["workers' metrics"] > 0
    assert rows["permits spent"]["/metrics"] == 300
    run.assert_nothing_is_left()
