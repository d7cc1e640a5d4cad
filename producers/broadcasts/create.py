"""Broadcasts: one message to one audience, created once, at once or for later.

If the process dies in the middle of a create, the keeper finds what was stored and goes on, or the
same call with the same key does.
"""

import contextlib
import hashlib
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from producers import logs
from producers.audiences import Audiences
from producers.audiences.expressions import Expression
from producers.broadcasts.glance import Glance, glance
from producers.broadcasts.lifecycle import Lifecycle
from producers.broadcasts.spec import MAX_LIFE, Spec, check_purpose
from producers.broadcasts.split import Splitter
from producers.broadcasts.timing import MAX_AHEAD, Timing
from producers.errors import (
    IdempotencyConflictError,
    InvalidInputError,
    NotFoundError,
    StoreUnavailableError,
)
from producers.logs.events import BroadcastCreated, BroadcastRowsLoaded
from producers.quotas import AppLimits
from producers.rows import BadRowsError, Rows, RowsReport
from producers.settings import Settings, ms
from producers.store import Client, keys
from producers.store.connection import now_ms
from producers.store.retry import repeat
from producers.store.scripts import Script
from producers.store.trip import Question, in_order
from producers.templates import Templates
from producers.times.zones import zone_of
from producers.words import State

_KEY_TTL: Final = timedelta(days=7)
_FEW: Final = 1_000
"""An audience up to so many is split in the step that creates it: some ms of Redis."""
_SMALL: Final = 10_000
"""An audience up to so many is split by its creator at once; larger ones by a worker."""


class CreateKeys(NamedTuple):
    """KEYS of create.lua."""

    home: str


class CreateArgs(NamedTuple):
    """ARGV of create.lua."""

    ttl_ms: int


CREATE: Final = Script(__package__, "create", CreateKeys, CreateArgs, clock=True)


@dataclass(frozen=True, slots=True)
class Created:
    """The answer to a create.

    Attributes:
        id: of the broadcast.
        known: whether the key had created it before.
        rows: what its rows were; None without any.
        note: what today cannot carry of it, in words, or ''.
    """

    id: str
    known: bool
    rows: RowsReport | None = None
    note: str = ""


def check_key(key: str) -> None:
    """Say whether it may be an idempotency key, or '' for none.

    Raises:
        InvalidInputError: it may not.
    """
    if not isinstance(key, str):
        raise InvalidInputError([f"key: a text, not {type(key).__name__}"])
    if key and not (len(key) <= 128 and key.isascii() and key.isprintable() and " " not in key):
        raise InvalidInputError(["key: 1-128 visible ASCII characters without blanks"])


