"""Demand: which subscribe templates an app's broadcasts want, now and by habit.

Read from the active broadcasts and from the history of fourteen days, and kept in the process for
ten seconds, because every page view asks for it. Specs never change once stored, and states not
once they have ended, so each is read once.
"""

import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import orjson

from producers.settings import Settings
from producers.store import Client, deadline, keys
from producers.store.clock import ms_of
from producers.store.lanes.following import steady
from producers.store.retry import gave_up, repeat_all
from producers.words import ENDED, Channel, State

HABIT_WEEKS: Final = 2
"""Weeks of broadcasts that make a habit."""

_FRESH_S: Final = 10.0
_HABIT: Final = 1000
"""Newest broadcasts that a habit is made of."""
_RUNNING: Final = 50
"""Newest active broadcasts that are looked at for each user."""
_AUDIENCES: Final = 50
"""Audiences whose habits are looked at for each user, the most used ones."""
_REMEMBERED: Final = 5000
_HABIT_MS: Final = HABIT_WEEKS * 7 * 24 * 3_600_000
_WANT: Final = frozenset({State.RUNNING, State.PAUSED, State.SCHEDULED})
_STOPPED: Final = frozenset({State.ABORTED, State.PAUSED})
_UNKNOWN: Final = frozenset({40037, 43102, 43107})
"""WeChat's words on a template that it does not know, that is none of subscriptions, or banned."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A broadcast that is under way."""

    broadcast: str
    template_id: str
    audience: str


@dataclass(frozen=True, slots=True)
class Demand:
    """What an app's broadcasts want.

    Attributes:
        running: subscribe broadcasts that run, are paused or scheduled, the newest first.
        habit: (template_id, audience) → broadcasts per week.
        messages: templates of single messages lately.
        unknown: templates whose newest broadcast, or carrier, WeChat stopped as unknown.
    """

    running: tuple[Wanted, ...]
    habit: Mapping[tuple[str, str], float]
    messages: frozenset[str]
    unknown: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Known:
    """What is kept of a broadcast; its state and errcode too once it has ended."""

    channel: str = ""
    template_id: str = ""
    audience: str = ""
    state: str = ""
    errcode: int = 0

    @classmethod
    def of_spec(cls, text: str) -> Self:
        """Read the three fields of a stored spec that say what is asked for."""
        spec: dict[str, str] = orjson.loads(text)
        return cls(spec["channel"], spec["template_id"], spec["audience"])

    @property
    def subscribes(self) -> bool:
        return self.channel == Channel.SUBSCRIBE

    @property
    def is_unknown(self) -> bool:
        """Whether WeChat stopped it for its template."""
        return self.state in _STOPPED and self.errcode in _UNKNOWN


class DemandTable:
    """The demand of every app, read anew every ten seconds. Safe to share between threads."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._reading = threading.Lock()
        self._kept: dict[str, tuple[float, Demand]] = {}
        self._known: dict[str, _Known] = {}

    def demand(self, app: str) -> Demand:
        """Return what the app's broadcasts want; at most ten seconds old.

        One caller reads it anew at a time. The others take what is there, however old it gets while
        Redis is silent; where nothing is there yet they wait until their own deadline.

        Raises:
            StoreUnavailableError: Redis did not answer.
        """
        kept = self._kept.get(app)
        if kept is not None and time.monotonic() - kept[0] < _FRESH_S:
            return kept[1]
        if not self._begin(waits=kept is None):
            if kept is not None:
                return kept[1]
            raise gave_up("reading the broadcasts")
        try:
            kept = self._kept.get(app)
            if kept is None or time.monotonic() - kept[0] >= _FRESH_S:
                kept = self._kept[app] = (time.monotonic(), self._read(app))
        finally:
            self._reading.release()
        return kept[1]

    def _begin(self, *, waits: bool) -> bool:
        """Say whether this caller is the one who reads."""
        left_s = deadline.left_s()
        if not waits:
            return self._reading.acquire(blocking=False)
        return self._reading.acquire(timeout=-1 if left_s is None else max(left_s, 0))

    def _read(self, app: str) -> Demand:
        def ask(pipeline: Any) -> None:
            pipeline.time()
            pipeline.zrevrange(keys.active(app), 0, -1)
            pipeline.zrevrange(keys.history(app), 0, _HABIT - 1, withscores=True)

        clock, active, history = repeat_all("reading the broadcasts", self._client, ask)
        since_ms = ms_of(clock) - _HABIT_MS
        recent = [broadcast for broadcast, created_at_ms in history if created_at_ms >= since_ms]
        found = self._read_homes(list(dict.fromkeys((*active, *recent))))
        running: list[Wanted] = []
        for broadcast in active:
            one = found[broadcast]
            # single messages are for whom they are for: they say nothing of others
            if one.subscribes and one.state in _WANT and not keys.is_carrier(broadcast):
                running.append(Wanted(broadcast, one.template_id, one.audience))
        counts: Counter[tuple[str, str]] = Counter()
        messages: set[str] = set()
        newest: dict[str, _Known] = {}
        for broadcast in recent:
            one = found[broadcast]
            if not one.subscribes or keys.is_test_carrier(broadcast):
                continue
            newest.setdefault(one.template_id, one)
            if keys.is_carrier(broadcast):
                messages.add(one.template_id)
            elif not keys.is_beside(one.audience):  # a retry repeats, and makes no habit
                counts[one.template_id, one.audience] += 1
        return Demand(
            running=tuple(running[:_RUNNING]),
            habit={pair: count / HABIT_WEEKS for pair, count in counts.most_common(_AUDIENCES)},
            messages=frozenset(messages),
            unknown=frozenset(name for name, one in newest.items() if one.is_unknown),
        )

    @steady
    def _read_homes(self, broadcasts: list[str]) -> dict[str, _Known]:
        """Return what is known of each broadcast, as it is now."""
        if len(self._known) > _REMEMBERED:
            self._known.clear()
        moving = [one for one in broadcasts if self._state(one) not in ENDED]
        layout = self._settings.layout

        def ask(pipeline: Any) -> None:
            for broadcast in moving:
                fields = ["state", "errcode"] + (["spec"] if broadcast not in self._known else [])
                pipeline.hmget(keys.home(layout.home_of(broadcast), broadcast), fields)

        answers = repeat_all("reading the broadcasts", self._client, ask) if moving else []
        for broadcast, (state, errcode, *text) in zip(moving, answers, strict=True):
            known = self._known.get(broadcast, _Known())
            if text and text[0] is not None:
                known = _Known.of_spec(text[0])
            if known.channel:
                self._known[broadcast] = replace(
                    known, state=state or "", errcode=int(errcode or 0)
                )
        return {one: self._known.get(one, _Known()) for one in broadcasts}

    def _state(self, broadcast: str) -> str:
        return self._known.get(broadcast, _Known()).state
