"""Status: what a broadcast is doing, read from its home and summed over its lanes."""

import contextlib
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, NamedTuple

from producers.broadcasts.pace import Pace, Progress, measure
from producers.broadcasts.spec import MAX_LIFE, Spec, weight_faults
from producers.broadcasts.timing import waits_for
from producers.errors import InvalidInputError, NotFoundError, StoreUnavailableError
from producers.quotas import AppLimits, Quotas
from producers.settings import Settings, ms
from producers.store import Client, deadline, keys
from producers.store.clock import ms_of
from producers.store.lanes.following import steady
from producers.store.retry import repeat, repeat_all
from producers.words import ENDED, Outcome, State

MOST: Final = 1000
"""Broadcasts on one page of a list."""

_CURSOR: Final = re.compile(r"([0-9]{1,16})\.([0-9a-z]{1,64})")
_NO_SEND: Final = (
    Outcome.NO_PERMIT,
    Outcome.CANCELLED,
    Outcome.LATE,
    Outcome.SUPPRESSED,
    Outcome.KEPT,
    Outcome.CAPPED,
)

_PER_LANE: Final = 5
"""Answers per lane that a status is made of."""
_BESIDE_S: Final = 0.5
"""How long what may be left out is waited for, where a node is away."""


@dataclass(frozen=True, slots=True)
class Status:
    """What a broadcast is doing.

    Attributes:
        id, app, channel, template_id, audience: what it is.
        state: its state.
        total: recipients so far; of an ended one, all of them.
        expected: members of the audience when it was created.
        settled: recipients that have an outcome.
        outcomes: outcome → recipients, without zeros.
        errcodes: WeChat's errcode → answers, without 0.
        queued, delayed, in_flight: messages now; a resumed one counts as queued or delayed too.
        aside: messages that outlived their workers too often and wait for an operator.
        reason, errcode: why it was paused or aborted, or '' and 0.
        created_at_ms, ended_at_ms: server epoch ms; 0 while not ended.
        complete: every recipient has its outcome, and nothing more will change.
        rate: answered sends per second, over the last seconds; 0 unless it runs.
        starts_at_ms: when it starts, or started, if it was scheduled; else 0. Server epoch ms.
        expires_at_ms: when the rest is late, server epoch ms.
        waiting: what it waits for by itself, in words (its start, the app's send window, the next
            day), or ''.
        opens_at_ms: when that window opens, or the next day begins that it waits for, server epoch
            ms; 0 while it waits for neither.
        eta_s: seconds until the last recipient has an outcome, at this pace; None when nobody
            knows (it does not run, nobody works, or it has just begun).
        retry_of: of a retry, the broadcast whose recipients it is for again, else ''.
        retry_for: of a retry, which of them: outcomes, and errcodes if they were named.
        family: the first broadcast and its retries, in their order; none: it was never retried.
        weight: how many sends it gets while another one of weight 1 gets one.
        purpose: what it is for, by which users may have a cap a day; '': none.
        limit: sends per second that WeChat's limit errors left of the app's rate; 0: all of it.
        day_left: sends that today leaves to its channel, by WeChat's quota or daily_limit; None:
            no limit is known.
        carry_over: what today cannot carry goes on by itself the next day; else it is paused then.
        note: what today cannot carry of it, in words, or ''.
    """

    id: str
    app: str
    channel: str
    template_id: str
    audience: str
    state: State
    total: int
    expected: int
    settled: int
    outcomes: dict[str, int]
    errcodes: dict[str, int]
    queued: int
    delayed: int
    in_flight: int
    aside: int
    reason: str
    errcode: int
    created_at_ms: int
    ended_at_ms: int
    complete: bool
    rate: float = 0.0
    eta_s: int | None = None
    retry_of: str = ""
    retry_for: str = ""
    family: list[str] = field(default_factory=list)
    starts_at_ms: int = 0
    expires_at_ms: int = 0
    waiting: str = ""
    opens_at_ms: int = 0
    weight: int = 1
    purpose: str = ""
    limit: float = 0.0
    day_left: int | None = None
    carry_over: bool = False
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the status as JSON-ready fields."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class StatusPage:
    """One page of an app's broadcasts.

    Attributes:
        broadcasts: the newest first.
        cursor: of the next page; '' when this is the last.
    """

    broadcasts: list[Status]
    cursor: str

    def as_dict(self) -> dict[str, Any]:
        """Return the page as JSON-ready fields."""
        return {"broadcasts": [one.as_dict() for one in self.broadcasts], "cursor": self.cursor}


