"""The played evening: three apps, all that operators do, and every count right wherever one looks.

Alone in its module, for it waits for a whole minute: a series' tick, and a window that opens.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_run import Run, starting

USERS = int(os.environ.get("EVENING_USERS", "120"))
KILLS = int(os.environ.get("EVENING_KILLS", "3"))
SIZE = ("--recipients", USERS, "--rate", USERS / 10 if USERS == 120 else 0, "--units", 2)

pytestmark = pytest.mark.timeout(150 + USERS // 4 + 3 * KILLS)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    yield from starting("chaos", tmp_path)


def by_name(told: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {line["name"]: line for line in told["broadcasts"]}


def test_every_count_is_right_in_redis_over_http_in_the_logs_and_at_the_wechat(
    start: Callable[..., Run],
) -> None:
    run = start("--evening", "--faults", "none", *SIZE, "--seed", 1)
    code, told, _ = run.end(within_s=140 + USERS // 4)
    assert (told["wrong"], code) == ([], 0)
    found = by_name(told)
    for line in found.values():
        assert line["http"] == line["redis"], line
        delivered = line["redis"].get("delivered", 0)
        assert (line["logged"], line["arrived"], line["twice"]) == (delivered, delivered, 0), line
        assert sum(line["redis"].values()) == line["recipients"], line
    whole = {"delivered": USERS}
    assert found["quiet"]["redis"] == {"delivered": USERS - 5, "suppressed": 5}
    assert {name: found[name]["redis"] for name in ("tick", "paused", "retried")} == {
        "tick": whole, "paused": whole, "retried": whole,
    }  # fmt: skip
    assert found["rows"]["redis"] == {"delivered": USERS // 2}
    assert (found["aborted"]["state"], found["aborted"]["redis"]) == (
        "aborted",
        {"cancelled": USERS},
    )
    cancelled = found["cancelled"]
    assert cancelled["state"] == "cancelled"
    assert 0 < cancelled["redis"]["delivered"] < USERS
    offers = Counter(found["offer1"]["redis"]) + Counter(found["offer2"]["redis"])
    assert offers == {"delivered": USERS, "capped": USERS}
    assert told["messages"] == {"delivered": 25}
    assert (told["ticks"], told["wrong_words"], told["outside_window"]) == (1, 0, 0)
    assert (told["beyond_cap"], told["lost"], told["findings"]) == (0, 0, [])
    run.assert_nothing_is_left()


def test_nobody_is_lost_or_told_twice_while_workers_and_redis_are_killed(
    start: Callable[..., Run],
) -> None:
    run = start("--evening", *SIZE, "--kills", KILLS, "--seed", 5)
    code, told, _ = run.end(within_s=140 + USERS // 4 + 3 * KILLS)
    assert (told["wrong"], code) == ([], 0)
    assert (told["lost"], told["twice"]) == (0, 0)
    assert (told["outside_window"], told["beyond_cap"], told["ticks"]) == (0, 0, 1)
    assert told["struck"]["kills"] == KILLS
    assert told["struck"]["redis"] >= 1
    for line in by_name(told).values():
        doubts = line["redis"].get("in_doubt", 0)
        delivered = line["redis"].get("delivered", 0)
        assert delivered <= line["arrived"] <= delivered + doubts
    run.assert_nothing_is_left()
