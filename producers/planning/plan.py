"""The plan: which templates to ask this user for now, by what coming broadcasts will want.

Wanted of a template are: one accept for each subscribe broadcast under way that has this user yet
to come, as many as the app's broadcasts to this user's audiences used in a week, on average of
the last two, and one where single messages were posted in these two weeks. What the user has
already is taken off. After all these come the app's own templates (`subscribe_templates`) that
nothing was sent of lately and the user has none of, so that a deployment without a broadcast yet
asks as well. Long-term templates, which one accept allows for good, are never asked for again;
those the user withdrew in the last two weeks come last.

The plan also says what to *skip*: templates of which the user has enough, those withdrawn within
a day, and those that WeChat does not know: the app's own list (`producers.templates`) lacks them,
or it stopped their newest broadcast. A page asks for what it names but for these: what nobody has
planned yet, or what a service that is away cannot tell, is asked for all the same.

It is asked by every page view: one trip to Redis, and two more every ten seconds in each process.
"""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any, Final

from producers.audiences import ALL
from producers.audiences.expressions import Expression
from producers.errors import InvalidInputError
from producers.openid import check_openid
from producers.permits.demand import HABIT_WEEKS, Demand, DemandTable
from producers.permits.subscriptions import MOST_SUBSCRIPTIONS, withdrawn_at_ms
from producers.settings import Settings
from producers.store import Client, keys
from producers.store.clock import ms_of
from producers.store.lanes.following import steady
from producers.store.retry import repeat_all
from producers.suppressions.suppressions import Reason, ask_reasons, reasons_of
from producers.templates import Templates

MOST: Final = 5
"""Templates in one wx.requestSubscribeMessage (3 below library 2.8.2; WeChat docs)."""

_DAY_MS: Final = 24 * 3_600_000
_WITHDRAWN_MS: Final = HABIT_WEEKS * 7 * _DAY_MS

_IN_HAND: Final = 3
"""Accepts that are enough where no broadcast tells how many will be wanted."""

_SKIPPED: Final = 100
"""Templates to skip in one plan; a user with more has enough of the others too, and is asked."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A template to ask for.

    Attributes:
        template_id: the template.
        reason: why, in plain words.
        shortage: accepts that will be missing within a week: under_way + per_week − has, and one
            more for single messages; of an app's own template that nothing was sent of, one.
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
        skip: template ids that this user is better not asked for now.
    """

    app: str
    openid: str
    templates: list[Ask]
    skip: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as JSON-ready fields."""
        return asdict(self)


class Planner:
    """Plans. It changes nothing. Safe to share between threads; make one per process."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._table = DemandTable(client, settings)
        self._templates = Templates(client, settings)

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
        own = self._settings.app(app)
        check_openid(openid)
        if not 1 <= most <= MOST:
            raise InvalidInputError([f"most {most}: 1 to {MOST} templates"])
        demand = self._table.demand(app)
        user = self._read(app, openid, demand)
        wanted = {*user.under_way, *user.per_week, *demand.messages, *own.subscribe_templates}
        listed = self._templates.need(app)
        unknown = demand.unknown | self._templates.lacking(listed, wanted)
        if own.subscribe_templates:  # the door takes no others
            wanted &= {*own.subscribe_templates}
        asks = [
            ask
            for template_id in wanted - {*own.long_term_templates} - listed.long_term - unknown
            if (ask := user.ask(template_id)) is not None
        ]
        if user.suppressed:  # nothing would be sent
            return Plan(app, openid, [], sorted(wanted | unknown)[:_SKIPPED])
        asks.sort(
            key=lambda ask: (ask.withdrawn, user.is_spare(ask), -ask.shortage, ask.template_id)
        )
        return Plan(app, openid, asks[:most], user.skip(unknown)[:_SKIPPED])

    @steady
    def _read(self, app: str, openid: str, demand: Demand) -> "_User":
        lane, bucket, item = keys.place_of(openid, self._settings)
        wanted = [one.audience for one in demand.running]
        whose = {
            text: Expression.stored(text)
            for text in wanted + [audience for _, audience in demand.habit]
        }
        audiences = list(dict.fromkeys(name for one in whose.values() for name in one.names))

        def ask(pipeline: Any) -> None:
            pipeline.time()
            pipeline.hscan(keys.subscriptions(lane, app, openid), count=MOST_SUBSCRIPTIONS)
            pipeline.hgetall(keys.marks(lane, app, openid))
            ask_reasons(pipeline, lane, app, bucket, openid)
            for name in audiences:
                pipeline.sismember(keys.audience(lane, app, name, bucket), openid)
            for one in demand.running:
                pipeline.hexists(keys.outcomes(lane, one.broadcast, bucket), openid)
                pipeline.hexists(keys.flight(lane, one.broadcast), item)
                pipeline.hmget(keys.lane_broadcast(lane, one.broadcast), "cursor", "split", "drop")

        answers = repeat_all("reading the user", self._client, ask)
        clock, (_, subs), marks, *rest = answers
        listed, answers = rest[: len(Reason)], [*answers[:3], *rest[len(Reason) :]]
        member = dict(zip(audiences, answers[3 : 3 + len(audiences)], strict=True))
        user = _User(subs, withdrawn_at_ms(marks), ms_of(clock), demand)
        user.suppressed = bool(reasons_of(listed))
        rest = answers[3 + len(audiences) :]
        for one, settled, sent, (cursor, split, drop) in zip(
            demand.running, rest[0::3], rest[1::3], rest[2::3], strict=True
        ):
            yet_to_split = split != "done" and int(cursor or 0) <= bucket
            # an accept makes a stranger a member of `all`, in time or too late for this one
            comes = {**member, ALL: member.get(ALL) or yet_to_split}
            if whose[one.audience].holds(comes) and not settled and not sent and not drop:
                user.under_way[one.template_id] += 1
        for (template_id, audience), per_week in demand.habit.items():
            if whose[audience].holds({**member, ALL: True}):
                user.per_week[template_id] += per_week
        return user


