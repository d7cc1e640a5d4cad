"""Peers: who lives. A beat a second from the event loop, so a wedged loop counts as dead.

A worker calls a peer dead only after it has itself beaten for a whole lease and seen that peer's
beat stand still all the while; time in which its own beats did not come does not count. After a
pause of Redis everybody's beats stood still, its own too, so nobody is buried alive.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from producers.settings import Apps
from producers.store import Client, keys
from producers.store.scripts import Script

LEASE_S: Final = 8.0
"""Longer than a claim's life plus the beat: who was buried has nothing left to post."""

BEAT_S: Final = 1.0
_APPS_EVERY_S: Final = 20.0
"""How often a worker says which apps it knows; what it said is good for a minute."""

_APPS_TTL_MS: Final = 60_000
_CLOSED_TTL_MS: Final = 10_000

_GAP_S: Final = 3.0
"""A longer pause between two of its own beats does not count as silence of the others."""


class BeatKeys(NamedTuple):
    """KEYS of beat.lua and of leave.lua."""

    workers: str
    seen: str


class BeatArgs(NamedTuple):
    """ARGV of beat.lua, which is told of the dead, and of leave.lua."""

    worker: str


BEAT: Final = Script(__package__, "beat", BeatKeys, BeatArgs, clock=True)
LEAVE: Final = Script(__package__, "leave", BeatKeys, BeatArgs, clock=True)

_KEYS: Final = BeatKeys(keys.WORKERS, keys.SEEN)


@dataclass(slots=True)
class _Peer:
    beat_ms: float
    still_since: float


class Peers:
    """This worker's beat, and its view of the others; belongs to one event loop."""

    def __init__(self, client: Client, worker: str, apps: Apps | None = None) -> None:
        self._client = client
        self._apps = Apps() if apps is None else apps
        self._said: object = None
        self._apps_at = float("-inf")
        self._beat = BEAT.on(client)
        self._leave = LEAVE.on(client)
        self._worker = worker
        self._seen: dict[str, _Peer] = {}
        self._last = 0.0
        self._dead: dict[str, float] = {}
        self._server_ahead = 0.0
        self._told_closed = False

    def server_time(self) -> float:
        """Return epoch seconds by the Redis server's clock, whatever this host's says."""
        return time.monotonic() + self._server_ahead

    @property
    def alive(self) -> int:
        """How many workers there are, this one included; 0 until it has beaten once."""
        return len(self._seen) + 1 if self._last else 0

    async def beat(self, now: float | None = None) -> list[tuple[str, int]]:
        """Beat once.

        Args:
            now: monotonic seconds; tests pass their own.

        Returns:
            The peers that are dead: (worker, ms of silence).

        Raises:
            redis.RedisError: Redis did not answer.
        """
        now = time.monotonic() if now is None else now
        dead: list[str] = []
        for name, beat_ms in self._dead.items():
            dead += (name, f"{beat_ms:.0f}")
        answer = await self._beat(_KEYS, BeatArgs(self._worker), dead)
        apps = self._apps.now
        if now - self._apps_at >= _APPS_EVERY_S or apps is not self._said:
            said = " ".join((*apps, f"#{self._apps.digest}"))
            await self._client.set(keys.worker_apps(self._worker), said, px=_APPS_TTL_MS)
            self._apps_at, self._said = now, apps
        gap = now - self._last
        if gap > _GAP_S:
            # nobody could beat meanwhile: a peer's silence counts only while this one's beats came
            for watched in self._seen.values():
                watched.still_since += gap
        self._dead, self._last = {}, now
        self._server_ahead = int(answer[0]) / 1000 - time.monotonic()
        rows = dict(zip(answer[1::2], map(float, answer[2::2]), strict=True))
        rows.pop(self._worker, None)
        self._seen = {
            peer: seen
            if (seen := self._seen.get(peer)) and seen.beat_ms == beat
            else _Peer(beat, now)
            for peer, beat in rows.items()
        }
        return [
            (peer, round((now - seen.still_since) * 1000))
            for peer, seen in self._seen.items()
            if now - seen.still_since >= LEASE_S
        ]

    def bury(self, peer: str) -> None:
        """Remove a dead peer with the next beat, unless it has beaten meanwhile."""
        seen = self._seen.get(peer)
        if seen:
            self._dead[peer] = seen.beat_ms

    async def tell_closed(self, gates: Mapping[str, tuple[float, str]]) -> None:
        """Say which gates this worker closed by itself; nothing is written while there are none.

        Args:
            gates: app → (monotonic seconds since when, why).
        """
        if not gates and not self._told_closed:
            return
        key = keys.closed_gates(self._worker)
        said = {
            app: f"{round((since + self._server_ahead) * 1000)} {why}"
            for app, (since, why) in gates.items()
        }
        pipeline = self._client.pipeline(transaction=False)
        pipeline.delete(key)
        if said:
            pipeline.hset(key, mapping=said)
            pipeline.pexpire(key, _CLOSED_TTL_MS)
        await pipeline.execute()
        self._told_closed = bool(said)

    async def leave(self) -> None:
        """Say that this worker is gone, with nothing in its hands."""
        await self._leave(_KEYS, BeatArgs(self._worker))