class Register:
    """The broadcasts of every app, to be looked at. Safe to share between threads."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._quotas = Quotas(client, settings)

    @steady
    def status(self, broadcast: str, without: frozenset[int] = frozenset()) -> Status:
        """Return what a broadcast is doing now.

        Args:
            broadcast: its id.
            without: as of `statuses`; where its home is among them, this raises.

        Raises:
            NotFoundError: no such broadcast, or its retention is over.
            StoreUnavailableError: Redis did not answer.
        """
        if self.home_lane(broadcast) in without:
            self._home(broadcast)
        found = self.statuses([broadcast], without)
        if not found:
            raise _not_found(broadcast)
        return found[0]

    def page(
        self, app: str, cursor: str = "", limit: int = 20, without: frozenset[int] = frozenset()
    ) -> StatusPage:
        """Return one page of the app's broadcasts, the newest first.

        What carries single messages is among them, with no audience: a day's sums of a template.

        A broadcast that is created while somebody turns the pages comes before them all, and does
        not move them: each of the others comes exactly once.

        Args:
            app: alias of the app.
            cursor: of a page before; '' for the first.
            limit: 1 to 1,000 broadcasts.
            without: as of `statuses`.

        Raises:
            UnknownAppError: no such app.
            InvalidInputError: the cursor or the limit is none.
            StoreUnavailableError: Redis did not answer.
        """
        self._settings.app(app)
        if not 1 <= limit <= MOST:
            raise InvalidInputError([f"limit {limit}: 1 to {MOST:,}"])
        before = _CURSOR.fullmatch(cursor) if cursor else None
        if cursor and before is None:
            raise InvalidInputError(["cursor: give the one that the page before ended with"])
        # several may have one millisecond: those that the last page showed are passed over
        highest = before[1] if before else "+inf"
        listed: list[tuple[str, int]] = []
        offset = 0
        while len(listed) <= limit:
            some = self._listed(app, highest, offset, limit + 1)
            offset += len(some)
            listed += [one for one in some if before is None or _is_older(one, before)]
            if len(some) <= limit:
                break
        shown = listed[:limit]
        following = f"{shown[-1][1]}.{shown[-1][0]}" if len(listed) > limit else ""
        ids = [broadcast for broadcast, _ in shown]
        return StatusPage(self.statuses(ids, without), following)

    def _listed(self, app: str, highest: str, offset: int, most: int) -> list[tuple[str, int]]:
        rows = repeat(
            "listing broadcasts",
            lambda: self._client.zrevrangebyscore(
                keys.history(app), highest, "-inf", start=offset, num=most, withscores=True
            ),
        )
        return [(broadcast, int(created_at_ms)) for broadcast, created_at_ms in rows]

    @steady
    def statuses(
        self, broadcasts: Sequence[str], without: frozenset[int] = frozenset()
    ) -> list[Status]:
        """Return the status of each broadcast that still is, in a few trips for all.

        Args:
            broadcasts: their ids.
            without: lanes that cannot be asked: nothing in them is counted, broadcasts that are at
                home there are left out, and the others are never complete, for nobody knows.

        Raises:
            StoreUnavailableError: Redis did not answer.
        """
        lanes = [lane for lane in self._settings.layout.lanes if lane not in without]
        broadcasts = [one for one in broadcasts if self.home_lane(one) not in without]

        def ask_homes(pipeline: Any) -> None:
            pipeline.time()
            for broadcast in broadcasts:
                pipeline.hgetall(keys.home(self.home_lane(broadcast), broadcast))

        clock, *homes = repeat_all("reading broadcasts", self._client, ask_homes)
        known = [
            (broadcast, home)
            for broadcast, home in zip(broadcasts, homes, strict=True)
            if "state" in home
        ]

        def ask_lanes(pipeline: Any) -> None:
            for broadcast, _ in known:
                for lane in lanes:
                    pipeline.hgetall(keys.lane_broadcast(lane, broadcast))
                    pipeline.llen(keys.queue(lane, broadcast))
                    pipeline.zcard(keys.delayed(lane, broadcast))
                    pipeline.hlen(keys.flight(lane, broadcast))
                    pipeline.lrange(keys.pace(lane, broadcast), 0, -1)

        answers = repeat_all("reading broadcasts", self._client, ask_lanes) if known else []
        each = _PER_LANE * len(lanes)
        now_ms = ms_of(clock)
        apps = {home.get("app", ""): None for _, home in known if home["state"] == State.RUNNING}
        limits: dict[str, AppLimits] = {}
        with _if_there() if without else contextlib.nullcontext():
            self._name_families(known)
            limits = self._quotas.all([*apps]) if apps else {}
        return [
            _status(
                broadcast,
                home,
                answers[place * each : (place + 1) * each],
                now_ms,
                self._settings,
                limits.get(home.get("app", "")),
                whole=not without,
            )
            for place, (broadcast, home) in enumerate(known)
        ]

    def _name_families(self, known: Sequence[tuple[str, dict[str, str]]]) -> None:
        """Give each retry what the home of its family's first names."""
        retries = [home for _, home in known if home.get("root")]

        def ask(pipeline: Any) -> None:
            for home in retries:
                root = home["root"]
                pipeline.hget(keys.home(self.home_lane(root), root), "family")

        named = repeat_all("reading families", self._client, ask) if retries else []
        for home, family in zip(retries, named, strict=True):
            home["family"] = family or ""

    def spec(self, broadcast: str) -> Spec:
        """Return what is sent to whom.

        Raises:
            NotFoundError: no such broadcast.
        """
        return Spec.from_json(self._home(broadcast)["spec"])

    def latest(self, app: str, limit: int = 20) -> list[str]:
        """Return the ids of the app's newest broadcasts, the newest first.

        Raises:
            UnknownAppError: no such app.
        """
        self._settings.app(app)
        return list(
            repeat(
                "listing broadcasts",
                lambda: self._client.zrevrange(keys.history(app), 0, limit - 1),
            )
        )

    def watch(self, broadcast: str, every: timedelta = timedelta(seconds=0.5)) -> Iterator[Status]:
        """Yield the status again and again until the broadcast has ended and is complete.

        Raises:
            NotFoundError: no such broadcast.
        """
        while True:
            status = self.status(broadcast)
            yield status
            if status.state in ENDED and status.complete:
                return
            time.sleep(every.total_seconds())

    @property
    def ttl_ms(self) -> int:
        """How long a broadcast's keys live: its life, the retention, a day to spare."""
        return ms(MAX_LIFE + self._settings.retention + timedelta(days=1))

    def home_lane(self, broadcast: str) -> int:
        """Return the lane that is a broadcast's home."""
        return self._settings.layout.home_of(broadcast)

    @steady
    def _home(self, broadcast: str) -> dict[str, str]:
        home: dict[str, str] = repeat(
            "reading the broadcast",
            lambda: self._client.hgetall(keys.home(self.home_lane(broadcast), broadcast)),
        )
        if not home:
            raise _not_found(broadcast)
        return home


