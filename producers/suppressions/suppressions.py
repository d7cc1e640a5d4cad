"""Suppressions: an app's list of those who are sent nothing, whatever audience has them.

Each reason has a list of its own, kept as an audience is, a set per bucket, so that the claim of a
message looks at it in its own lane (see listed.lua): ``imported`` by operators, ``opted_out`` by
the user, ``invalid`` when WeChat said 40003 of the openid in a broadcast that delivers (before its
first delivery a wrong appid says that of everybody, and nobody is believed). A message to somebody
listed ends as ``suppressed`` and costs no permit; one that was perhaps sent before is in doubt.

When a user is forgotten, what somebody wished has to hold on, or the next import of an audience
would send to the user again: whoever was imported or opted out stays as a digest of the openid
(SHA-1) under ``forgotten``; nobody can list openids from it. What WeChat said is not kept.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from typing import Any, Final, NamedTuple

from producers import logs
from producers.audiences import Audiences
from producers.audiences.batches import batches
from producers.audiences.names import Names
from producers.audiences.reading import read_members
from producers.audiences.reports import ImportReport, RemovalReport
from producers.errors import InvalidInputError
from producers.logs.events import SuppressionChanged, UserOpted
from producers.openid import check_openid
from producers.settings import Settings
from producers.store import Client, deadline, keys
from producers.store.lanes.following import by_lane, steady
from producers.store.retry import repeat_all
from producers.store.scripts import Script


class Reason(StrEnum):
    """Why somebody is sent nothing."""

    IMPORTED = "imported"
    """An operator, or a backend, said so."""
    OPTED_OUT = "opted_out"
    """The user said so."""
    INVALID = "invalid"
    """WeChat said 40003: the openid is none of this app's."""
    FORGOTTEN = "forgotten"
    """One of the first two, of a user who was forgotten since."""

    @property
    def list(self) -> str:
        """The name of its sets; no audience has it."""
        return f"!{self}"


_ALL: Final = " ".join(Reason)
_OWN: Final = f"{Reason.OPTED_OUT} {Reason.INVALID} {Reason.FORGOTTEN}"
"""What a user who opts in again takes back."""


class LiftKeys(NamedTuple):
    """KEYS of lift.lua."""

    imported: str
    opted_out: str
    invalid: str
    forgotten: str

    @classmethod
    def of(cls, lane: int, app: str) -> "LiftKeys":
        """Return those of an app in a lane."""
        return cls(*(keys.audience_size(lane, app, reason.list) for reason in Reason))


class LiftArgs(NamedTuple):
    """ARGV of lift.lua; the items follow."""

    prefix: str
    app: str
    reasons: str
    forget: int


LIFT: Final = Script(__package__, "lift", LiftKeys, LiftArgs)


class _NoNames(Names):
    """Sets that are no audience's stand under no name."""

    def begin(self, app: str, name: str) -> None:
        """Nothing is named."""

    def register(self, app: str, name: str) -> None:
        """Nothing is named."""


class _Lists(Audiences):
    """The lists, filled as audiences are."""

    def __init__(self, client: Client, settings: Settings) -> None:
        super().__init__(client, settings)
        self._names = _NoNames(client, settings)

    def add_to_buckets(self, app: str, name: str, members: dict[int, list[str]]) -> int:
        """Put members into buckets, which are not told by their names; returns how many are new."""
        return self._store(app, name, members)


