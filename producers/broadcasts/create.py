"""Broadcasts: one message to one audience, created once, at once or for later.

What is to be created is checked here; how it comes into Redis, whoever dies meanwhile, is `birth`.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final

from producers import logs
from producers.audiences import Audiences
from producers.broadcasts import birth
from producers.broadcasts.birth import Birth
from producers.broadcasts.glance import glance
from producers.broadcasts.spec import MAX_LIFE, Spec, check_purpose
from producers.broadcasts.timing import MAX_AHEAD, Timing
from producers.errors import (
    InvalidInputError,
    NotFoundError,
    StoreUnavailableError,
)
from producers.logs.events import BroadcastRowsLoaded
from producers.quotas import AppLimits
from producers.rows import BadRowsError, Rows, RowsReport
from producers.settings import Settings, ms
from producers.store import Client, keys
from producers.store.lanes.following import reading
from producers.store.retry import repeat
from producers.templates import Templates
from producers.times.zones import zone_of
from producers.words import State

_FEW: Final = 1_000
"""An audience up to so many is split in the step that creates it: some ms of Redis."""


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


class Broadcasts(Birth):
    """Creates broadcasts (`Birth`), moves them (`Lifecycle`) and looks at them (`Register`).

    Safe to share between threads.
    """

    def __init__(self, client: Client, settings: Settings) -> None:
        super().__init__(client, settings)
        self._audiences = Audiences(client, settings)
        self._rows = Rows(client, settings)
        self._templates = Templates(client, settings)

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
        seen = reading(
            self._client,
            self._settings,
            lambda: glance(
                self._client, self._settings, spec, self._templates, self._quotas, scripts
            ),
        )
        size = seen.size if seen else self._audiences.measure(spec.app, spec.audience).members
        timing = self._timing(spec, key)
        if not trusts_template:
            self._check_template(spec, key, is_fresh=seen is not None and seen.is_fresh)
        mine = birth.new_id()
        broadcast = self._claim_id(spec.app, key, spec.digest(), mine)
        is_quick = broadcast == mine and size <= _FEW and not timing.starts_at_ms
        more = [*birth.times(timing), *self._canary(broadcast, seen)]
        if seen and is_quick and self._splitter.is_plain(spec, size):
            created = self._bear(broadcast, spec, seen, *more)
        else:
            created = self._store(broadcast, spec, size, *more)
            if not timing.starts_at_ms:
                self._begin(broadcast, size)
        note = self._note(spec, timing, size, seen.limits if seen else None) if created else ""
        return Created(broadcast, known=not created, note=note)

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
            created = self._store(broadcast, spec, draft.size, *birth.times(timing))
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