@contextlib.contextmanager
def _if_there() -> Iterator[None]:
    """Do what may be left out where a node does not answer, without waiting for it."""
    with contextlib.suppress(StoreUnavailableError), deadline.within(_BESIDE_S):
        yield


def _not_found(broadcast: str) -> NotFoundError:
    """Return the error for an id; that of a single message names its carrier before a dot."""
    if keys.is_carrier(broadcast) and "." in broadcast:
        return NotFoundError(f"{broadcast} is a single message: ask `message show`")
    return NotFoundError(f"no broadcast {broadcast}: it never was, or its retention is over")


def _is_older(listed: tuple[str, int], before: re.Match[str]) -> bool:
    """Say whether a broadcast comes after the one that the last page ended with."""
    broadcast, created_at_ms = listed
    return (created_at_ms, broadcast) < (int(before[1]), before[2])


def _pace(answers: list[Any], now_ms: int) -> Pace:
    """Return how fast a broadcast that runs goes."""
    return measure(map(_progress, answers[0::_PER_LANE], answers[4::_PER_LANE]), now_ms)


def _progress(copy: dict[str, str], notes: list[str]) -> Progress:
    """Return how far a lane is; see pace.lua, which counts as this does."""
    settled = int(copy.get("done", 0))
    without_a_send = sum(int(copy.get(f"o:{outcome}", 0)) for outcome in _NO_SEND)
    return Progress(notes, settled, settled - without_a_send)


class _Sums(NamedTuple):
    """What the lanes' answers (`_PER_LANE` of each) add up to; see `Status`."""

    total: int
    settled: int
    outcomes: dict[str, int]
    errcodes: dict[str, int]
    queued: int
    delayed: int
    in_flight: int
    aside: int
    is_split: bool

    @classmethod
    def of(cls, answers: list[Any]) -> "_Sums":
        copies: list[dict[str, str]] = answers[0::_PER_LANE]
        outcomes: dict[str, int] = {}
        errcodes: dict[str, int] = {}
        for copy in copies:
            for name, count in copy.items():
                if name.startswith("o:"):
                    outcomes[name[2:]] = outcomes.get(name[2:], 0) + int(count)
                elif name.startswith("e:"):
                    errcodes[name[2:]] = errcodes.get(name[2:], 0) + int(count)
        order = {outcome: place for place, outcome in enumerate(Outcome)}
        aside = sum(int(copy.get("aside", 0)) for copy in copies)
        return cls(
            total=sum(int(copy.get("total", 0)) for copy in copies),
            settled=sum(int(copy.get("done", 0)) for copy in copies),
            outcomes={
                outcome: outcomes[outcome]
                for outcome in sorted(outcomes, key=lambda name: order[Outcome(name)])
                if outcomes[outcome]
            },
            errcodes=errcodes,
            queued=sum(answers[1::_PER_LANE]),
            delayed=sum(answers[2::_PER_LANE]),
            in_flight=sum(answers[3::_PER_LANE]) - aside,
            aside=aside,
            is_split=all(copy.get("split") == "done" for copy in copies),
        )


