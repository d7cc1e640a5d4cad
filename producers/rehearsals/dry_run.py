"""The dry run of a broadcast: all that can be said of it before it is created. It stores nothing.

It checks what creating it would check, and goes on past each fault: who is not reached by a
mistyped moment is still counted. What is ahead is reckoned (see `course`), from what is stored now.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from producers.audiences import Audiences
from producers.broadcasts.create import check_key
from producers.broadcasts.spec import Spec, check_purpose
from producers.broadcasts.timing import Timing
from producers.care import roster
from producers.errors import InvalidInputError, NotFoundError
from producers.planning.draw import Draw
from producers.planning.forecast import Forecaster
from producers.quotas import Quota
from producers.rehearsals import traffic
from producers.rehearsals.course import Course, Runner, reckon
from producers.rows import BadRowsError, check_rows
from producers.series import Series
from producers.settings import Settings
from producers.store import Client, keys
from producers.store.clock import now_ms
from producers.store.retry import repeat
from producers.templates import Templates
from producers.times.moments import to_the_second
from producers.times.zones import zone_of
from producers.words import Channel

_HOUR_MS: Final = 3_600_000
_AFTER_MS: Final = tuple(
    round(hours * _HOUR_MS) for hours in (0, 0.25, 0.5, 1, 2, 4, 8, 12, 24, 48, 72, 120, 168)
)
"""How long after its start it is looked who can still be reached."""

_SAMPLE: Final = {Channel.TEMPLATE: {"keyword1": "a"}, Channel.SUBSCRIBE: {"thing1": "a"}}
_CERTAIN_MS: Final = 60_000
"""A list of templates so young is believed that it has no more."""

_WHAT: Final = ("app", "channel", "template_id", "audience")
_APART: Final = (
    ("rate",),
    ("expires_in",),
    ("priority", "weight"),
    ("purpose",),
    ("at", "until", "zone"),
)
"""Fields that stand and fall together."""


@dataclass(slots=True)
class DryRun:
    """What a broadcast would do.

    Attributes:
        app, channel, template_id, audience: what it is.
        at_ms: when this was reckoned, server epoch ms.
        faults: why it would be refused; none: it would be created.
        notes: what else its sender should know, in words.
        recipients: members of the audience now.
        reachable: of them, who could be sent to at its start, by the permits of now.
        reachable_low, reachable_high: between them lies the exact number (see `Forecast`).
        suppressed: of them, who are sent nothing.
        kept: of them, who have no more than broadcasts leave to single messages.
        capped: of them, who had as many of its purpose today as there may be.
        no_permit: the others.
        ending: of the reachable, whose last permit ends before their turn, though those whose
            permits end first go first; about.
        method: how they were counted: ``stock``, ``scan`` or ``sample``; '' where it could not.
        zone: the time zone of its times, for people.
        starts_at_ms: when it starts, epoch ms; 0: at once.
        expires_at_ms: when the rest is late, epoch ms.
        window: the app's hours, ``08:00-22:00``; '': it sends at any time.
        opens_at_ms: when these begin, if it had to wait for them; else 0.
        begins_at_ms: its first send, epoch ms; 0: none can be foreseen.
        ends_at_ms: its last one, if it were never late; 0: nobody knows.
        eta_s: seconds from its start to its last send; None: nobody knows.
        late: of the reachable, for whom it would be too late.
        rate: sends per second that it could have at most; 0: no limit is set.
        others: the app's broadcasts that run now, and share that rate.
        others_waiting: their recipients that have no outcome yet.
        carry_over: what today cannot carry goes on by itself the next day; else it is paused
            then, and it is reckoned as if it was resumed at once.
        day_left: sends that the app's daily limit leaves today; None: it has none.
        wechat_left: those that WeChat's own quota leaves today; None: unknown.
        known: the broadcast that its key made before, '' for none.
        hindered: why nothing would be sent now, and what to do; '': workers are there.
    """

    app: str
    channel: str
    template_id: str
    audience: str
    at_ms: int = 0
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    recipients: int = 0
    reachable: int = 0
    reachable_low: int = 0
    reachable_high: int = 0
    suppressed: int = 0
    kept: int = 0
    capped: int = 0
    no_permit: int = 0
    ending: int = 0
    method: str = ""
    zone: str = ""
    starts_at_ms: int = 0
    expires_at_ms: int = 0
    window: str = ""
    opens_at_ms: int = 0
    begins_at_ms: int = 0
    ends_at_ms: int = 0
    eta_s: int | None = None
    late: int = 0
    rate: float = 0
    others: int = 0
    others_waiting: int = 0
    carry_over: bool = False
    day_left: int | None = None
    wechat_left: int | None = None
    known: str = ""
    hindered: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready fields."""
        return asdict(self)