class Broadcasts(Lifecycle):
    """Creates broadcasts, moves them (`Lifecycle`) and looks at them (`Register`).

    Safe to share between threads.
    """

    def __init__(self, client: Client, settings: Settings) -> None:
        super().__init__(client, settings)
        self._audiences = Audiences(client, settings)
        self._splitter = Splitter(client, settings)
        self._rows = Rows(client, settings)
        self._templates = Templates(client, settings)
        self._create = CREATE.on(client)

    def create(self, spec: Spec, key: str = "", *, trusts_template: bool = False) -> Created:
        """Store a broadcast, and set it running, or have it wait for its start.

        Args:
            spec: what is sent to whom (see `Spec.checked`).
            key: idempotency key, 1-128 visible characters; the same key with the same content
                gives the same broadcast for 7 days. Without one, each call is a new broadcast.
            trusts_template: whether it fits its template is not looked at.

        Raises:
            UnknownAppError: no such app.
            NotFoundError: no such audience.
            InvalidInputError: the key is not one; or the start or the end is past, is skipped or
                shown twice by the zone's clocks, or too far away; or no template of the app fits
                the spec.
            IdempotencyConflictError: the key was used with other content.
            StoreUnavailableError: Redis did not answer; the same call with the same key goes on.
        """
        check_key(key)
        check_purpose(spec.app, spec.purpose, self._settings.app(spec.app))
        scripts = self._create, self._adopt, self._splitter.script
        seen = glance(self._client, self._settings, spec, self._templates, self._quotas, scripts)
        size = seen.size if seen else self._audiences.measure(spec.app, spec.audience).members
        timing = self._timing(spec, key)
        if not trusts_template:
            self._check_template(spec, key, is_fresh=seen is not None and seen.is_fresh)
        mine = _new_id()
        broadcast = self._claim_id(spec.app, key, spec.digest(), mine)
        is_quick = broadcast == mine and size <= _FEW and not timing.starts_at_ms
        if seen and is_quick and self._splitter.is_plain(spec, size):
            created = self._bear(broadcast, spec, seen, *_times(timing), *self._canary(mine, seen))
        else:
            created = self._store(
                broadcast, spec, size, *_times(timing), *self._canary(broadcast, seen)
            )
            if not timing.starts_at_ms:
                self._begin(broadcast, size)
        note = self._note(spec, timing, size, seen.limits if seen else None) if created else ""
        return Created(broadcast, known=not created, note=note)

    def _canary(self, broadcast: str, seen: Glance | None) -> list[str | int]:
        """Return where the canary is to begin: at home, unless nobody is there."""
        home = self.home_lane(broadcast)
        if seen is None or seen.buckets[home]:
            return []
        return ["canary_lane", max(range(len(seen.buckets)), key=lambda n: len(seen.buckets[n]))]

    def _bear(self, broadcast: str, spec: Spec, seen: Glance, *more: str | int) -> bool:
        """Write a new broadcast to few, and begin to send it, in one trip; say if it is new.

        Raises:
            StoreUnavailableError: Redis did not answer; the keeper goes on with what was written.
        """
        fields = self._fields(broadcast, spec, seen.size, *more)
        home = {
            str(name): str(value) for name, value in zip(fields[::2], fields[1::2], strict=True)
        }
        home_key = keys.home(self.home_lane(broadcast), broadcast)
        lanes, audience = range(self._settings.lanes), Expression.stored(spec.audience).postfix
        stages = (
            self._listing(spec.app, broadcast, seen.now_ms),
            [self._create.call(CreateKeys(home_key), CreateArgs(self.ttl_ms), fields)],
            [self._adoption(lane, broadcast, home, spec) for lane in lanes],
            [self._splitter.first(broadcast, lane, audience, seen.buckets[lane]) for lane in lanes],
        )
        _, ((created, *_),), _, splits = repeat(
            "creating the broadcast", lambda: in_order(self._client, *stages)
        )
        if created:
            self._tell_created(broadcast, spec, seen.size)
        for lane, (status, cursor, *_) in zip(lanes, splits, strict=True):
            left = [bucket for bucket in seen.buckets[lane] if bucket >= int(cursor)]
            if status == 1 and left:
                self._splitter.fill(broadcast, lane)
        return bool(created)

    def create_with_rows(
        self,
        spec: Spec,
        rows: Iterable[object] | str | Path,
        key: str = "",
        *,
        skip_bad: bool = False,
        on_progress: Callable[[RowsReport], None] | None = None,
    ) -> Created:
        """Store a broadcast that tells each recipient what a row says; the rows are its audience.

        They are read, checked and stored beside in constant memory, and nothing is created before
        the last of them is good. If the process dies before that, what is stored ends by itself,
        and the same call with the same key begins anew.

        Args:
            spec: what is sent, made with ``rows=True``.
            rows: the path of a file, lines of CSV or JSON, or mappings; each has an ``openid`` and
                what `spec.columns` names (see `rows.reading`).
            key: as for `create`; the same content is the same spec and the same good rows.
            skip_bad: send the good rows, though others are bad.
            on_progress: called now and then with the report so far.

        Raises:
            BadRowsError: some rows are bad, and they are not to be skipped.
            InvalidInputError: as `create`; or no row can be read, or not one is good.
            UnknownAppError, IdempotencyConflictError, StoreUnavailableError: as `create`.
        """
        check_key(key)
        check_purpose(spec.app, spec.purpose, self._settings.app(spec.app))
        if spec.audience:
            raise InvalidInputError(["audience: the rows say who it is for"])
        timing = self._timing(spec, key)
        self._check_template(spec, key)
        draft = self._rows.load(
            spec.app,
            spec,
            rows,
            on_progress,
            self._templates.values_of(spec.app, spec.channel, spec.template_id),
        )
        is_free = True  # to be discarded: nobody may have begun to send it
        try:
            if draft.report.bad and not skip_bad:
                raise BadRowsError(draft.report)
            if not draft.size:
                raise InvalidInputError(["rows: none of them is good"])
            digest = hashlib.sha256(f"{spec.digest()} {draft.digest}".encode()).hexdigest()[:32]
            broadcast = self._claim_id(spec.app, key, digest)
            self._rows.keep(spec.app, draft.name, self.ttl_ms + ms(MAX_LIFE + MAX_AHEAD))
            is_free = False
            spec = replace(spec, audience=draft.name)
            created = self._store(broadcast, spec, draft.size, *_times(timing))
            is_free = not created  # by the key, whose rows were the same
        finally:
            if is_free:
                with contextlib.suppress(StoreUnavailableError):  # it ends by itself
                    self._rows.discard(spec.app, draft.name)
        if created:
            report = draft.report
            logs.emit(BroadcastRowsLoaded(spec.app, broadcast, report.rows, report.bad, draft.size))
        if not timing.starts_at_ms:
            self._begin(broadcast, draft.size)
        note = self._note(spec, timing, draft.size) if created else ""
        return Created(broadcast, not created, draft.report, note)

    def _note(self, spec: Spec, timing: Timing, size: int, limits: AppLimits | None = None) -> str:
        """Return what today cannot carry of a broadcast that was just created, in words."""
        with contextlib.suppress(StoreUnavailableError):  # created is created
            if limits is None:
                limits = self._quotas.limits(spec.app)
            if timing.starts_at_ms < limits.resets_at_ms:
                return limits.carried(spec.channel, size, carry_over=spec.carry_over)
        return ""

    def _timing(self, spec: Spec, key: str) -> Timing:
        """Return when a spec starts and ends; of what is new it is checked."""
        timing = Timing.of(spec, self._settings.zone_of(spec.app))
        if (spec.at or spec.until) and not self._is_made(spec, key):
            at_ms = self._now_ms()
            timing.check(at_ms, at_ms)
        return timing

    def _check_template(self, spec: Spec, key: str, *, is_fresh: bool = False) -> None:
        """Refuse a spec that no template of its app fits; what its key made goes on.

        Values with holes, which rows fill in, are not looked at.
        """
        faults = self._templates.faults(
            spec.app,
            spec.channel,
            spec.template_id,
            spec.data,
            values=not spec.columns,
            is_fresh=is_fresh,
        )
        if faults and not self._is_made(spec, key):
            raise InvalidInputError(faults)

    def _begin(self, broadcast: str, size: int) -> None:
        """Have the first window filled: of a small one here, of others by a worker.

        Raises:
            StoreUnavailableError: Redis did not answer; the keeper does it.
        """
        if size <= _SMALL:
            for lane in range(self._settings.lanes):
                self._splitter.fill(broadcast, lane)
        else:
            self._ask_for_split(broadcast)

    def _go_on(self, broadcast: str, size: int) -> None:
        """Go on where the creator of a broadcast may have died.

        Raises:
            StoreUnavailableError: Redis did not answer; the keeper does it.
        """
        self.adopt(broadcast)
        self._begin(broadcast, size)

    def reschedule(
        self, broadcast: str, at: str | datetime, *, until: str | datetime = "", zone: str = ""
    ) -> State:
        """Have a scheduled broadcast start at another time.

        Args:
            broadcast: its id.
            at: when it starts (see `Spec.checked`).
            until: when it ends at the latest; '': as before.
            zone: whose clocks show both; '': the zone that it was created with.

        Raises:
            InvalidInputError: as for `create`.
            IllegalMoveError: it is not scheduled any more.
            NotFoundError, StoreUnavailableError.
        """
        home = self._home(broadcast)
        spec = Spec.from_json(home["spec"])
        own = zone or spec.zone
        app_zone = self._settings.zone_of(spec.app)
        timing = Timing.read(at, until, zone_of(own) if own else app_zone)
        if not timing.starts_at_ms:
            raise InvalidInputError(["at: when is it to start?"])
        ends_at_ms = timing.ends_at_ms or int(home.get("ends_at_ms", 0))
        if home["state"] == State.SCHEDULED:
            whole = replace(timing, ends_at_ms=ends_at_ms)
            whole.check(self._now_ms(), int(home["created_at_ms"]))
        return self.move(broadcast, "reschedule", timing.starts, timing=timing)

    def start(self, broadcast: str) -> State:
        """Set a scheduled broadcast running whose time has come; its audience is read now.

        It is cancelled when its audience is not there any more.

        Raises:
            IllegalMoveError: it is not scheduled, or its time has not come.
            NotFoundError, StoreUnavailableError.
        """
        home = self._home(broadcast)
        spec = Spec.from_json(home["spec"])
        try:
            size = (
                int(home["audience_size"])
                if keys.is_rows(spec.audience)
                else self._audiences.measure(spec.app, spec.audience).members
            )
        except NotFoundError as error:
            return self.move(broadcast, "cancel", str(error))
        state = self.move(broadcast, "start", size=size)
        self._ask_for_split(broadcast)
        return state

    def _now_ms(self) -> int:
        return repeat("asking the time", partial(now_ms, self._client))

    def _is_made(self, spec: Spec, key: str) -> bool:
        """Say whether a key made a broadcast before."""
        if not key:
            return False
        held = repeat(
            "looking up the key", lambda: self._client.get(keys.idempotency(spec.app, key))
        )
        return bool(held) and self._exists(held.partition(" ")[0])

    def open_carrier(self, carrier: str, spec: Spec, lane: int, *, delivers: bool) -> None:
        """Store what carries single messages (see `messages`), unless it is there.

        Args:
            carrier: its id.
            spec: without content.
            lane: of its first message, where its canary begins.
            delivers: WeChat is known to deliver the template: it needs no canary.

        Raises:
            StoreUnavailableError: Redis did not answer; the same call goes on.
        """
        self._store(carrier, spec, 0, "canary_lane", lane, "open", int(delivers))

    def _store(
        self,
        broadcast: str,
        spec: Spec,
        size: int,
        *more: str | int,
        write: Callable[[str, list[str | int]], int] | None = None,
    ) -> bool:
        """List a broadcast, write it at its home and bring it to the lanes; say if it is new.

        Args:
            broadcast: its id.
            spec: what is sent to whom.
            size: members of the audience.
            *more: further fields of its home, and their values.
            write: writes the fields at a home's key, once, and says whether they are new; default:
                create.lua does. What it raises ends the call.
        """
        at_ms = self._now_ms()
        listing = self._listing(spec.app, broadcast, at_ms)
        repeat("listing the broadcast", lambda: in_order(self._client, listing))
        fields = self._fields(broadcast, spec, size, *more)
        home = keys.home(self.home_lane(broadcast), broadcast)
        created = (write or self._write)(home, fields)
        self.adopt(broadcast)
        if created:
            of = dict(zip(more[::2], more[1::2], strict=True))
            self._tell_created(broadcast, spec, size, int(of.get("starts_at_ms", 0)))
        return bool(created)

    def _listing(self, app: str, broadcast: str, at_ms: int) -> list[Question]:
        """Return what lists a broadcast, before it is written.

        Nothing may run that forgetting a user would not find. It is listed as long as any outcome
        may live: the first one is written up to a whole life after its start.
        """
        listed_ms = self.ttl_ms + ms(MAX_LIFE + MAX_AHEAD)
        past = f"{at_ms - listed_ms}"
        return [
            ("ZADD", keys.active(app), "NX", at_ms, broadcast),
            ("ZADD", keys.history(app), "NX", at_ms, broadcast),
            ("ZREMRANGEBYSCORE", keys.history(app), "-inf", past),
            ("PEXPIRE", keys.history(app), listed_ms),
            ("ZADD", keys.APPS, at_ms, app),
            ("ZREMRANGEBYSCORE", keys.APPS, "-inf", past),
            ("PEXPIRE", keys.APPS, listed_ms),
        ]

    def _fields(self, broadcast: str, spec: Spec, size: int, *more: str | int) -> list[str | int]:
        """Return what is written at a broadcast's home, fields and values."""
        return [
            "spec",
            spec.to_json(),
            "app",
            spec.app,
            "state",
            State.RUNNING,
            "generation",
            1,
            "audience_size",
            size,
            "expires_in_ms",
            spec.expires_in_ms,
            "canary_lane",
            self.home_lane(broadcast),
            *more,  # a field that comes twice is what it is last
        ]

    @staticmethod
    def _tell_created(broadcast: str, spec: Spec, size: int, starts_at_ms: int = 0) -> None:
        logs.emit(
            BroadcastCreated(
                spec.app,
                broadcast,
                spec.channel,
                spec.template_id,
                spec.audience,
                size,
                starts_at_ms,
            )
        )

    def _write(self, home: str, fields: list[str | int]) -> int:
        created, *_ = self._create.repeated(
            "creating the broadcast", CreateKeys(home), CreateArgs(self.ttl_ms), fields
        )
        return int(created)

    def _claim_id(self, app: str, key: str, digest: str, new: str = "", *, near: str = "") -> str:
        """Return a new id, or the one that the key claimed before.

        Args:
            app: alias of the app.
            key: an idempotency key, or ''.
            digest: what tells the content from another under the same key.
            new: the new id; '': any.
            near: a broadcast whose home lane a new one is to have; '': any.

        Raises:
            IdempotencyConflictError: the key was used with other content.
            StoreUnavailableError: Redis did not answer.
        """
        broadcast = new or _new_id()
        while near and self.home_lane(broadcast) != self.home_lane(near):
            broadcast = _new_id()
        if not key:
            return broadcast
        mine = f"{broadcast} {digest}"
        held = repeat(
            "claiming the key",
            lambda: self._client.set(
                keys.idempotency(app, key), mine, nx=True, get=True, px=ms(_KEY_TTL)
            ),
        )
        known, content = (held or mine).split(" ")
        if content != digest:
            raise IdempotencyConflictError(key, known)
        return str(known)


def _times(timing: Timing) -> list[str | int]:
    """Return what a home keeps of a timing, fields and values."""
    fields: list[str | int] = []
    if timing.ends_at_ms:
        fields += ("ends_at_ms", timing.ends_at_ms)
    if timing.starts_at_ms:
        fields += ("state", State.SCHEDULED, "starts_at_ms", timing.starts_at_ms)
    return fields


def _new_id() -> str:
    # time first, so that ids sort by it for people; the server's clock decides everything else
    return f"{time.time_ns() // 1_000_000:011x}{secrets.token_hex(5)}"
