"""Test sends: a broadcast's very message, sent to a few named users, and what WeChat answered.

Each is a single message (`broadcasts.messages`): it needs a permit and spends it, the suppression
list is looked at, the rate and the canary hold. Its carriers are for tests alone, so that what
WeChat says of a test stops no other message; whoever tests again has looked, and so sets the day's
carrier of the template going again. A test that is not sent within a minute is never sent.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

from producers import logs
from producers.broadcasts import Broadcasts
from producers.broadcasts.messages import Messages
from producers.broadcasts.spec import Spec
from producers.care import roster
from producers.errors import (
    IllegalMoveError,
    InvalidInputError,
    MessagesStoppedError,
    NobodySendsError,
    NotFoundError,
)
from producers.logs.events import MessagesTested
from producers.openid import check_openid
from producers.rehearsals.answers import meaning_of
from producers.rows.check import Checker
from producers.rows.reading import Row, read_rows
from producers.settings import Settings
from producers.store import Client
from producers.store.clock import now_ms
from producers.store.retry import repeat
from producers.templates import Templates
from producers.words import Outcome, State

MOST: Final = 20
"""Users of one test send."""

LIFE: Final = timedelta(minutes=1)
"""What is not sent within so long is late: nobody looks any more."""

EVERY_S: Final = 0.2
"""The pause between two looks."""

_PAUSED: Final = "stopped: "


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of the message to one user.

    Attributes:
        openid: the user.
        message: the message's id (see `Messages.show`).
        state: waiting, in_flight or ended.
        outcome: once it has ended (see `Outcome`), else ''.
        errcode: WeChat's, 0 when there is none.
        meaning: what that means, in words; '' while it has not ended.
        advice: what to do, '' for nothing.
        row: of rows, the number of the one that says what the user was told; 0: none does.
    """

    openid: str
    message: str
    state: str = "waiting"
    outcome: str = ""
    errcode: int = 0
    meaning: str = ""
    advice: str = ""
    row: int = 0


