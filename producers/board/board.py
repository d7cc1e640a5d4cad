"""The board: what a whole deployment is doing at one moment, in a bounded number of trips.

A look costs six trips to Redis, whatever the number of apps and broadcasts; of the apps it reads
what lies in a few hashes, of the broadcasts those that run, wait or ended last, `MOST` at the most.
Stocks change slowly and cost the most, so they are read again only after a while.

Nothing is stored, and nothing of a user is shown.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from producers.broadcasts import Broadcasts
from producers.broadcasts.status import Status
from producers.care import roster
from producers.care.roster import Roster
from producers.permits.ledger import Uses
from producers.quotas.rates import Rates
from producers.settings import Settings
from producers.store import Client, keys
from producers.store.clock import ms_of
from producers.store.lanes.following import steady
from producers.store.retry import repeat_all
from producers.words import ENDED, KIND_OF, State

MOST: Final = 200
"""Broadcasts on a board; how many more there are stands beside them."""

_EACH: Final = 50
"""Ids of one app that are read; who has a place goes by turns, so no app takes the others'."""

_STOCKS_S: Final = 10.0
"""Stocks are read anew after so long."""

_HOUR_MS: Final = 3_600_000


@dataclass(frozen=True, slots=True)
class AppLine:
    """What one app is doing.

    Attributes:
        app: its alias.
        running, paused, scheduled: broadcasts in these states; carriers of single messages too.
        sending: answered sends per second, over the last seconds, of what is on the board.
        rate: sends per second that it may start; 0: unlimited.
        uses: where the uses of its permits are.
        ending: uses that end within the hour, within a day, within 7 days, later or never.
        aside: messages that outlived their workers too often.
        token_s: seconds until its access token ends; 0: there is none.
        hindered: why nothing of it is sent, and what to do; '' when workers are there.
    """

    app: str
    running: int
    paused: int
    scheduled: int
    sending: float
    rate: float
    uses: Uses
    ending: dict[str, int]
    aside: int
    token_s: float
    hindered: str

    def as_dict(self) -> dict[str, Any]:
        """Return the line as JSON-ready fields."""
        mine = {name: getattr(self, name) for name in self.__slots__}
        return {**mine, "uses": self.uses.as_dict()}


@dataclass(frozen=True, slots=True)
class Board:
    """What a deployment is doing.

    Attributes:
        at_ms: server epoch ms.
        apps: by alias.
        broadcasts: those that move or wait first, the newest first; then those that ended.
        left_out: broadcasts that run or wait and have no place on it.
        workers: who works.
        scripts: how many Redis ran since its start, and for how long (s).
    """

    at_ms: int
    apps: list[AppLine]
    broadcasts: list[Status]
    left_out: int
    workers: Roster
    scripts: tuple[int, float] = (0, 0.0)

    def as_dict(self) -> dict[str, Any]:
        """Return the board as JSON-ready fields."""
        return {
            "at_ms": self.at_ms,
            "apps": [line.as_dict() for line in self.apps],
            "broadcasts": [one.as_dict() for one in self.broadcasts],
            "left_out": self.left_out,
            "workers": {
                "alive": self.workers.workers,
                "closed": [
                    {name: getattr(one, name) for name in one.__slots__}
                    for one in self.workers.closed
                ],
            },
        }


@dataclass(frozen=True, slots=True)
class _Stock:
    """An app's permits, as they were read last."""

    uses: Uses
    ending: dict[str, int]


class _Listed(NamedTuple):
    """What one trip tells beside the workers.

    Attributes:
        at_ms: server epoch ms.
        ids: broadcasts that have a place.
        left_out: how many that run or wait have none.
        tokens: app → seconds until its access token ends.
        scripts: how many Redis ran since its start, and for how long (s).
    """

    at_ms: int
    ids: list[str]
    left_out: int
    tokens: dict[str, float]
    scripts: tuple[int, float]


_NONE: Final = _Stock(Uses(), {})
HORIZONS: Final = {"1h": 1, "24h": 24, "7d": 168}
"""Names of the times within which uses end → hours from now."""
LATER: Final = "later"
"""Uses that end after all of them, or never."""


