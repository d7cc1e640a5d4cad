"""How the status of a broadcast looks: as a table, in one line, and while it is waited for."""

import time
from typing import TYPE_CHECKING, Any, Final

from producers.cli.interrupts import Interrupts
from producers.cli.progress import Progress
from producers.cli.session import Session, table

if TYPE_CHECKING:
    from producers.broadcasts import Broadcasts
from producers.broadcasts.status import Status
from producers.store import keys

_EVERY_S: Final = 0.5
_STILL_S: Final = 2.0
"""Nobody was settled for so long: is there a worker at all?"""
_PATIENCE_S: Final = 60.0
"""A wait outlives a Redis that is away for so long: it restarts, and the broadcast goes on."""


def seconds_of(status: "Status") -> float:
    """Return how long a broadcast took from its start on; 0 while it has not ended."""
    return max(0, status.ended_at_ms - max(status.created_at_ms, status.starts_at_ms)) / 1000


def in_words(status: "Status") -> str:
    """Return the outcomes in one line."""
    return ", ".join(f"{count:,} {outcome}" for outcome, count in status.outcomes.items())


def to_whom(status: "Status") -> str:
    """Return the audience; of a retry, whose recipients; rows and single messages have none."""
    if status.retry_of:
        return f"{status.retry_for} of {status.retry_of}"
    if keys.is_test_carrier(status.id):
        return "test sends"
    if keys.is_rows(status.audience):
        return "rows"
    return status.audience or "single messages"


def why(status: "Status") -> str:
    """Return why a broadcast is in its state, '' when nobody said."""
    code = f"errcode {status.errcode}" if status.errcode else ""
    return ", ".join(part for part in (status.reason, code) if part)


def hindered_by(session: Session, status: "Status") -> str:
    """Return why a broadcast that runs does not move; '' when nothing keeps it, or it is over.

    What it waits for by itself (`Status.waiting`) is not among it.
    """
    from producers.care import roster
    from producers.words import State

    if status.state is not State.RUNNING or status.complete:
        return ""
    return roster.look(session.client).hinders(status.app)


def state_of(status: "Status") -> str:
    """Return the state, and why: ``paused: over the error budget, errcode 45009``."""
    return ": ".join(part for part in (status.state.value, why(status)) if part)


def recipients_of(status: "Status") -> int:
    """Return how many it has: as far as it is split as many as expected, in the end those found."""
    return status.total if status.complete else max(status.expected, status.total)


def _held_up(status: "Status", hindered: str) -> list[tuple[str, str]]:
    """Return what keeps a broadcast, or will, in rows."""
    slowed = f"{status.limit:g} sends/s of the app: WeChat takes less" if status.limit else ""
    said = (("waits", status.waiting), ("waits", hindered), ("today", status.note))
    return [row for row in (*said, ("limit", slowed)) if row[1]]


def as_table(status: "Status", hindered: str = "") -> Any:
    """Return a broadcast as a table; with what keeps it from moving, if something does."""
    rows = table("broadcast", status.id)
    rows.add_row("app, channel", f"{status.app}, {status.channel}")
    rows.add_row("template_id", status.template_id)
    size = f" ({status.expected:,} when created)" if status.audience else ""
    rows.add_row("audience", f"{to_whom(status)}{size}")
    if status.family:
        rows.add_row("family", ", ".join(status.family))
    rows.add_row("state", state_of(status))
    if status.weight != 1:
        rows.add_row("weight", f"{status.weight}")
    if status.purpose:
        rows.add_row("purpose", status.purpose)
    for name, text in _held_up(status, hindered):
        rows.add_row(name, text)
    if seconds_of(status):
        rows.add_row("took", f"{seconds_of(status):,.1f} s")
    rows.add_section()
    rows.add_row("settled", f"{status.settled:,} of {recipients_of(status):,}")
    for outcome, count in status.outcomes.items():
        rows.add_row(f"  {outcome}", f"{count:,}")
    for errcode, count in sorted(status.errcodes.items()):
        rows.add_row(f"  answers {errcode}", f"{count:,}")
    if status.rate:
        left = "" if status.eta_s is None else f", {status.eta_s:,} s left"
        rows.add_row("pace", f"{status.rate:,.1f} sends/s{left}")
    if status.queued or status.delayed or status.in_flight:
        rows.add_row(
            "now",
            f"{status.queued:,} queued, {status.delayed:,} delayed, {status.in_flight:,} in flight",
        )
    return rows


def show(bar: Progress, status: "Status") -> None:
    """Show a status as progress."""
    bar.update(
        status.settled,
        in_words(status),
        total=max(recipients_of(status), 1),
        last=status.complete,
    )


class _Stillness:
    """Says once what keeps a broadcast from moving that has stood still for a while."""

    def __init__(self, session: Session, bar: Progress) -> None:
        self._session = session
        self._bar = bar
        self._settled = -1
        self._since = time.monotonic()
        self._said = ""

    def see(self, status: "Status") -> None:
        """Look at a status."""
        now = time.monotonic()
        if status.settled != self._settled:
            self._settled, self._since, self._said = status.settled, now, ""
        elif now - self._since > _STILL_S:
            self._since = now
            hindered = hindered_by(self._session, status)
            said = f"{hindered}; waiting for one" if hindered else status.waiting
            if said and said != self._said:
                self._bar.note(said)
            self._said = said


def wait_for_end(
    session: Session, broadcasts: "Broadcasts", broadcast: str, interrupts: Interrupts
) -> "Status":
    """Show a broadcast's progress until it has ended.

    A pause is said and waited through: the operator may resume. So is what keeps it from moving.

    Raises:
        Interrupted: somebody does not want to wait any more; the broadcast goes on.
        NotFoundError: no such broadcast.
        StoreUnavailableError: Redis was away for a minute.
    """
    from producers.errors import StoreUnavailableError
    from producers.words import ENDED, State

    state = State.RUNNING
    seen_at = time.monotonic()
    with Progress(f"broadcast {broadcast}", None) as bar:
        stillness = _Stillness(session, bar)
        while True:
            try:
                status = broadcasts.status(broadcast)
                stillness.see(status)
            except StoreUnavailableError:
                if time.monotonic() - seen_at > _PATIENCE_S:
                    raise
                bar.note("Redis does not answer; waiting for it")
                continue
            seen_at = time.monotonic()
            if status.state is not state:
                before, state = state, status.state
                if state is State.SCHEDULED:
                    bar.note(status.waiting)
                elif state is State.PAUSED:
                    bar.note(
                        f"paused: {why(status) or 'asked for'}; waiting for "
                        f"`wxbroadcast resume {broadcast}` (or cancel)"
                    )
                elif state is State.RUNNING:
                    bar.note("started" if before is State.SCHEDULED else "resumed")
            show(bar, status)
            if state in ENDED and status.complete:
                return status
            interrupts.wait(_EVERY_S)
