"""The limiter: slots, the moments at which sends may start, shared by all workers of an app.

See reserve.lua for what it guarantees. A worker reserves exactly as many slots as it has claims;
what was not granted is handed back, and the answer says when to come again. A lost reply loses at
most the slots of one batch (they pass unused), never the limit.

Own code, because the limiters of libraries say yes or no to one call: none hands out moments ahead,
spaced by the server's clock, within several limits at once.
"""

import time
from dataclasses import dataclass
from typing import Final, NamedTuple

from producers.settings import AppSettings
from producers.store import Client, keys
from producers.store.clock import now_ms
from producers.store.scripts import Call, Script
from producers.words import Channel

AHEAD_US = 400_000
"""A slot lies at most so far ahead; its sender holds a permit meanwhile."""


_HEAD: Final = 8
"""Values of an answer before the counts."""


class ReserveKeys(NamedTuple):
    """KEYS of reserve.lua; the limiters of broadcasts with a rate of their own follow."""

    reply: str
    limiter: str


class ReserveArgs(NamedTuple):
    """ARGV of reserve.lua; per further key two more."""

    rate: int
    per_minute: int
    per_day: int
    day_offset_ms: int
    unused: int
    ahead_us: int
    plain: int
    channel: str
    bounded: int = 1
    lead_us: int = 0


class PenalizeKeys(NamedTuple):
    """KEYS of penalize.lua."""

    limiter: str


class PenalizeArgs(NamedTuple):
    """ARGV of penalize.lua."""

    base_ms: int
    most_ms: int
    span_ms: int = 0
    minute: int = 0
    took_ms: int = 0
    rate: int = 0


RESERVE: Final = Script(__package__, "reserve", ReserveKeys, ReserveArgs, token=True, clock=True)
PENALIZE: Final = Script(__package__, "penalize", PenalizeKeys, PenalizeArgs, clock=True)


@dataclass(frozen=True, slots=True)
class Grant:
    """What reserve gave.

    Attributes:
        slots: per group (first the sends without a rate of their own, then each broadcast with
            one, in the order asked): monotonic seconds at which each send may start.
        wait_s: until more may be granted; 0 when all was granted, or the day is used up.
        level: how many limit errors of WeChat are in force, 0 = none.
        horizon: monotonic seconds of the app's next free slot.
        rate: sends per second as it is set; 0 = unlimited.
        limit: sends per second in force below that, since WeChat's limit errors; 0 = none.
        restored: it has just climbed back to the rate; told to one worker.
        spent_s: until the day ends, when it left the channel less than was wanted; else 0.
        server_ahead: server epoch seconds at monotonic 0, as late as they may be.
    """

    slots: list[list[float]]
    wait_s: float
    level: int
    horizon: float
    rate: float
    server_ahead: float = 0.0
    limit: float = 0.0
    restored: bool = False
    spent_s: float = 0.0