class Boards:
    """Looks at a deployment. Safe to share between threads."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._broadcasts = Broadcasts(client, settings)
        self._rates = Rates(client, settings)
        self._reading = threading.Lock()
        self._stocks: dict[str, _Stock] = {}
        self._stocks_at = float("-inf")

    def look(self, apps: Sequence[str] | None = None) -> Board:
        """Return what these apps are doing now; default: all of them.

        Raises:
            UnknownAppError: no such app.
            StoreUnavailableError: Redis did not answer.
        """
        wanted = list(self._settings.apps) if apps is None else list(apps)
        for app in wanted:
            self._settings.app(app)
        workers = roster.look(self._client)
        listed = self._listed(wanted)
        statuses = sorted(
            self._broadcasts.statuses(listed.ids),
            key=lambda one: (one.state in ENDED, -one.created_at_ms, one.id),
        )
        rates = self._rates.all(wanted)
        stocks = self._stocked(wanted, listed.at_ms)
        lines = [
            _line(
                app,
                [one for one in statuses if one.app == app],
                rates[app],
                stocks.get(app, _NONE),
                listed.tokens[app],
                workers,
            )
            for app in wanted
        ]
        return Board(listed.at_ms, lines, statuses, listed.left_out, workers, listed.scripts)

    def _listed(self, apps: list[str]) -> "_Listed":
        """Return what one trip tells beside the workers."""

        def ask(pipeline: Any) -> None:
            pipeline.time()
            pipeline.info("commandstats")
            for app in apps:
                pipeline.pttl(keys.token(app))
                pipeline.zcard(keys.active(app))
                pipeline.zrevrange(keys.active(app), 0, _EACH - 1)
                pipeline.zrevrange(keys.history(app), 0, _EACH - 1)

        clock, stats, *answers = repeat_all("looking at the board", self._client, ask)
        lives = {app: max(0, ms) / 1000 for app, ms in zip(apps, answers[0::4], strict=True)}
        moving = [list(ids) for ids in answers[2::4]]
        ended = [
            [one for one in ids if one not in set(active)]
            for ids, active in zip(answers[3::4], moving, strict=True)
        ]
        placed = _in_turns(moving, MOST)
        left_out = max(0, sum(answers[1::4]) - len(placed))
        ids = placed + _in_turns(ended, MOST - len(placed))
        return _Listed(ms_of(clock), ids, left_out, lives, _scripts(stats))

    def _stocked(self, apps: list[str], now_ms: int) -> dict[str, _Stock]:
        with self._reading:
            known = all(app in self._stocks for app in apps)
            if not known or time.monotonic() - self._stocks_at > _STOCKS_S:
                self._stocks = self._read_stocks(list({*apps, *self._stocks}), now_ms)
                self._stocks_at = time.monotonic()
            return self._stocks

    @steady
    def _read_stocks(self, apps: list[str], now_ms: int) -> dict[str, _Stock]:
        lanes = self._settings.layout.lanes

        def ask(pipeline: Any) -> None:
            for app in apps:
                for lane in lanes:
                    pipeline.hgetall(keys.stock(lane, app))
                    pipeline.hgetall(keys.ledger(lane, app))

        answers = repeat_all("reading stocks", self._client, ask) if apps else []
        each = 2 * len(lanes)
        return {
            app: _stock(answers[place * each : (place + 1) * each], now_ms)
            for place, app in enumerate(apps)
        }


def _scripts(stats: dict[str, dict[str, float]]) -> tuple[int, float]:
    """Return how many scripts Redis ran, and for how long (s)."""
    found = [stats.get(f"cmdstat_{name}", {}) for name in ("evalsha", "eval")]
    calls, spent_us = (sum(one.get(name, 0) for one in found) for name in ("calls", "usec"))
    return int(calls), spent_us / 1e6


def _in_turns(lists: list[list[str]], most: int) -> list[str]:
    """Return the first of each list, then the second of each, until there are enough."""
    taken: list[str] = []
    for place in range(max(map(len, lists), default=0)):
        taken += [one[place] for one in lists if len(one) > place]
        if len(taken) >= most:
            break
    return taken[: max(0, most)]


def _stock(hashes: Sequence[dict[str, str]], now_ms: int) -> _Stock:
    """Sum an app's stocks and ledgers, lane by lane."""
    uses, ending = Uses(), dict.fromkeys((*HORIZONS, LATER), 0)
    hour_now = now_ms // _HOUR_MS
    for stock in hashes[0::2]:
        for name, count in stock.items():
            if not KIND_OF.get(name[0]):  # u:HOUR counts users, not uses
                continue
            uses = uses.plus(available=int(count))
            hours = int(name[2:]) - hour_now if name[0] != "s" else None
            within = (
                LATER
                if hours is None
                else next((word for word, most in HORIZONS.items() if hours < most), LATER)
            )
            ending[within] += int(count)
    for ledger in hashes[1::2]:
        for name, count in ledger.items():
            uses = uses.plus(**{name.partition(":")[0]: int(count)})
    return _Stock(uses, ending)


def _line(
    app: str,
    statuses: list[Status],
    rate: float,
    stock: _Stock,
    token_s: float,
    workers: Roster,
) -> AppLine:
    return AppLine(
        app=app,
        running=sum(one.state is State.RUNNING for one in statuses),
        paused=sum(one.state is State.PAUSED for one in statuses),
        scheduled=sum(one.state is State.SCHEDULED for one in statuses),
        sending=round(sum(one.rate for one in statuses), 1),
        rate=rate,
        uses=stock.uses,
        ending=stock.ending,
        aside=sum(one.aside for one in statuses),
        token_s=token_s,
        hindered=workers.hinders(app),
    )