class Suppressions:
    """The suppression list of every app. Safe to share between threads."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._lists = _Lists(client, settings)
        self._lift = LIFT.on(client)

    def import_rows(
        self,
        app: str,
        reason: str,
        rows: Iterable[bytes | str],
        on_progress: Callable[[ImportReport], None] | None = None,
    ) -> ImportReport:
        """Put the openids of a file on the list, in constant memory.

        Args:
            app: alias of the app.
            reason: ``imported``, or ``opted_out``: of users who told you.
            rows: as `Audiences.import_rows` takes them.
            on_progress: called after each batch with the report so far.

        Raises:
            UnknownAppError: no such app.
            InvalidInputError: the reason is none of the two.
            StoreUnavailableError: Redis did not answer; the same rows again are harmless.
        """
        checked = _given(reason)
        report = self._lists.import_rows(app, checked.list, rows, on_progress)
        logs.emit(SuppressionChanged(app, checked, report.added, 0))
        return report

    def restore(self, app: str, reason: Reason, rows: Iterable[bytes | str]) -> ImportReport:
        """Put openids on the list for a reason that another deployment had; as `import_rows`.

        Args:
            app: alias of the app.
            reason: any but `Reason.FORGOTTEN`.
            rows: as `Audiences.import_rows` takes them.
        """
        report = self._lists.import_rows(app, reason.list, rows)
        logs.emit(SuppressionChanged(app, reason, report.added, 0))
        return report

    def restore_forgotten(self, app: str, buckets: Iterable[int], digests: Iterable[str]) -> int:
        """Put digests of forgotten users on the list, in each bucket that they may be of.

        Returns:
            How many are new, counted once in each bucket.
        """
        return self._lists.add_to_buckets(
            app, Reason.FORGOTTEN.list, {bucket: list(digests) for bucket in buckets}
        )

    def iterate(self, app: str) -> Iterator[tuple[Reason, str]]:
        """Yield (reason, openid) of all on the list, in bounded memory.

        Of the forgotten there is nothing but a digest, which is not among them.

        Raises:
            UnknownAppError: no such app.
            StoreUnavailableError: Redis did not answer.
        """
        self._settings.app(app)
        for reason in Reason:
            if reason is not Reason.FORGOTTEN:
                for _, openids in read_members(self._client, self._settings, app, reason.list):
                    yield from ((reason, openid) for openid in openids)

    def csv_lines(self, app: str) -> Iterator[bytes]:
        """Yield a header and a line for each of `iterate`: ``openid,reason``."""
        self._settings.app(app)
        yield b"openid,reason\n"
        for reason, openid in self.iterate(app):
            yield f"{openid},{reason}\n".encode()

    def replace_rows(
        self,
        app: str,
        reason: str,
        rows: Iterable[bytes | str],
        on_progress: Callable[[ImportReport], None] | None = None,
        *,
        allow_empty: bool = False,
    ) -> ImportReport:
        """Make the openids of a file the only ones of a reason; as `import_rows`.

        What users said themselves, and what WeChat said, stays. A file without a row is an error,
        for all who were on the list would be sent to again, unless ``allow_empty`` is meant.
        """
        checked = _given(reason)
        report = self._lists.replace_rows(
            app, checked.list, rows, on_progress, allow_empty=allow_empty
        )
        logs.emit(SuppressionChanged(app, checked, report.added, report.removed))
        return report

    def remove_rows(
        self,
        app: str,
        rows: Iterable[bytes | str],
        on_progress: Callable[[RemovalReport], None] | None = None,
    ) -> RemovalReport:
        """Take the openids of a file off the list, whatever the reason; as `import_rows`."""
        self._settings.app(app)
        report = RemovalReport()
        for members in deadline.paced(batches(rows, report, self._settings)):
            removed = self._lifted(app, _ALL, members)
            report.removed += removed
            report.unknown += sum(map(len, members.values())) - removed
            if on_progress:
                on_progress(report)
        logs.emit(SuppressionChanged(app, "any", 0, report.removed))
        return report

    @steady
    def counts(self, app: str) -> dict[str, int]:
        """Return reason → how many are listed for it.

        Raises:
            UnknownAppError: no such app.
            StoreUnavailableError: Redis did not answer.
        """
        self._settings.app(app)
        lanes = self._settings.layout.lanes

        def ask(pipeline: Any) -> None:
            for lane in lanes:
                for key in LiftKeys.of(lane, app):
                    pipeline.get(key)

        sizes = repeat_all("counting the suppressed", self._client, ask)
        return {
            reason.value: sum(int(size or 0) for size in sizes[place :: len(Reason)])
            for place, reason in enumerate(Reason)
        }

    def opt_out(self, app: str, openid: str) -> None:
        """Send a user nothing more, as the user wishes.

        Raises:
            UnknownAppError: no such app.
            InvalidInputError: the openid is none.
            StoreUnavailableError: Redis did not answer; the same call again is harmless.
        """
        check_openid(openid)
        self._lists.import_rows(app, Reason.OPTED_OUT.list, [openid])
        logs.emit(UserOpted(app, openid, out=True))

    def opt_in(self, app: str, openid: str) -> bool:
        """Take back what a user said, or WeChat of the user; what was imported stays.

        Returns:
            Whether there was anything to take back.

        Raises:
            As `opt_out`.
        """
        self._settings.app(app)
        check_openid(openid)
        found = self._lifted(app, _OWN, self._in_bucket(openid))
        logs.emit(UserOpted(app, openid, out=False))
        return bool(found)

    def forget(self, app: str, openid: str) -> None:
        """Leave no openid on the list; see the module.

        Raises:
            StoreUnavailableError: Redis did not answer; forget again.
        """
        openids = " ".join(one for one in Reason if one is not Reason.FORGOTTEN)
        self._lifted(app, openids, self._in_bucket(openid), forget=True)

    def _in_bucket(self, openid: str) -> dict[int, list[str]]:
        return {self._settings.layout.bucket_of(openid): [openid]}

    def _lifted(
        self, app: str, reasons: str, members: dict[int, list[str]], *, forget: bool = False
    ) -> int:
        """Take openids, by bucket, off lists; returns how many were on any."""

        def lift(lane: int, some: dict[int, list[str]]) -> int:
            return int(
                self._lift.repeated(
                    "changing the suppression list",
                    LiftKeys.of(lane, app),
                    LiftArgs(keys.lane_prefix(lane), app, reasons, int(forget)),
                    [f"{bucket}:{one}" for bucket, openids in some.items() for one in openids],
                )
            )

        return by_lane(self._client, self._settings, members, lift)


def ask_reasons(pipeline: Any, lane: int, app: str, bucket: int, openid: str) -> None:
    """Ask in a pipeline why a user is listed; `reasons_of` reads the answers."""
    for reason in Reason:
        hidden = reason is Reason.FORGOTTEN
        pipeline.sismember(
            keys.audience(lane, app, reason.list, bucket), digest(openid) if hidden else openid
        )


def reasons_of(answers: Iterable[Any]) -> list[str]:
    """Return why a user is listed, of the answers to `ask_reasons`."""
    return [reason.value for reason, found in zip(Reason, answers, strict=True) if found]


def digest(openid: str) -> str:
    """Return what stays of a forgotten user's openid; listed.lua makes the same."""
    return hashlib.sha1(openid.encode(), usedforsecurity=False).hexdigest()


def _given(reason: str) -> Reason:
    if reason not in {Reason.IMPORTED, Reason.OPTED_OUT}:
        raise InvalidInputError([f"reason {reason!r}: take imported or opted_out"])
    return Reason(reason)
