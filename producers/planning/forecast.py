"""The forecast: whom a broadcast would reach now and later, and how many uses will end unsent.

Three ways to an answer, and the answer says which: ``stock`` (everybody, template channel, nobody
suppressed: the
stock counts users by the hour in which their last use ends, so it is exact but for that hour),
``scan`` (every member was looked at: exact) and ``sample`` (an audience beyond 50,000: whole
buckets drawn by lot, each estimate with its standard error). The time is bounded in each of them.

What is reachable later is what would be left if nothing was collected and nothing sent meanwhile.
"""

import math
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple

from producers.audiences import ALL, Audiences
from producers.audiences.expressions import Expression
from producers.audiences.filled import filled_buckets
from producers.broadcasts.spec import check_purpose
from producers.errors import InvalidInputError
from producers.fields import check_template_id
from producers.lanes.bounds import Bounding
from producers.planning.draw import Draw
from producers.planning.estimate import HORIZONS, Made, Seen, drawn, estimated, scanned
from producers.planning.expiry import HOUR_MS, last_end_ms, unsent
from producers.settings import Settings, ms, rate_faults
from producers.store import Client, deadline, keys
from producers.store.clock import ms_of
from producers.store.lanes.following import steady
from producers.store.retry import repeat_all
from producers.store.scripts import Script
from producers.suppressions import Suppressions
from producers.words import Channel

SCANNED: Final = 50_000
"""Up to so many members are looked at one by one: about half a second of Redis, in small steps."""
_SAMPLED: Final = 20_000
"""Members that a sample looks at: a standard error of at most 0.4 % of the audience."""
_FEWEST: Final = 30
"""Buckets that a sample has at the least, so that their spread says something."""
_BUCKETS: Final = 50
"""Buckets read in one trip."""
_GIVEN: Final = 100
"""Openids that one run looks at where they are named."""
_DAY_MS: Final = 24 * HOUR_MS


@dataclass(frozen=True, slots=True)
class Horizon:
    """What is so far away.

    Attributes:
        in_s: seconds from now.
        users: users who have a usable permit that ends later than that.
        users_low, users_high: between them lies the exact number: for sure, or (sample) in 95 of
            100 cases.
        users_error: standard error of `users`; 0 unless sampled.
        expiring: uses that will have ended unsent by then, at the rate.
        expiring_error: standard error of all uses that end by then, sent or not; 0 unless sampled.
    """

    in_s: int
    users: int
    users_low: int
    users_high: int
    users_error: float
    expiring: int
    expiring_error: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """Whom a broadcast would reach.

    Attributes:
        app, channel, template_id, audience: what was asked.
        at_ms: when, server epoch ms.
        members: members of the audience.
        suppressed: members who are sent nothing, whatever they have.
        kept: members who have uses now, the last of which broadcasts leave to single messages.
        capped: members who had as many of the purpose today as there may be.
        uses: uses that its members have now (long-term subscriptions not counted).
        method: ``stock``, ``scan`` or ``sample``.
        sampled: members that a sample looked at; 0 otherwise.
        rate: sends per second that were reckoned with.
        rate_from: ``given``; ``today`` or ``last_day`` (the app's own sends of that day, on
            average); ``none`` (no send in the last two days).
        horizons: now, in 1 hour, in 1 day, in 7 days.
    """

    app: str
    channel: str
    template_id: str
    audience: str
    at_ms: int
    members: int
    suppressed: int
    kept: int
    capped: int
    uses: int
    method: str
    sampled: int
    rate: float
    rate_from: str
    horizons: list[Horizon]

    def as_dict(self) -> dict[str, Any]:
        """Return the forecast as JSON-ready fields."""
        return asdict(self)


class UsersKeys(NamedTuple):
    """KEYS of forecast.lua."""

    stock: str


