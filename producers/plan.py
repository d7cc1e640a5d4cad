"""The plan: which templates to ask this user for now, by what coming broadcasts will want.

Wanted of a template are: one accept for each subscribe broadcast under way that has this user yet
to come, and as many as the app's broadcasts to this user's audiences used in a week, on average of
the last two. What the user has already is taken off. Long-term templates, which one accept allows
for good, are never asked for again; those the user withdrew in the last two weeks come last.

It is asked by every page view: one trip to Redis, and two more every ten seconds in each process.
"""

from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import Any, Final

from producers import keys
from producers.audiences import ALL
from producers.demand import HABIT_WEEKS, Demand, DemandTable
from producers.errors import InvalidInputError
from producers.retry import repeat_all
from producers.rows import check_openid
from producers.settings import Settings
from producers.store import Client

MOST: Final = 5
"""Templates in one wx.requestSubscribeMessage (3 below library 2.8.2; WeChat docs)."""

_WITHDRAWN_MS: Final = HABIT_WEEKS * 7 * 24 * 3_600_000


@dataclass(frozen=True, slots=True)
class Ask:
    """A template to ask for.

    Attributes:
        template_id: the template.
        reason: why, in plain words.
        shortage: accepts that will be missing within a week: under_way + per_week − has.
        under_way: broadcasts that run or wait, and have this user yet to come.
        per_week: broadcasts per week to this user's audiences, lately.
        has: accepts that the user has.
        withdrawn: whether the user withdrew it in the last two weeks.
    """

    template_id: str
    reason: str
    shortage: float
    under_way: int
    per_week: float
    has: int
    withdrawn: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What to ask one user for.

    Attributes:
        app, openid: who.
        templates: the most missing one first; none when nothing is missing.
    """

    app: str
    openid: str
    templates: list[Ask]

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as JSON-ready fields."""
        return asdict(self)


class Planner:
    """Plans. It changes nothing. Safe to share between threads; make one per process."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._table = DemandTable(client, settings)

    def plan(self, app: str, openid: str, most: int = 3) -> Plan:
        """Return which templates to ask a user for now.

        Args:
            app: alias of the app.
            openid: the user, known or not.
            most: how many at the most, 1 to 5.

        Raises:
            UnknownAppError: no such app.
            InvalidInputError: the openid is none, or most is not 1 to 5.
            StoreUnavailableError: Redis did not answer.
        """
        long_term = self._settings.app(app).long_term_templates
        check_openid(openid)
        if not 1 <= most <= MOST:
            raise InvalidInputError([f"most {most}: 1 to {MOST} templates"])
        demand = self._table.demand(app)
        user = self._read(app, openid, demand)
        asks = [
            ask
            for template_id in {*user.under_way, *user.per_week}
            if template_id not in long_term and (ask := user.ask(template_id)) is not None
        ]
        asks.sort(key=lambda ask: (ask.withdrawn, -ask.shortage, ask.template_id))
        return Plan(app, openid, asks[:most])

    def _read(self, app: str, openid: str, demand: Demand) -> "_User":
        bucket = keys.bucket_of(openid, self._settings.buckets)
        lane = bucket % self._settings.lanes
        item = f"{bucket}:{openid}"
        wanted = [one.audience for one in demand.running]
        audiences = list(dict.fromkeys(wanted + [audience for _, audience in demand.habit]))

        def ask(pipeline: Any) -> None:
            pipeline.time()
            pipeline.hgetall(keys.subscriptions(lane, app, openid))
            for name in audiences:
                pipeline.sismember(keys.audience(lane, app, name, bucket), openid)
            for one in demand.running:
                pipeline.hexists(keys.outcomes(lane, one.broadcast, bucket), openid)
                pipeline.hexists(keys.flight(lane, one.broadcast), item)
                pipeline.hmget(keys.lane_broadcast(lane, one.broadcast), "cursor", "split", "drop")

        answers = repeat_all("reading the user", self._client, ask)
        (seconds, _), subs = answers[:2]
        member = dict(zip(audiences, answers[2 : 2 + len(audiences)], strict=True))
        user = _User(subs, int(seconds) * 1000)
        rest = answers[2 + len(audiences) :]
        for one, settled, sent, (cursor, split, drop) in zip(
            demand.running, rest[0::3], rest[1::3], rest[2::3], strict=True
        ):
            yet_to_split = split != "done" and int(cursor or 0) <= bucket
            # an accept makes a stranger a member of `all`, in time or too late for this one
            comes = member[one.audience] or (one.audience == ALL and yet_to_split)
            if comes and not settled and not sent and not drop:
                user.under_way[one.template_id] += 1
        for (template_id, audience), per_week in demand.habit.items():
            if member[audience] or audience == ALL:
                user.per_week[template_id] += per_week
        return user


class _User:
    """What one user has, and what is wanted of the user."""

    def __init__(self, subs: dict[str, str], now_ms: int) -> None:
        self._subs = subs
        self._now_ms = now_ms
        self.under_way: dict[str, int] = defaultdict(int)
        self.per_week: dict[str, float] = defaultdict(float)

    def ask(self, template_id: str) -> Ask | None:
        """Return what to ask for a template; None when nothing is missing."""
        has = int(self._subs.get(template_id, 0))
        under_way = self.under_way.get(template_id, 0)
        per_week = self.per_week.get(template_id, 0.0)
        shortage = under_way + per_week - has
        if has < 0 or shortage <= 0:
            return None
        withdrawn_at_ms = int(self._subs.get(f"voided:{template_id}", 0))
        withdrawn = withdrawn_at_ms > self._now_ms - _WITHDRAWN_MS
        reason = _in_words(under_way, per_week, has, withdrawn=withdrawn)
        return Ask(template_id, reason, round(shortage, 2), under_way, per_week, has, withdrawn)


def _in_words(under_way: int, per_week: float, has: int, *, withdrawn: bool) -> str:
    wants = []
    if under_way:
        wants.append(f"{under_way} broadcast{'s' if under_way > 1 else ''} under way")
    if per_week:
        wants.append(f"about {per_week:g} a week lately")
    had = f"the user has {has}" if has else "the user has none"
    reason = f"{' and '.join(wants)}; {had}"
    return f"{reason}; withdrew it in the last two weeks" if withdrawn else reason
