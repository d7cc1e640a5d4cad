"""Series: at each tick of a cron expression a broadcast, its audience read then.

What is due stands in Redis, and whichever worker looks first makes the broadcast under a key of
series and tick, then tells what it made. If it dies in between, another one does the same a few
seconds later, and the key gives it the same broadcast: never two for one tick.

A tick that nobody made within a minute is *missed*: the series skips it, or runs once for all that
it missed, as was chosen.
"""

import hashlib
import re
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal, NamedTuple, get_args

from producers import logs
from producers.audiences import Audiences
from producers.broadcasts import Broadcasts
from producers.broadcasts.spec import Spec, check_purpose
from producers.errors import (
    InvalidInputError,
    NotFoundError,
    StoreUnavailableError,
    UnknownAppError,
    WxbroadcastError,
)
from producers.logs.events import SeriesChanged, SeriesTicked
from producers.settings import Settings
from producers.store import Client, keys
from producers.store.clock import now_ms
from producers.store.retry import repeat, repeat_all
from producers.store.scripts import Script
from producers.templates import Templates
from producers.times.crons import Cron
from producers.times.zones import zone_of

MOST: Final = 100
"""Series of one app."""

Missed = Literal["skip", "run"]

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_LATE_MS: Final = 60_000
_AGAIN_MS: Final = 10_000
_AT_ONCE: Final = 10
"""Series given out together."""
_LOOKED_AT: Final = 1000
"""Series that one look passes by at the most: those of apps that only another worker knows."""


class _Keys(NamedTuple):
    """KEYS of series_add.lua and of series_move.lua."""

    series: str
    names: str
    due: str


class AddArgs(NamedTuple):
    """ARGV of series_add.lua; the fields follow."""

    name: str
    member: str
    next_ms: int
    most: int


class MoveArgs(NamedTuple):
    """ARGV of series_move.lua."""

    move: str
    name: str
    member: str
    next_ms: int
    reason: str


class DueKeys(NamedTuple):
    """KEYS of series_due.lua."""

    due: str


class DueArgs(NamedTuple):
    """ARGV of series_due.lua."""

    most: int
    again_ms: int


class RanKeys(NamedTuple):
    """KEYS of series_ran.lua."""

    series: str
    due: str


class RanArgs(NamedTuple):
    """ARGV of series_ran.lua."""

    member: str
    tick_ms: int
    next_ms: int
    broadcast: str
    note: str


ADD: Final = Script(__package__, "series_add", _Keys, AddArgs, clock=True)
MOVE: Final = Script(__package__, "series_move", _Keys, MoveArgs)
DUE: Final = Script(__package__, "series_due", DueKeys, DueArgs, clock=True)
RAN: Final = Script(__package__, "series_ran", RanKeys, RanArgs)


@dataclass(frozen=True, slots=True)
class SeriesStatus:
    """What a series is doing.

    Attributes:
        app, name: what it is called.
        every, zone: its cron expression, and whose clocks.
        missed: what becomes of ticks that nobody made in time: skip or run.
        state: active or paused.
        channel, template_id, audience: what is sent to whom.
        next_at_ms: its next tick, epoch ms; 0 while it is paused.
        last_at_ms: the last tick that was done with, epoch ms; 0 before the first.
        last_broadcast: what its last run made, or ''.
        note: why its last tick made nothing, or why it is paused, or ''.
        created_at_ms: epoch ms.
    """

    app: str
    name: str
    every: str
    zone: str
    missed: str
    state: str
    channel: str
    template_id: str
    audience: str
    next_at_ms: int
    last_at_ms: int
    last_broadcast: str
    note: str
    created_at_ms: int

    def as_dict(self) -> dict[str, Any]:
        """Return the status as JSON-ready fields."""
        return {name: getattr(self, name) for name in self.__slots__}


