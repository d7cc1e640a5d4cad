"""Demand: which subscribe templates an app's broadcasts want, now and by habit.

Read from the active broadcasts and from the history of fourteen days, and kept in the process for
ten seconds, because every page view asks for it. Specs never change once stored, so each is read
once.
"""

import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from producers import keys
from producers.retry import repeat_all
from producers.settings import Settings
from producers.spec import Spec
from producers.store import Client
from producers.words import Channel, State

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
    """

    running: tuple[Wanted, ...]
    habit: Mapping[tuple[str, str], float]


class DemandTable:
    """The demand of every app, read anew every ten seconds. Safe to share between threads."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[float, Demand]] = {}
        self._specs: dict[str, tuple[str, str, str]] = {}

    def demand(self, app: str) -> Demand:
        """Return what the app's broadcasts want; at most ten seconds old.

        Raises:
            StoreUnavailableError: Redis did not answer.
        """
        kept = self._kept.get(app)
        if kept is not None and time.monotonic() - kept[0] < _FRESH_S:
            return kept[1]
        with self._lock:
            kept = self._kept.get(app)
            if kept is None or time.monotonic() - kept[0] >= _FRESH_S:
                kept = self._kept[app] = (time.monotonic(), self._read(app))
        return kept[1]

    def _read(self, app: str) -> Demand:
        def ask(pipeline: Any) -> None:
            pipeline.time()
            pipeline.zrevrange(keys.active(app), 0, -1)
            pipeline.zrevrange(keys.history(app), 0, _HABIT - 1, withscores=True)

        (seconds, _), active, history = repeat_all("reading the broadcasts", self._client, ask)
        since_ms = int(seconds) * 1000 - _HABIT_MS
        # single messages are for whom they are for: they say nothing of others
        active = [broadcast for broadcast in active if not keys.is_carrier(broadcast)]
        recent = [
            broadcast
            for broadcast, created_at_ms in history
            if created_at_ms >= since_ms and not keys.is_carrier(broadcast)
        ]
        states = self._read_homes(active, recent)
        running: list[Wanted] = []
        for broadcast in active:
            channel, template_id, audience = self._specs.get(broadcast, ("", "", ""))
            if channel == Channel.SUBSCRIBE and states.get(broadcast) in _WANT:
                running.append(Wanted(broadcast, template_id, audience))
        counts: Counter[tuple[str, str]] = Counter()
        for broadcast in recent:
            channel, template_id, audience = self._specs.get(broadcast, ("", "", ""))
            if channel == Channel.SUBSCRIBE:
                counts[template_id, audience] += 1
        habit = {pair: count / HABIT_WEEKS for pair, count in counts.most_common(_AUDIENCES)}
        return Demand(tuple(running[:_RUNNING]), habit)

    def _read_homes(self, active: list[str], recent: list[str]) -> dict[str, str]:
        """Learn the specs that are not known yet; return the states of the active ones."""
        if len(self._specs) > _REMEMBERED:
            self._specs.clear()
        unknown = list({one: None for one in (*active, *recent) if one not in self._specs})
        lanes = self._settings.lanes

        def ask(pipeline: Any) -> None:
            for broadcast in unknown:
                pipeline.hget(keys.home(keys.lane_of(broadcast, lanes), broadcast), "spec")
            for broadcast in active:
                pipeline.hget(keys.home(keys.lane_of(broadcast, lanes), broadcast), "state")

        answers = (
            repeat_all("reading the broadcasts", self._client, ask) if unknown or active else []
        )
        for broadcast, text in zip(unknown, answers, strict=False):
            if text is not None:
                spec = Spec.from_json(text)
                self._specs[broadcast] = (spec.channel, spec.template_id, spec.audience)
        return dict(zip(active, answers[len(unknown) :], strict=True))
