"""The beat: when it is due, what comes with it, and when it fails."""

import time
from typing import Any

from workers.duties.beat import Beat
from workers.duties.epochs.server import ServerChangedError
from workers.limits.breaker import Trouble
from workers.limits.gate import Gate


class Others:
    """Peers, epochs and an app's tokens as a test wants them."""

    def __init__(self) -> None:
        self.dead: list[tuple[str, int]] = []
        self.error: Exception | None = None
        self.acknowledged_ms: list[int] = []
        self.closed: list[Any] = []
        self.trouble: Any = None

    async def beat(self) -> list[tuple[str, int]]:
        if self.error:
            raise self.error
        return self.dead

    def server_time(self) -> float:
        return 1234.5

    async def tell_closed(self, gates: Any) -> None:
        self.closed.append(gates)

    def acknowledged(self, at_ms: int) -> None:
        self.acknowledged_ms.append(at_ms)


class Bench:
    def __init__(self) -> None:
        self.others: Any = Others()
        self.gate = Gate(1.0)
        self.dead: list[tuple[str, int]] = []
        self.changes = 0
        self.beat = Beat(
            self.others,
            self.others,
            {"shop": self.gate},
            {"shop": self.others},
            lambda peer, ms: self.dead.append((peer, ms)),
            self._changed,
        )

    def _changed(self) -> None:
        self.changes += 1

    async def due_in_s(self) -> float:
        """Beat, and return about when the next one is due."""
        await self.beat.run()
        now = time.monotonic()
        assert not self.beat.due(now)
        return next(ms / 100 for ms in range(1000) if self.beat.due(now + ms / 100))


async def test_it_beats_each_second_and_at_first_at_once() -> None:
    bench = Bench()
    assert bench.beat.due(time.monotonic())
    assert 0.9 < await bench.due_in_s() <= 1.01
    assert bench.others.acknowledged_ms == [1_234_500]


async def test_it_rests_until_it_is_due() -> None:
    bench = Bench()
    bench.others.error = ConnectionError()
    await bench.beat.run()
    await bench.beat.rest()
    assert bench.beat.due(time.monotonic() + 0.001)


async def test_a_dead_peer_is_told() -> None:
    bench = Bench()
    bench.others.dead = [("w2", 8100)]
    await bench.beat.run()
    assert bench.dead == [("w2", 8100)]


async def test_one_that_failed_comes_again_sooner(lines: list[Any]) -> None:
    bench = Bench()
    bench.others.error = ConnectionError()
    assert 0.2 < await bench.due_in_s() <= 0.26
    told = [(line["event"], line["during"], line["attempt"]) for line in lines]
    assert told == [("store_unreachable", "beating", 1)]
    assert (bench.changes, bench.others.acknowledged_ms) == (0, [])


async def test_a_server_of_another_run_is_told(lines: list[Any]) -> None:
    bench = Bench()
    bench.others.error = ServerChangedError()
    await bench.beat.run()
    assert bench.changes == 1
    assert len(lines) == 1


async def test_it_says_why_it_sends_nothing_of_an_app() -> None:
    bench = Bench()
    await bench.beat.run()
    bench.others.trouble = (5.0, "no token")
    await bench.beat.run()
    bench.gate.breaker.trouble, bench.gate.breaker.since = Trouble.NO_ANSWER, 7.0
    await bench.beat.run()
    assert bench.others.closed == [
        {},
        {"shop": (5.0, "no token")},
        {"shop": (7.0, Trouble.NO_ANSWER)},
    ]