class Series:
    """The series of every app. Safe to share between threads."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._broadcasts = Broadcasts(client, settings)
        self._templates = Templates(client, settings)
        self._audiences = Audiences(client, settings)
        self._add = ADD.on(client)
        self._move = MOVE.on(client)
        self._due = DUE.on(client)
        self._ran = RAN.on(client)

    def create(
        self, /, name: str, every: str, *, zone: str = "", missed: str = "skip", **spec: Any
    ) -> SeriesStatus:
        """Make a series; the same call again changes nothing.

        Args:
            name: 1-64 of A-Z a-z 0-9 _ . -, its own within the app.
            every: five fields of cron: ``0 21 * * *`` is each day at nine in the evening.
            zone: whose clocks; '': the app's.
            missed: skip, or run: once for all ticks that nobody made in time.
            **spec: as for `Spec.checked`, without at, until and zone; expires_in is each run's.

        Raises:
            InvalidInputError: with each fault, or no template of the app fits it, or there is
                another series of that name; nothing was stored.
            NotFoundError: no such audience.
            UnknownAppError, StoreUnavailableError.
        """
        checked, cron = self.check(name, every, zone=zone, missed=missed, **spec)
        own = cron.zone
        self._audiences.find(checked.app, checked.audience)
        self._check_template(checked, name)
        text = f"{cron.text} {own.key} {missed} {checked.digest()}"
        digest = hashlib.sha256(text.encode()).hexdigest()[:32]
        app = checked.app
        next_ms = cron.after(self._now_ms())
        made, known = self._add.repeated(
            "creating the series",
            _keys(app, name),
            AddArgs(name, f"{app} {name}", next_ms, MOST),
            (
                "spec",
                checked.to_json(),
                "every",
                cron.text,
                "zone",
                own.key,
                "missed",
                missed,
                "digest",
                digest,
            ),
        )
        if made == -1:
            raise InvalidInputError([f"app {app!r} has {MOST} series: delete one"])
        if made == 0 and known != digest:
            raise InvalidInputError([f"name: there is another series {name!r}; delete it first"])
        if made:
            logs.emit(SeriesChanged(app, name, "create", next_ms))
        return self.show(app, name)

    def check(
        self, /, name: str, every: str, *, zone: str = "", missed: str = "skip", **spec: Any
    ) -> tuple[Spec, Cron]:
        """Return what a series would send, and when, by the arguments of `create`.

        It asks Redis nothing.

        Raises:
            InvalidInputError: with each fault.
            UnknownAppError: no such app.
        """
        faults: list[str] = []
        cron = None
        app_zone = self._settings.zone_of(spec["app"])
        try:
            cron = Cron.read(every, zone_of(zone) if zone else app_zone)
        except InvalidInputError as error:
            faults += error.faults
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            faults.append("name: 1-64 of A-Z a-z 0-9 _ . -, a letter or digit first")
        if missed not in get_args(Missed):
            faults.append(f"missed {missed!r}: skip or run")
        faults += [f"{one}: not of a series" for one in ("at", "until") if spec.get(one)]
        try:
            checked = Spec.checked(**spec)
        except InvalidInputError as error:
            raise InvalidInputError([*faults, *error.faults]) from None
        if faults or cron is None:
            raise InvalidInputError(faults)
        own = self._settings.app(checked.app)
        check_purpose(checked.app, checked.purpose, own)
        return checked, cron

    def _check_template(self, spec: Spec, name: str) -> None:
        """Refuse a spec that no template of its app fits, unless there is a series of that name."""
        faults = self._templates.faults(spec.app, spec.channel, spec.template_id, spec.data)
        known = partial(self._client.exists, keys.series(spec.app, name))
        if faults and not repeat("looking for the series", known):
            raise InvalidInputError(faults)

    def show(self, app: str, name: str) -> SeriesStatus:
        """Return what a series is doing.

        Raises:
            NotFoundError: no such series.
            UnknownAppError, StoreUnavailableError.
        """
        self._settings.app(app)
        found = repeat("reading the series", partial(self._client.hgetall, keys.series(app, name)))
        if "spec" not in found:
            raise NotFoundError(f"no series {name!r} of app {app!r}")
        return _status(app, name, found)

    def list(self, app: str) -> list[SeriesStatus]:
        """Return an app's series by their names; raises as `show`."""
        self._settings.app(app)
        names = sorted(
            repeat("listing series", partial(self._client.smembers, keys.series_names(app)))
        )
        if not names:
            return []

        def ask(pipeline: Any) -> None:
            for name in names:
                pipeline.hgetall(keys.series(app, name))

        found = repeat_all("reading series", self._client, ask)
        pairs = zip(names, found, strict=True)
        return [_status(app, name, one) for name, one in pairs if "spec" in one]

    def pause(self, app: str, name: str, reason: str = "asked for") -> SeriesStatus:
        """Let a series make nothing; what it made goes on; raises as `show`."""
        self._change(self.show(app, name), "pause", 0, reason)
        return self.show(app, name)

    def resume(self, app: str, name: str) -> SeriesStatus:
        """Let a paused series go on with its next tick from now; raises as `show`."""
        found = self.show(app, name)
        next_ms = Cron.read(found.every, zone_of(found.zone)).after(self._now_ms())
        self._change(found, "resume", next_ms)
        return self.show(app, name)

    def delete(self, app: str, name: str) -> SeriesStatus:
        """Delete a series; what it made goes on.

        Returns:
            What it was.

        Raises:
            NotFoundError: no such series.
            UnknownAppError, StoreUnavailableError.
        """
        found = self.show(app, name)
        self._change(found, "delete", 0)
        return found

    def _change(self, one: SeriesStatus, move: str, next_ms: int, reason: str = "") -> None:
        args = MoveArgs(move, one.name, f"{one.app} {one.name}", next_ms, reason)
        self._move.repeated(f"changing the series ({move})", _keys(one.app, one.name), args)
        logs.emit(SeriesChanged(one.app, one.name, move, next_ms))

    # -- what workers do --------------------------------------------------------------------

    def tick(self) -> int:
        """Make what is due; returns how many ticks were done with.

        Those of unknown apps take nobody's turn: a look passes by them.

        Raises:
            redis.RedisError, StoreUnavailableError: Redis did not answer; they come again.
        """
        done = 0
        for _ in range(_LOOKED_AT // _AT_ONCE):
            clock, *members = self._due(DueKeys(keys.SERIES_DUE), DueArgs(_AT_ONCE, _AGAIN_MS))
            known = [one for one in members if one.partition(" ")[0] in self._settings.apps]
            for member in known:
                app, _, name = member.partition(" ")
                try:
                    done += self._tick(self.show(app, name), int(clock))
                except (UnknownAppError, NotFoundError):
                    continue  # its app left the settings, or it was deleted meanwhile
            if known or len(members) < _AT_ONCE:
                break
        return done

    def _tick(self, one: SeriesStatus, clock_ms: int) -> int:
        """Make the broadcast of a tick, or not, and move the series on."""
        tick_ms = one.next_at_ms
        if one.state != "active" or tick_ms > clock_ms:
            return 0
        broadcast, note = "", "missed: nobody made it in time"
        if clock_ms - tick_ms <= _LATE_MS or one.missed == "run":
            broadcast, note = self._make(one, tick_ms)
        next_ms = Cron.read(one.every, zone_of(one.zone)).after(max(clock_ms, tick_ms))
        args = RanArgs(f"{one.app} {one.name}", tick_ms, next_ms, broadcast, note)
        ran = RanKeys(keys.series(one.app, one.name), keys.SERIES_DUE)
        if not self._ran.repeated("moving a series on", ran, args):
            return 0
        logs.emit(SeriesTicked(one.app, one.name, tick_ms, broadcast, note))
        return 1

    def _make(self, one: SeriesStatus, tick_ms: int) -> tuple[str, str]:
        """Return the broadcast of a tick, and why there is none."""
        stored = self._client.hget(keys.series(one.app, one.name), "spec")
        try:
            spec = Spec.from_json(stored)
            key = f"series/{one.name}/{one.created_at_ms}/{tick_ms}"
            # looked at when the series was made: nobody waits here, and WeChat has the last word
            return self._broadcasts.create(spec, key, trusts_template=True).id, ""
        except StoreUnavailableError:
            raise
        except WxbroadcastError as error:  # its audience is gone, for instance: the next may be
            return "", str(error)[:200]

    def pause_overdue(self, reason: str) -> None:
        """Pause each series whose tick has come: it may have run in what Redis forgot.

        Raises:
            StoreUnavailableError: Redis did not answer.
        """
        read = partial(self._client.zrangebyscore, keys.SERIES_DUE, "-inf", self._now_ms())
        for member in repeat("reading series", read):
            app, _, name = member.partition(" ")
            try:
                self.pause(app, name, reason)
            except (UnknownAppError, NotFoundError):
                continue

    def _now_ms(self) -> int:
        return repeat("asking the time", partial(now_ms, self._client))


def _keys(app: str, name: str) -> _Keys:
    return _Keys(keys.series(app, name), keys.series_names(app), keys.SERIES_DUE)


def _status(app: str, name: str, found: dict[str, str]) -> SeriesStatus:
    spec = Spec.from_json(found["spec"])
    active = found["state"] == "active"
    return SeriesStatus(
        app=app,
        name=name,
        every=found["every"],
        zone=found["zone"],
        missed=found["missed"],
        state=found["state"],
        channel=spec.channel,
        template_id=spec.template_id,
        audience=spec.audience,
        next_at_ms=int(found["next_ms"]) if active else 0,
        last_at_ms=int(found.get("last_ms", 0)),
        last_broadcast=found.get("last_broadcast", ""),
        note=found.get("note", ""),
        created_at_ms=int(found["created_at_ms"]),
    )
