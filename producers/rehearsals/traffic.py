"""Traffic: what an app has under way, and what its limits leave it."""

import math
from dataclasses import dataclass, replace
from typing import Any, Final

from producers.broadcasts.spec import Spec
from producers.quotas import AppLimits, Quota, Quotas
from producers.rehearsals.course import NEVER_MS, Road, Runner
from producers.settings import Settings, kept_rate
from producers.store import Client, keys
from producers.store.clock import ms_of
from producers.store.lanes.following import reading
from producers.store.retry import repeat_all
from producers.words import Outcome, State

MOST: Final = 200
"""Newest broadcasts under way that are looked at; where there are more, they stand for the rest."""

_HOME: Final = (
    *("state", "spec", "rate", "weight"),
    *("audience_size", "starts_at_ms", "expires_at_ms"),
)
_NO_SEND: Final = (Outcome.NO_PERMIT, Outcome.SUPPRESSED, Outcome.KEPT, Outcome.CAPPED)
_TELLS: Final = 100
"""Recipients settled from which on a broadcast tells which share of the rest costs a send."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What an app's broadcasts share at one moment, and who is under way.

    Attributes:
        now_ms: the moment, server epoch ms.
        road: what they share.
        others: those under way or scheduled, single messages left out.
        running: how many of them run now.
        waiting: recipients of these that have no outcome yet.
        slowed_to: sends per second that WeChat's limit errors left of the rate; 0: all of it.
        limits: what the app may send, whole.
    """

    now_ms: int
    road: Road
    others: list[Runner]
    running: int
    waiting: int
    slowed_to: float
    limits: AppLimits


def look(client: Client, settings: Settings, alias: str, channel: str) -> Traffic:
    """Return what an app has under way now.

    Raises:
        UnknownAppError: no such app.
        StoreUnavailableError: Redis did not answer.
    """
    app = settings.app(alias)
    limits = Quotas(client, settings).limits(alias)

    def ask(pipeline: Any) -> None:
        pipeline.time()
        pipeline.zrevrange(keys.active(alias), 0, -1)

    clock, active = repeat_all("reading the broadcasts", client, ask)
    at_most = [one for one in (limits.in_force, app.rate_per_minute / 60) if one]
    quotas = [one for one in (app.daily_limit, limits.quotas.get(channel, Quota()).limit) if one]
    left = limits.left(channel)
    road = Road(
        rate=min(at_most, default=math.inf),
        window=settings.window_of(alias),
        day_left=math.inf if left is None else left,
        per_day=min(quotas, default=math.inf),
        day_ends_at_ms=limits.resets_at_ms,
    )
    broadcasts = [one for one in active if not keys.is_carrier(one)]
    scale = max(1.0, len(broadcasts) / MOST)
    some = broadcasts[:MOST]
    found = reading(client, settings, lambda: _read(client, settings, some))
    running = [(one, waiting) for one, waiting, runs in found if runs]
    return Traffic(
        now_ms=ms_of(clock),
        road=road,
        others=[_times(one, scale) for one, _, _ in found],
        running=round(len(running) * scale),
        waiting=round(sum(waiting for _, waiting in running) * scale),
        slowed_to=limits.limit,
        limits=limits,
    )


def _read(
    client: Client, settings: Settings, broadcasts: list[str]
) -> list[tuple[Runner, int, bool]]:
    """Return of each that has anything to send: what, its recipients yet to come, if it runs."""
    layout = settings.layout

    def ask(pipeline: Any) -> None:
        for one in broadcasts:
            home = keys.home(layout.home_of(one), one)
            pipeline.hmget(home, _HOME)
            for lane in layout.lanes:
                pipeline.hmget(
                    keys.lane_broadcast(lane, one),
                    "total",
                    "done",
                    "split",
                    *(f"o:{word}" for word in _NO_SEND),
                )

    answers = repeat_all("reading broadcasts", client, ask) if broadcasts else []
    found = []
    for place in range(0, len(answers), len(layout.lanes) + 1):
        home, copies = answers[place], answers[place + 1 : place + 1 + len(layout.lanes)]
        runner, waiting = _runner(home, copies)
        if home[0] in {State.RUNNING, State.SCHEDULED} and waiting > 0:
            found.append((runner, waiting, home[0] == State.RUNNING))
    return found


def _times(one: Runner, scale: float) -> Runner:
    """Return what stands for so many of a kind."""
    return replace(one, sends=one.sends * scale, rate=one.rate * scale, weight=one.weight * scale)


def _runner(home: list[str | None], copies: list[list[str | None]]) -> tuple[Runner, int]:
    _, text, rate, weight, size, starts_at_ms, expires_at_ms = home
    if text is None:
        return Runner(0), 0
    spec = Spec.from_json(text)
    total, done = (sum(int(copy[n] or 0) for copy in copies) for n in (0, 1))
    is_split = all(copy[2] == "done" for copy in copies)
    waiting = (total if is_split else max(total, int(size or 0))) - done
    silent = sum(int(count or 0) for copy in copies for count in copy[3:])
    share = (done - silent) / done if done >= _TELLS else 1.0
    own = kept_rate(float(rate)) if rate is not None else spec.rate
    runner = Runner(
        sends=waiting * share,
        rate=own or math.inf,
        starts_at_ms=int(starts_at_ms or 0),
        expires_at_ms=int(expires_at_ms or 0) or NEVER_MS,
        priority=spec.priority,
        weight=int(weight or spec.weight),
    )
    return runner, waiting