class UsersArgs(NamedTuple):
    """ARGV of forecast.lua; openids, and the moments, follow."""

    prefix: str
    app: str
    channel: str
    template: str
    audience: str
    bucket: int
    keep: str = ""
    caps: str = ""
    purpose: str = ""
    given: int = 0
    skipped: int = 0


FORECAST: Final = Script(__package__, "forecast", UsersKeys, UsersArgs)


class _Part(NamedTuple):
    """What one run of forecast.lua looks at: a bucket, or some openids of it."""

    lane: int
    bucket: int
    openids: Sequence[str] = ()


class Forecaster:
    """Forecasts. It changes nothing. Safe to share between threads."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._audiences = Audiences(client, settings)
        self._suppressions = Suppressions(client, settings)
        self._users = FORECAST.on(client)

    def forecast(
        self,
        app: str,
        channel: str,
        template_id: str = "",
        audience: str = ALL,
        rate: float | None = None,
        purpose: str = "",
    ) -> Forecast:
        """Return whom a broadcast of this channel would reach, and what will end unsent.

        Args:
            app: alias of the app.
            channel: template or subscribe.
            template_id: the template; without meaning for the template channel's permits, which
                fit every template.
            audience: its name, or an expression (`audiences.expressions`).
            rate: sends per second to reckon with; None: the app's own of today or the last day.
            purpose: what it would be for (see `Spec`).

        Raises:
            UnknownAppError: no such app.
            NotFoundError: no such audience.
            InvalidInputError: the channel, the template, the rate or the purpose is none.
            StoreUnavailableError: Redis did not answer.
        """
        kind = self._checked(channel, template_id, rate)
        check_purpose(app, purpose, self._settings.app(app))
        now_ms, sends = self._clock_and_sends(app)
        used_rate, rate_from = (rate, "given") if rate is not None else sends
        within = [ms(horizon) for horizon in HORIZONS]
        at_ms = [now_ms + one for one in within]
        members, made = self.reach(app, kind, template_id, audience, now_ms, at_ms, purpose)
        ending = unsent(made.hours, now_ms, used_rate, within)
        return Forecast(
            app=app,
            channel=kind,
            template_id=template_id,
            audience=audience,
            at_ms=now_ms,
            members=members,
            suppressed=round(made.suppressed),
            kept=round(made.kept),
            capped=round(made.capped),
            uses=round(made.uses),
            method=made.method,
            sampled=made.sampled,
            rate=round(used_rate, 3),
            rate_from=rate_from,
            horizons=[
                Horizon(
                    in_s=within[n] // 1000,
                    users=round(made.users[n]),
                    users_low=max(0, math.floor(made.low[n])),
                    users_high=min(math.ceil(made.high[n]), max(members, math.ceil(made.low[n]))),
                    users_error=round(made.errors[n], 1),
                    expiring=round(ending[n]),
                    expiring_error=round(made.ending_error(now_ms + within[n]), 1),
                )
                for n in range(len(within))
            ],
        )

    @steady
    def reach(
        self,
        app: str,
        channel: Channel,
        template_id: str,
        audience: str,
        now_ms: int,
        at_ms: Sequence[int],
        purpose: str = "",
    ) -> tuple[int, Made]:
        """Return an audience's members, and how many of them have a use to spend at some moments.

        Args:
            app: alias of the app.
            channel: template or subscribe.
            template_id: the template.
            audience: its name, or an expression (`audiences.expressions`).
            now_ms: the server's clock.
            at_ms: the moments, ascending, epoch ms.
            purpose: what it would be for.

        Raises:
            As `forecast`.
        """
        members, _, reads = self._audiences.measure(app, audience)
        moments = [one + ms(self._settings.permit_margin) for one in at_ms]
        suppressed = sum(self._suppressions.counts(app).values())
        bounds = Bounding(self._settings, app).at(now_ms)
        bounded = bool(bounds.keep) or (bool(bounds.caps) and bool(purpose))
        if channel is Channel.TEMPLATE and audience == ALL and not suppressed and not bounded:
            return members, self._from_stock(app, now_ms, moments)
        sample, whose = reads if reads > SCANNED else 0, Expression.read(audience).postfix
        args = UsersArgs("", app, channel, template_id, whose, 0, *bounds, purpose)
        seen = self._look(args, moments, members=sample)
        return members, estimated(seen, members) if sample else scanned(seen)

    @steady
    def reach_of(
        self,
        app: str,
        channel: Channel,
        template_id: str,
        draw: Draw,
        now_ms: int,
        at_ms: Sequence[int],
        purpose: str = "",
    ) -> Made:
        """Return how many of some users have a use to spend at some moments; as `reach`.

        Args:
            app: alias of the app.
            channel: template or subscribe.
            template_id: the template.
            draw: the users, or those who were drawn from them.
            now_ms: the server's clock.
            at_ms: the moments, ascending, epoch ms.
            purpose: what the broadcast is for.
        """
        moments = [one + ms(self._settings.permit_margin) for one in at_ms]
        by_bucket: dict[tuple[int, int], list[str]] = defaultdict(list)
        for openid in draw.drawn:
            lane, bucket, _ = keys.place_of(openid, self._settings)
            by_bucket[lane, bucket].append(openid)
        parts = [
            _Part(*place, some[start : start + _GIVEN])
            for place, some in by_bucket.items()
            for start in range(0, len(some), _GIVEN)
        ]
        bounds = Bounding(self._settings, app).at(now_ms)
        seen = Seen(of=len(parts), horizons=len(moments))
        args = UsersArgs("", app, channel, template_id, "", 0, *bounds, purpose)
        self._see(seen, args, moments, parts)
        return drawn(seen, draw.of) if draw.of > len(draw.drawn) else scanned(seen)

    @staticmethod
    def _checked(channel: str, template_id: str, rate: float | None) -> Channel:
        faults = []
        if channel not in set(Channel):
            faults.append(f"channel {channel!r}: take template or subscribe")
        if template_id or channel == Channel.SUBSCRIBE:
            faults += check_template_id(template_id)
        if rate is not None:
            faults += rate_faults(rate)
        if faults:
            raise InvalidInputError(faults)
        return Channel(channel)

    # -- the rate ---------------------------------------------------------------------------

    def _clock_and_sends(self, app: str) -> tuple[int, tuple[float, str]]:
        """Return the server's clock, and the app's sends per second with the day they are from."""
        offset_ms = self._settings.app(app).day_offset_ms()

        def ask(pipeline: Any) -> None:
            pipeline.time()
            pipeline.hmget(keys.limiter(app), "day", "day_count")

        clock, (day, count) = repeat_all("reading the limiter", self._client, ask)
        now_ms = ms_of(clock)
        today, passed_ms = divmod(now_ms + offset_ms, _DAY_MS)
        if day is not None and int(day) == today and int(count):
            # of a day that has just begun an hour is reckoned, so that a burst is not a rate
            return now_ms, (int(count) * 1000 / max(passed_ms, HOUR_MS), "today")
        if day is not None and int(day) == today - 1 and int(count):
            return now_ms, (int(count) * 1000 / _DAY_MS, "last_day")
        return now_ms, (0.0, "none")

    # -- everybody: the stock ---------------------------------------------------------------

    def _from_stock(self, app: str, now_ms: int, moments: Sequence[int]) -> Made:
        def ask(pipeline: Any) -> None:
            for lane in self._settings.layout.lanes:
                pipeline.hgetall(keys.stock(lane, app))

        users: Counter[int] = Counter()
        uses: Counter[int] = Counter()
        for stock in repeat_all("reading the stock", self._client, ask):
            for name, count in stock.items():
                kind, _, hour = name.partition(":")
                if kind == "u":
                    users[int(hour)] += int(count)
                elif kind in {"f", "p"}:
                    uses[int(hour)] += int(count)
        low, high, likely = [], [], []
        for moment in moments:
            hour = moment // HOUR_MS
            sure = sum(count for at, count in users.items() if at > hour)
            end = last_end_ms(hour, now_ms)
            share = max(0.0, (end - moment) / (end - hour * HOUR_MS)) if end > moment else 0.0
            low.append(float(sure))
            high.append(float(sure + users[hour] * (share > 0)))
            likely.append(sure + users[hour] * share)
        this_hour, into_ms = divmod(now_ms, HOUR_MS)
        left: dict[int, float] = {at: float(count) for at, count in uses.items() if at > this_hour}
        left[this_hour] = uses[this_hour] * (1 - into_ms / HOUR_MS)
        return Made("stock", likely, low, high, sum(left.values()), left)

    # -- an audience: its buckets -----------------------------------------------------------

    def _look(self, args: UsersArgs, moments: Sequence[int], *, members: int) -> Seen:
        """Look at the buckets of an audience; with `members` (read and looked up), at a sample."""
        found = [
            _Part(lane, bucket)
            for lane in self._settings.layout.lanes
            for bucket in filled_buckets(self._client, lane, args.app, args.audience)
        ]
        seen = Seen(of=len(found), horizons=len(moments))
        if members:
            wanted = max(_FEWEST, math.ceil(_SAMPLED * len(found) / members))
            if wanted < len(found):
                found = random.sample(found, wanted)
        self._see(seen, args, moments, found)
        return seen

    def _see(
        self, seen: Seen, args: UsersArgs, moments: Sequence[int], parts: Sequence[_Part]
    ) -> None:
        """Look at some parts, and add what is seen."""
        for start in deadline.paced(range(0, len(parts), _BUCKETS)):
            some = parts[start : start + _BUCKETS]
            for row in self._rows(args, moments, some):
                horizons = len(moments)
                seen.members.append(row[0])
                seen.suppressed.append(row[1])
                seen.kept.append(row[2])
                seen.capped.append(row[3])
                seen.users.append(row[4 : horizons + 4])
                seen.uses.append(row[horizons + 4])
                rest = row[horizons + 5 :]
                seen.hours.append(dict(zip(rest[0::2], rest[1::2], strict=True)))

    def _rows(
        self, args: UsersArgs, moments: Sequence[int], parts: Sequence[_Part]
    ) -> list[list[int]]:
        """Return what is seen of each part; what is crowded is looked at in several pages."""
        fixed = len(moments) + 5
        sums: list[list[int]] = [[0] * fixed for _ in parts]
        hours: list[Counter[int]] = [Counter() for _ in parts]
        left = dict.fromkeys(range(len(parts)), 0)
        while left:
            asked = [(*parts[at], skipped) for at, skipped in left.items()]
            for at, (more, *row) in zip([*left], self._page(args, moments, asked), strict=True):
                sums[at] = [sum(pair) for pair in zip(sums[at], row[:fixed], strict=True)]
                hours[at].update(dict(zip(row[fixed::2], row[fixed + 1 :: 2], strict=True)))
                if more:
                    left[at] += row[0]
                else:
                    del left[at]
        uses = [[each for pair in one.items() for each in pair] for one in hours]
        return [[*row, *rest] for row, rest in zip(sums, uses, strict=True)]

    def _page(
        self,
        args: UsersArgs,
        moments: Sequence[int],
        asked: Sequence[tuple[int, int, Sequence[str], int]],
    ) -> list[list[int]]:
        def fill(pipeline: Any) -> None:
            for lane, bucket, openids, skipped in asked:
                given, prefix = len(openids), keys.lane_prefix(lane)
                self._users(
                    UsersKeys(keys.stock(lane, args.app)),
                    args._replace(prefix=prefix, bucket=bucket, given=given, skipped=skipped),
                    [*openids, *moments],
                    into=pipeline,
                )

        return repeat_all("reading an audience's permits", self._client, fill)