def _status(
    broadcast: str,
    home: dict[str, str],
    answers: list[Any],
    now_ms: int,
    settings: Settings,
    limits: AppLimits | None,
    *,
    whole: bool = True,
) -> Status:
    """Return a status, made of its home, of five answers per lane, and its app's limits."""
    spec, sums, state = Spec.from_json(home["spec"]), _Sums.of(answers), State(home["state"])
    runs = state is State.RUNNING
    pace = _pace(answers, now_ms) if runs else Pace()
    expected = int(home["audience_size"])
    # what is not split yet is not in `total`; the audience may have grown since it was counted
    split = whole and sums.is_split
    goal = sums.total if split else max(sums.total, expected)
    complete = split and sums.total == sums.settled
    starts_at_ms = int(home.get("starts_at_ms", 0))
    waiting, opens_at_ms = "", 0
    if not complete:
        waiting, opens_at_ms = waits_for(broadcast, state, spec, starts_at_ms, settings, now_ms)
    carry_over = carries_over(home, spec)
    day = _Day(eta_s=pace.left_s(goal - sums.settled)) if runs else _Day()
    if limits is not None and runs and not complete:
        day = _today(limits, spec.channel, goal - sums.settled, pace, carry_over=carry_over)
        if day.left == 0 and not waiting:
            waiting, opens_at_ms = f"waiting for the next day, {limits.resets}", limits.resets_at_ms
    return Status(
        id=broadcast,
        app=spec.app,
        channel=spec.channel,
        template_id=spec.template_id,
        audience=spec.audience,
        state=state,
        total=sums.total,
        expected=expected,
        settled=sums.settled,
        outcomes=sums.outcomes,
        errcodes=sums.errcodes,
        queued=sums.queued,
        delayed=sums.delayed,
        in_flight=sums.in_flight,
        aside=sums.aside,
        reason=home.get("reason", ""),
        errcode=int(home.get("errcode") or 0),
        created_at_ms=int(home["created_at_ms"]),
        ended_at_ms=int(home.get("ended_at_ms", 0)),
        complete=complete,
        rate=pace.sends,
        eta_s=day.eta_s if whole else None,
        retry_of=home.get("retry_of", ""),
        retry_for=home.get("retry_for", ""),
        family=_family(broadcast, home),
        starts_at_ms=starts_at_ms,
        expires_at_ms=int(home.get("expires_at_ms", 0)),
        waiting=waiting,
        opens_at_ms=opens_at_ms,
        weight=weight_of(home, spec),
        purpose=spec.purpose,
        limit=day.limit,
        day_left=day.left,
        carry_over=carry_over,
        note="" if keys.is_carrier(broadcast) or not whole else day.note,
    )


class _Day(NamedTuple):
    """What today makes of a broadcast that runs; see `Status`."""

    left: int | None = None
    note: str = ""
    eta_s: int | None = None
    limit: float = 0.0


def _today(limits: AppLimits, channel: str, rest: int, pace: Pace, *, carry_over: bool) -> _Day:
    """Return what today makes of a broadcast with so many recipients left."""
    left = limits.left(channel)
    eta_s = pace.left_s(rest)
    if left is not None and left < rest:
        then_s = pace.left_s(rest - left) if carry_over else None
        night_s = (limits.resets_at_ms - limits.at_ms) // 1000
        eta_s = None if then_s is None else night_s + then_s
    return _Day(left, limits.carried(channel, rest, carry_over=carry_over), eta_s, limits.limit)


def weight_of(home: dict[str, str], spec: Spec) -> int:
    """Return the weight that a broadcast has now: as created, or as it was changed since."""
    try:
        weight = int(home.get("weight", spec.weight))
    except (TypeError, ValueError):  # somebody wrote into it
        return 1
    return 1 if weight_faults(weight) else weight


def carries_over(home: dict[str, str], spec: Spec) -> bool:
    """Say whether what a day cannot carry of a broadcast goes on the next day by itself.

    It was told so when it was created or resumed; one of an earlier version, which did not ask,
    goes on too.
    """
    return spec.carry_over or home.get("carry_over") == "1" or '"carry_over"' not in home["spec"]


def _family(broadcast: str, home: dict[str, str]) -> list[str]:
    """Return the first broadcast of a family and its retries; none where there is no retry."""
    retries = home.get("family", "").split()
    root = home.get("root", broadcast)
    return [root, *retries] if retries or root != broadcast else []