class _User:
    """What one user has, and what is wanted of the user."""

    def __init__(
        self, subs: dict[str, str], withdrawn: dict[str, int], now_ms: int, demand: Demand
    ) -> None:
        self._subs = subs
        self._withdrawn = withdrawn
        self._now_ms = now_ms
        self._demand = demand
        self.suppressed = False
        self.under_way: dict[str, int] = defaultdict(int)
        self.per_week: dict[str, float] = defaultdict(float)

    def ask(self, template_id: str) -> Ask | None:
        """Return what to ask for a template; None when nothing is missing."""
        has = self._has(template_id)
        under_way = self.under_way.get(template_id, 0)
        per_week = self.per_week.get(template_id, 0.0)
        shortage = (self._wanted(template_id) or 1) - has
        if has < 0 or shortage <= 0:
            return None
        withdrawn = self._withdrawn_within(template_id, _WITHDRAWN_MS)
        reason = _in_words(
            under_way,
            per_week,
            has,
            messages=template_id in self._demand.messages,
            withdrawn=withdrawn,
        )
        return Ask(template_id, reason, round(shortage, 2), under_way, per_week, has, withdrawn)

    def is_spare(self, ask: Ask) -> bool:
        """Say whether nothing is known to want it."""
        return not self._wanted(ask.template_id)

    def skip(self, unknown: Collection[str]) -> list[str]:
        """Return what the user is better not asked for; WeChat does not know some templates."""
        mine = {name for name in (*self._subs, *self._withdrawn) if ":" not in name}
        skipped = {
            name
            for name in mine
            if self._has_enough(name)
            or (not self._has(name) and self._withdrawn_within(name, _DAY_MS))
        }
        return sorted(skipped | {*unknown})

    def _has_enough(self, template_id: str) -> bool:
        has, wanted = self._has(template_id), self._wanted(template_id)
        if not wanted or template_id in self._demand.messages:
            wanted = max(wanted, _IN_HAND)
        return has < 0 or has >= wanted

    def _has(self, template_id: str) -> int:
        return int(self._subs.get(template_id, 0))

    def _wanted(self, template_id: str) -> float:
        wanted = self.under_way.get(template_id, 0) + self.per_week.get(template_id, 0.0)
        return wanted + (template_id in self._demand.messages)

    def _withdrawn_within(self, template_id: str, span_ms: int) -> bool:
        return self._withdrawn.get(template_id, 0) > self._now_ms - span_ms


def _in_words(under_way: int, per_week: float, has: int, *, messages: bool, withdrawn: bool) -> str:
    wants = []
    if under_way:
        wants.append(f"{under_way} broadcast{'s' if under_way > 1 else ''} under way")
    if per_week:
        wants.append(f"about {per_week:g} a week lately")
    if messages:
        wants.append("single messages lately")
    had = f"the user has {has}" if has else "the user has none"
    reason = f"{' and '.join(wants) or 'one of the app, nothing was sent of it lately'}; {had}"
    return f"{reason}; withdrew it in the last two weeks" if withdrawn else reason