class Limiter:
    """Reserves slots for one worker; used by one thread at a time."""

    def __init__(self, client: Client, worker: str) -> None:
        self._client = client
        self._token = ""
        self._aheads: dict[str, tuple[float, float]] = {}
        self._script = RESERVE.on(client)
        self._worker = worker

    def call(
        self,
        alias: str,
        app: AppSettings,
        plain: int,
        own: dict[str, tuple[float, int]],
        unused: int,
        token: str,
        channel: str = Channel.SUBSCRIBE,
        lead_s: float = 0.0,
    ) -> Call:
        """Return the call that reserves slots for sends of one channel; `read` reads its answer.

        Args:
            alias: the app's alias.
            app: its settings.
            plain: sends of broadcasts without a rate of their own.
            own: broadcast → (its rate per second, sends).
            unused: slots of the channel's earlier grants that passed unused, for the day's count.
            token: the same token again returns the first answer.
            channel: which WeChat API they go by: each has a quota of its own.
            lead_s: no slot that ends is nearer than that.
        """
        limiters: list[str] = []
        rates: list[int] = []
        for broadcast, (rate, wanted) in own.items():
            limiters.append(keys.broadcast_limiter(alias, broadcast))
            rates += (max(1, round(rate * 1000)), wanted)
        return self._script.call(
            ReserveKeys(keys.limiter_reply(alias, self._worker), keys.limiter(alias)),
            ReserveArgs(
                rate=round(app.rate_per_second * 1000),
                per_minute=app.rate_per_minute,
                per_day=app.daily_limit,
                day_offset_ms=app.day_offset_ms(),
                unused=unused,
                ahead_us=AHEAD_US,
                plain=plain,
                channel=channel,
                bounded=int(app.read_quota),
                lead_us=round(lead_s * 1e6),
            ),
            rates,
            more_keys=limiters,
            token=token,
        )

    def read(
        self,
        call: Call,
        answer: list[str | int],
        groups: int,
        asked_at: float,
        given_at: float,
    ) -> Grant:
        """Read an answer that was surely given between two moments (monotonic s).

        Args:
            call: what was asked; of a cluster each app has its own server's clock.
            answer: of a call that was made once.
            groups: how many own rates it had, and one.
            asked_at: before it was sent.
            given_at: when it came.
        """
        clock = int(answer[0]) / 1e6
        self._aheads[call.keys[1]] = clock - given_at, clock - asked_at
        return _grant(answer, groups, given_at, clock - asked_at)

    def ask(self, call: Call, groups: int, *, again: bool) -> Grant:
        """Make a call alone.

        Args:
            call: see `call`.
            groups: as for `read`.
            again: it was made before, and its answer lost.

        Raises:
            redis.ConnectionError, redis.TimeoutError: the answer was lost.
        """
        asked_at = time.monotonic()
        answer = call.run()
        given_at = time.monotonic()
        if not again:
            return self.read(call, answer, groups, asked_at, given_at)
        # perhaps an old answer: its moments stay where they were
        aheads = self._aheads.get(call.keys[1])
        if aheads is None:
            clock = now_ms(self._client, call.keys[1]) / 1000
            aheads = self._aheads[call.keys[1]] = clock - time.monotonic(), clock - given_at
        return _grant(answer, groups, int(answer[0]) / 1e6 - aheads[0], aheads[1])

    def reserve(
        self,
        alias: str,
        app: AppSettings,
        plain: int,
        own: dict[str, tuple[float, int]],
        unused: int,
        token: str,
        channel: str = Channel.SUBSCRIBE,
    ) -> Grant:
        """Reserve slots at once; as `call`, and raises as `ask`."""
        again, self._token = token == self._token, token
        call = self.call(alias, app, plain, own, unused, token, channel)
        return self.ask(call, 1 + len(own), again=again)


class Blow(NamedTuple):
    """What a limit error did.

    Attributes:
        until_ms: until when everyone is held back, server epoch ms; 0 = not at all.
        level: errors in a row that are in force.
        before, after: sends per second that the app may start, before and after, if that was
            lowered, else both 0; before 0, after more: there was no limit at all.
    """

    until_ms: int
    level: int
    before: float
    after: float


class Penalty:
    """Holds everyone back after a limit error of WeChat, and lets them go again."""

    def __init__(self, client: Client) -> None:
        self._penalize = PENALIZE.on(client)

    async def hit(
        self,
        alias: str,
        rate: float,
        base_ms: int,
        most_ms: int,
        span_ms: int = 0,
        *,
        minute: bool = False,
        took_ms: float = 0,
    ) -> Blow:
        """Record a limit error.

        Args:
            alias: the app's alias.
            rate: its sends per second, unless another one was set live; 0 = unlimited.
            base_ms: how long everyone is held back by the first of several in a row.
            most_ms: the longest wait.
            span_ms: the app's limit is lowered, and climbs back in spans of so long (climb.lua);
                0: the error says nothing of the pace.
            minute: what is used up is a minute.
            took_ms: from the send's start to its answer.
        """
        until_ms, level, before, after = await self._penalize(
            PenalizeKeys(keys.limiter(alias)),
            PenalizeArgs(
                base_ms,
                most_ms,
                span_ms,
                int(minute),
                max(0, round(took_ms)),
                round(rate * 1000),
            ),
        )
        return Blow(int(until_ms), int(level), int(before) / 1000, int(after) / 1000)

    async def lift(self, alias: str) -> int:
        """Record that WeChat accepts again; returns the level that is left."""
        answer = await self._penalize(PenalizeKeys(keys.limiter(alias)), PenalizeArgs(0, 0))
        return int(answer[1])


def _grant(answer: list[str | int], groups: int, now: float, server_ahead: float) -> Grant:
    """Turn an answer in server microseconds into monotonic seconds; it was given at `now`."""
    now_us, wait_ms, level, horizon_us, rate, limit, restored, spent = map(int, answer[:_HEAD])
    counts = [int(count) for count in answer[_HEAD : _HEAD + groups]]
    every = [now + (int(slot) - now_us) / 1e6 for slot in str(answer[-1]).split()]
    slots, place = [], 0
    for count in counts:
        slots.append(every[place : place + count])
        place += count
    horizon = now + (horizon_us - now_us) / 1e6
    return Grant(
        slots,
        wait_ms / 1000,
        level,
        horizon,
        rate / 1000,
        server_ahead,
        limit / 1000,
        restored == 1,
        spent / 1000,
    )