class DryRuns:
    """Makes dry runs. It changes nothing. Safe to share between threads."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._audiences = Audiences(client, settings)
        self._forecaster = Forecaster(client, settings)
        self._series = Series(client, settings)
        self._templates = Templates(client, settings)

    def look(
        self,
        /,
        *,
        key: str | None = None,
        every: str = "",
        missed: str = "skip",
        rows: Iterable[object] | str | Path | None = None,
        skip_bad: bool = False,
        **spec: Any,
    ) -> DryRun:
        """Return what a broadcast, or the next run of a series, would do.

        Args:
            key: the idempotency key that it would have; of a series its name.
            every: of a series, its cron expression.
            missed: of a series, what becomes of missed ticks.
            rows: in place of an audience, as for `Broadcasts.create_with_rows`; they are read and
                checked. Beyond 50,000, whom it would reach is estimated from so many of them.
            skip_bad: bad rows would be left out.
            **spec: as for `Spec.checked`.

        Raises:
            UnknownAppError: no such app.
            StoreUnavailableError: Redis did not answer.
        """
        app = spec["app"]
        here = traffic.look(self._client, self._settings, app, str(spec["channel"]))
        made = DryRun(
            app,
            str(spec["channel"]),
            str(spec["template_id"]),
            str(spec.get("audience", "")),
            at_ms=here.now_ms,
            rate=_finite(here.road.rate),
            others=here.running,
            others_waiting=here.waiting,
            carry_over=bool(spec.get("carry_over", False)),
            day_left=_left_of(here.limits.daily_limit, here.limits.sent_today),
            wechat_left=here.limits.quotas.get(str(spec["channel"]), Quota()).left,
            hindered=roster.look(self._client).hinders(app),
        )
        draw = None if rows is None else Draw()
        if rows is None or draw is None:
            sketch, zone = self._check(made, spec, key or "", every, missed)
        else:
            asked = {**spec, "rows": True}
            sketch, zone = self._check_rows(made, asked, key or "", rows, draw, skip_bad=skip_bad)
        made.zone = zone.key
        if sketch is not None:
            self._look_ahead(made, sketch, here, draw)
        made.notes += [*_of_now(made, here), *_of_its_way(made, here, zone)]
        return made

    def faults(
        self,
        /,
        *,
        key: str | None = None,
        every: str = "",
        missed: str = "skip",
        rows: Iterable[object] | str | Path | None = None,
        skip_bad: bool = False,
        **spec: Any,
    ) -> list[str]:
        """Return why it would be refused, by the arguments of `look`; nobody is counted for it."""
        at_ms = repeat("asking the time", partial(now_ms, self._client))
        what = (spec["app"], str(spec["channel"]), str(spec["template_id"]))
        made = DryRun(*what, str(spec.get("audience", "")), at_ms=at_ms)
        if rows is None:
            self._check(made, spec, key or "", every, missed)
        else:
            asked = {**spec, "rows": True}
            self._check_rows(made, asked, key or "", rows, Draw(), skip_bad=skip_bad)
        return made.faults

    # -- faults -----------------------------------------------------------------------------

    def _check(
        self, made: DryRun, given: Mapping[str, Any], key: str, every: str, missed: str
    ) -> tuple[Spec | None, ZoneInfo]:
        """Find every fault; return as much of the spec as is right, and the zone of its times."""
        app = made.app
        zone = self._settings.zone_of(app)
        spec = None
        try:
            if every:
                spec, cron = self._series.check(key, every, missed=missed, **given)
                zone, made.starts_at_ms = cron.zone, cron.after(made.at_ms)
            else:
                spec = Spec.checked(**given)
                check_key(key)
                check_purpose(app, spec.purpose, self._settings.app(app))
        except InvalidInputError as error:
            made.faults += error.faults
        sketch = spec or _sketch(given)
        if sketch is not None and not every:
            zone = self._time(made, sketch, zone)
        if spec is not None and key and not every:
            self._compare(made, spec, key)
        if spec is not None and not made.known:
            self._fit(made, spec)
        try:
            made.recipients = self._audiences.measure(app, made.audience).members
        except NotFoundError as error:
            made.faults.append(str(error))
            sketch = None
        except InvalidInputError as error:
            made.faults += error.faults
            sketch = None
        return sketch, zone

    def _fit(self, made: DryRun, spec: Spec) -> None:
        """Compare it with the app's templates, as they were read last.

        To have them read anew would store that somebody wants it; creating does so.
        """
        if self._settings.app(made.app).templates == "off":
            return
        known = self._templates.look(made.app, spec.channel)
        faults = known.faults(spec.template_id, spec.data, values=not spec.columns)
        if not known.read_at_ms:
            made.notes.append(
                "WeChat's list of the app's templates was not read yet: whether it fits is seen "
                f"when it is created; `wxbroadcast templates --app {made.app}` reads it"
            )
        elif known.lacks(spec.template_id) and known.age_ms > _CERTAIN_MS:
            made.notes += [f"{fault}; it is read anew before it refuses" for fault in faults]
        else:
            made.faults += faults

    def _check_rows(
        self,
        made: DryRun,
        given: Mapping[str, Any],
        key: str,
        rows: Iterable[object] | str | Path,
        draw: Draw,
        *,
        skip_bad: bool,
    ) -> tuple[Spec | None, ZoneInfo]:
        """Find every fault of a broadcast with rows, and theirs, and draw some; as `_check`."""
        zone = self._settings.zone_of(made.app)
        spec = None
        try:
            spec = Spec.checked(**given)
            check_key(key)
            check_purpose(made.app, spec.purpose, self._settings.app(made.app))
        except InvalidInputError as error:
            made.faults += error.faults
        sketch = spec or _sketch(given)
        if sketch is None:  # what the rows are to fill in is not known
            return None, zone
        zone = self._time(made, sketch, zone)
        if spec is not None:
            self._fit(made, spec)
            self._note_key(made, key)
        try:
            listed = self._templates.values_of(made.app, sketch.channel, sketch.template_id)
            report = check_rows(sketch, rows, on_good=draw.take, listed=listed)
        except InvalidInputError as error:
            made.faults += error.faults
            return None, zone
        made.recipients = report.good
        if report.bad and not skip_bad:
            made.faults += BadRowsError(report).faults
        elif not report.good:
            made.faults.append("rows: none of them is good")
        return sketch, zone

    def _time(self, made: DryRun, spec: Spec, zone: ZoneInfo) -> ZoneInfo:
        """Note when it starts and ends; return the zone of both."""
        try:
            timing = Timing.of(spec, zone)
            timing.check(made.at_ms, made.at_ms)
        except InvalidInputError as error:
            made.faults += [one for one in error.faults if one not in made.faults]
            return zone_of(spec.zone) if spec.zone else zone
        made.starts_at_ms, made.expires_at_ms = timing.starts_at_ms, timing.ends_at_ms
        return timing.zone

    def _compare(self, made: DryRun, spec: Spec, key: str) -> None:
        """See whether its key made something before."""
        name = keys.idempotency(spec.app, key)
        held = repeat("looking up the key", partial(self._client.get, name))
        if held:
            made.known, content = held.split(" ")
            if content != spec.digest():
                made.faults.append(
                    f"key {key!r} already created {made.known} with other content; use another key"
                )

    def _note_key(self, made: DryRun, key: str) -> None:
        """Note what its key made before: whether the rows are those of then is seen later."""
        name = keys.idempotency(made.app, key)
        held = key and repeat("looking up the key", partial(self._client.get, name))
        if held:
            made.notes.append(
                f"its key created {held.partition(' ')[0]} before: with the same content nothing "
                "new would be created, with other content it would be refused"
            )

    # -- ahead ------------------------------------------------------------------------------

    def _look_ahead(
        self, made: DryRun, spec: Spec, here: traffic.Traffic, draw: Draw | None
    ) -> None:
        """Count whom it reaches, and reckon when."""
        starts_at_ms = made.starts_at_ms or made.at_ms
        lives_until_ms = starts_at_ms + spec.expires_in_ms
        made.expires_at_ms = min(made.expires_at_ms or lives_until_ms, lives_until_ms)
        moments = [starts_at_ms + after for after in _AFTER_MS]
        what = (made.app, spec.channel, spec.template_id)
        when = (made.at_ms, moments, spec.purpose)
        if draw is None:
            _, seen = self._forecaster.reach(*what, spec.audience, *when)
        else:
            seen = self._forecaster.reach_of(*what, draw, *when)
        made.method = seen.method
        made.suppressed = round(seen.suppressed)
        made.kept, made.capped = round(seen.kept), round(seen.capped)
        most = max(0, made.recipients - made.suppressed - made.kept - made.capped)
        made.reachable = max(0, min(round(seen.users[0]), most))
        made.reachable_low = max(0, math.floor(seen.low[0]))
        made.reachable_high = max(made.reachable, min(math.ceil(seen.high[0]), most))
        made.no_permit = most - made.reachable
        self._reckon(made, spec, here, starts_at_ms)
        if made.ends_at_ms > made.begins_at_ms:
            sending = made.begins_at_ms - starts_at_ms, made.ends_at_ms - starts_at_ms
            made.ending = round(_ending(seen.users, *sending))

    @staticmethod
    def _reckon(made: DryRun, spec: Spec, here: traffic.Traffic, starts_at_ms: int) -> None:
        own = Runner(
            sends=made.reachable,
            rate=spec.rate or math.inf,
            starts_at_ms=starts_at_ms,
            expires_at_ms=made.expires_at_ms,
            priority=spec.priority,
            weight=spec.weight,
        )
        course = reckon(own, here.others, here.road, here.now_ms)
        made.rate = _finite(min(here.road.rate, own.rate))
        if here.road.window is not None:
            made.window = here.road.window.text
            opens_at_ms, _ = here.road.window.around(starts_at_ms)
            made.opens_at_ms = opens_at_ms if opens_at_ms > starts_at_ms else 0
        _note_course(made, course, starts_at_ms)


def _note_course(made: DryRun, course: Course, starts_at_ms: int) -> None:
    made.begins_at_ms = course.begins_at_ms or 0
    if made.reachable:
        made.ends_at_ms = course.ends_at_ms or 0
    if made.ends_at_ms:
        made.eta_s = max(0, -(-(made.ends_at_ms - starts_at_ms) // 1000))
    made.late = max(0, round(made.reachable - course.in_time))


def _sketch(given: Mapping[str, Any]) -> Spec | None:
    """Return what is right of a spec with faults; what is not is as if it was not given.

    None: too little is right for anything to be counted.
    """
    try:
        base = {name: given[name] for name in _WHAT if name in given}
        if given.get("rows"):  # which fill in holes of these
            base |= {name: given[name] for name in ("rows", "data", "page") if name in given}
        else:
            base["data"] = _SAMPLE[Channel(given["channel"])]
        spec = Spec.checked(**base)
    except (InvalidInputError, ValueError):
        return None
    for names in _APART:
        part = {name: given[name] for name in names if name in given}
        try:
            right = Spec.checked(**base, **part)
        except InvalidInputError:
            continue
        stored = ("expires_in_ms",) if names == ("expires_in",) else names
        spec = replace(spec, **{name: getattr(right, name) for name in stored})
    return spec


def _ending(users: Sequence[float], begins_ms: int, through_ms: int) -> float:
    """Return how many of those reached at the start have no permit any more at their turn.

    Those whose permits end first go first (`producers.ordering`), at an even pace: at each moment,
    who has ended and could not have been sent to by then is lost.

    Args:
        users: at each of `_AFTER_MS`, who can still be reached.
        begins_ms: from its start to its first send.
        through_ms: from its start to its last send.
    """
    lost = []
    for after, left in zip(_AFTER_MS, users, strict=True):
        sent = (after - begins_ms) / (through_ms - begins_ms)
        lost.append(users[0] - left - users[0] * min(1.0, max(0.0, sent)))
    return max(lost)


def _left_of(limit: int, sent: int) -> int | None:
    return max(0, limit - sent) if limit else None


def _finite(rate: float) -> float:
    return 0.0 if math.isinf(rate) else rate


# -- in words -------------------------------------------------------------------------------


def _of_now(made: DryRun, here: traffic.Traffic) -> Iterator[str]:
    """Yield what a sender should know of now."""
    if made.known and not made.faults:
        yield f"its key created {made.known} before: nothing new would be created"
    if made.hindered:
        yield made.hindered
    if made.method and not made.reachable and (made.kept or made.capped):
        yield "whoever has a permit for it is kept or capped: it would reach no one"
    elif made.method and not made.reachable:
        yield "nobody of the audience has a permit for it: it would reach no one"
    if here.slowed_to:
        yield (
            f"WeChat's limit errors hold the app at {here.slowed_to:g} sends/s now; that climbs "
            "back by itself, and is what is reckoned with"
        )


def _of_its_way(made: DryRun, here: traffic.Traffic, zone: ZoneInfo) -> Iterator[str]:
    """Yield what a sender should know of when it would be sent."""
    said = partial(to_the_second, zone=zone)
    if made.opens_at_ms:
        yield f"waits for the app's hours, which begin {said(made.opens_at_ms)}"
    if made.reachable and not made.begins_at_ms:
        yield "nothing of it can be sent: the app's limits leave no room"
    elif made.begins_at_ms < here.road.day_ends_at_ms:
        note = here.limits.carried(made.channel, made.reachable, carry_over=made.carry_over)
        if note:
            yield note
    if made.late:
        through = f", and would be through {said(made.ends_at_ms)}" if made.ends_at_ms else ""
        yield f"about {made.late:,} would be late: it ends {said(made.expires_at_ms)}{through}"
    if made.ending:
        yield (
            f"about {made.ending:,} have no permit any more when their turn comes, though those "
            "whose permits end first go first"
        )