@dataclass(frozen=True, slots=True)
class Tried:
    """A test send.

    Attributes:
        app, channel, template_id: what was sent.
        trials: one for each user, in the order given.
        waits: why those that have not ended do not move, in words; '' where nothing is known.
        ended: nothing more will come.
        delivered: WeChat took every one of them.
    """

    app: str
    channel: str
    template_id: str
    trials: list[Trial]
    waits: str = ""
    ended: bool = False
    delivered: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready fields."""
        return asdict(self)


def _rows_of(
    openids: Sequence[str], spec: Spec, rows: Iterable[object] | str | Path
) -> dict[str, tuple[int, Spec]]:
    """Return of each user the number of a row, and what it says: the user's own, or the first.

    Raises:
        InvalidInputError: one of these rows is bad, or none can be read.
    """
    found: dict[str, Row] = {}
    first = None
    for row in read_rows(rows, spec.columns):
        first = first or row
        if row.openid in openids:
            found.setdefault(row.openid, row)
        if len(found) == len(openids):
            break
    if first is None:
        raise InvalidInputError(["rows: there are none below the header"])
    chosen = {openid: found.get(openid, first) for openid in openids}
    checker = Checker(spec)
    faults = []
    for row in {row.number: row for row in chosen.values()}.values():
        fault = (row.rule, row.detail) if row.rule else checker.fault(row.values)
        faults += [f"row {row.number}: {fault[1]}"] if fault else []
    if faults:
        raise InvalidInputError(faults)
    return {openid: (row.number, spec.said(row.values)) for openid, row in chosen.items()}


class Trials:
    """Sends tests. Safe to share between threads."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._messages = Messages(client, settings)
        self._broadcasts = Broadcasts(client, settings)
        self._templates = Templates(client, settings)

    def begin(
        self,
        openids: Sequence[str],
        /,
        *,
        rows: Iterable[object] | str | Path | None = None,
        **spec: Any,
    ) -> Tried:
        """Send a broadcast's message to some users, and to nobody else.

        Args:
            openids: 1 to 20 users.
            rows: as for `Broadcasts.create_with_rows`: each user is told what the user's own row
                says, or the first one. They are read as far as needed.
            **spec: as for `Spec.checked`; the audience may be left out, and with rate, times and
                priority says nothing here.

        Raises:
            UnknownAppError: no such app.
            InvalidInputError: with every fault; nothing was sent.
            NobodySendsError: no worker would send it now; nothing was sent.
            TooManyMessagesError: a user was sent 64 tests of this template today.
            StoreUnavailableError: Redis did not answer; some may have been sent.
        """
        self._settings.app(spec["app"])
        checked = self._checked(openids, {**spec, "rows": rows is not None})
        said = _rows_of(openids, checked, rows) if rows is not None else {}
        told = [said.get(openid, (0, checked)) for openid in openids]
        self._fit([one for _, one in told])
        reason = self._hindered(checked.app)
        if reason:
            raise NobodySendsError(reason)
        trials = [
            Trial(openid, self._post(one, openid), row=row)
            for openid, (row, one) in zip(openids, told, strict=True)
        ]
        logs.emit(MessagesTested(checked.app, checked.channel, checked.template_id, len(openids)))
        return Tried(checked.app, checked.channel, checked.template_id, trials)

    @staticmethod
    def _checked(openids: Sequence[str], given: dict[str, Any]) -> Spec:
        faults = []
        if isinstance(openids, str) or not 1 <= len(openids) <= MOST:
            faults.append(f"test: a list of 1 to {MOST} openids")
        elif len(set(openids)) < len(openids):
            faults.append("test: an openid comes twice")
        else:
            for openid in openids:
                try:
                    check_openid(openid)
                except InvalidInputError as error:
                    faults += [f"test: {fault}" for fault in error.faults]
        try:
            spec = Spec.checked(**{"audience": "", **given})
        except InvalidInputError as error:
            raise InvalidInputError([*faults, *error.faults]) from None
        if faults:
            raise InvalidInputError(faults)
        return spec

    def _fit(self, specs: Sequence[Spec]) -> None:
        """Refuse what no template fits, before the first of them is posted."""
        faults: dict[str, None] = {}
        for one in specs:
            found = self._templates.faults(
                one.app, one.channel, one.template_id, one.data, waits=False
            )
            faults |= dict.fromkeys(found)
        if faults:
            raise InvalidInputError([*faults])

    def _hindered(self, app: str) -> str:
        """Return why nothing would be sent now, '' for nothing."""
        window = self._settings.window_of(app)
        if window is not None and self._settings.app(app).window_holds_messages:
            at_ms = repeat("asking the time", partial(now_ms, self._client))
            if at_ms < window.around(at_ms)[0]:
                return f"single messages wait for the app's hours, which open {window.opens_at}"
        return roster.look(self._client).hinders(app)

    def _post(self, spec: Spec, openid: str) -> str:
        for again in (True, False):
            try:
                return self._messages.post(
                    app=spec.app,
                    channel=spec.channel,
                    template_id=spec.template_id,
                    openid=openid,
                    data=dict(spec.data),
                    page=spec.page,
                    emphasis_keyword=spec.emphasis_keyword,
                    miniprogram_state=spec.miniprogram_state,
                    lang=spec.lang,
                    expires_in=LIFE,
                    test=True,
                ).id
            except MessagesStoppedError as stopped:
                if not again:
                    raise
                self._resume(stopped.carrier)
        raise AssertionError  # the second time it was raised

    def _resume(self, carrier: str) -> None:
        """Set what an earlier test stopped going again."""
        try:
            self._broadcasts.resume(carrier)
        except IllegalMoveError:
            return  # somebody else did

    def look(self, tried: Tried) -> Tried:
        """Return what became of a test send by now.

        Raises:
            StoreUnavailableError: Redis did not answer; looking again is harmless.
        """
        trials = [one if one.state == "ended" else self._seen(one) for one in tried.trials]
        open_ = [one for one in trials if one.state != "ended"]
        waits = self._waits(tried.app, open_) if open_ else ""
        stopped = waits.startswith(_PAUSED) and all(one.state == "waiting" for one in open_)
        return replace(
            tried,
            trials=trials,
            waits=waits,
            ended=not open_ or stopped,
            delivered=all(one.outcome == Outcome.DELIVERED for one in trials),
        )

    def _seen(self, trial: Trial) -> Trial:
        try:
            status = self._messages.show(trial.message)
        except NotFoundError:  # the user was forgotten meanwhile
            return replace(trial, state="ended", meaning="the user was forgotten meanwhile")
        if not status.outcome:
            return replace(trial, state=status.state)
        words = meaning_of(status.outcome, status.errcode)
        return replace(
            trial,
            state=status.state,
            outcome=status.outcome,
            errcode=status.errcode,
            meaning=words.meaning,
            advice=words.advice,
        )

    def _waits(self, app: str, waiting: Sequence[Trial]) -> str:
        """Return why messages do not move, '' where nothing is known."""
        for carrier in {one.message.partition(".")[0] for one in waiting}:
            status = self._broadcasts.status(carrier)
            if status.state is State.PAUSED:
                words = meaning_of(Outcome.FAILED, status.errcode)
                said = f"{words.meaning}, errcode {status.errcode}" if status.errcode else ""
                return f"{_PAUSED}{said or status.reason}"
            if status.waiting:
                return status.waiting
            if status.delayed and status.errcodes:  # some answers are tried again for a while
                answers = (
                    f"{code} ({meaning_of(Outcome.FAILED, int(code)).meaning})"
                    for code in sorted(status.errcodes, key=int)
                )
                return f"tried again; WeChat's answers to tests of it today: {', '.join(answers)}"
        return roster.look(self._client).hinders(app)

    def watch(self, tried: Tried, wait_s: float) -> Iterator[Tried]:
        """Yield what became of a test send, again and again until it has ended.

        Args:
            tried: as `begin` returned it.
            wait_s: seconds after which it is not waited for any more.
        """
        until = time.monotonic() + wait_s
        while True:
            tried = self.look(tried)
            yield tried
            if tried.ended or time.monotonic() >= until:
                return
            time.sleep(EVERY_S)
