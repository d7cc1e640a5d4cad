"""Audiences: named sets of openids of one app; ``all`` is every openid that ever gave a permit.

Kept as one set per bucket, so that a broadcast can be split bucket by bucket while members come
and go. Importing is adding: the same file twice changes nothing. If the process dies in the
middle, what was answered stays; import the file again for the rest. So does removing.

A running broadcast reads its audience as it goes: whoever is removed before his bucket was split is
no recipient, whoever was split stays one. A broadcast whose audience is deleted ends with those who
were split until then; so does one whose expression names it (`expressions`), were it only to leave
its members out.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from functools import partial
from typing import Final, Literal, NamedTuple

from producers import logs
from producers.audiences.batches import AudienceKeys, arguments, batches, sets
from producers.audiences.counting import Counter, Size
from producers.audiences.expressions import NAME, Expression
from producers.audiences.names import ALL, Names
from producers.audiences.reports import AudiencePage, ImportReport, RemovalReport
from producers.audiences.switch import BESIDE_LIFE, Switch
from producers.errors import InvalidInputError, StoreUnavailableError
from producers.logs.events import AudienceDeleted
from producers.settings import Settings, ms
from producers.store import Client, deadline, keys
from producers.store.buckets import filled_buckets
from producers.store.lanes.following import by_lane, each_lane
from producers.store.scripts import NoArgs, Script

_BUCKETS: Final = 100
"""Buckets per script run of a deletion: some thousand members."""
_PASSES: Final = 3
"""An import that runs on while its audience is deleted is followed so often."""
_DROPPED_KEPT: Final = timedelta(days=8)
"""How long a deleted audience is known as one: a broadcast lives 7 days."""
MOST: Final = 1000
"""Audiences on one page of a list."""


class AddArgs(NamedTuple):
    """ARGV of add.lua; the openids of each bucket follow."""

    ttl_ms: int | Literal[""]


ADD: Final = Script(__package__, "add", AudienceKeys, AddArgs)
REMOVE: Final = Script(__package__, "remove", AudienceKeys, NoArgs)


class DropKeys(NamedTuple):
    """KEYS of drop.lua; the sets follow."""

    size: str
    buckets: str
    dropped: str


class DropArgs(NamedTuple):
    """ARGV of drop.lua; the buckets follow."""

    ttl_ms: int


DROP: Final = Script(__package__, "drop", DropKeys, DropArgs)


class Audiences:
    """The audiences of every app. Safe to share between threads."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._add = ADD.on(client)
        self._remove = REMOVE.on(client)
        self._drop = DROP.on(client)
        self._names = Names(client, settings)
        self._counter = Counter(client, settings)
        self._switch = Switch(client, settings)

    def import_rows(
        self,
        app: str,
        name: str,
        rows: Iterable[bytes | str],
        on_progress: Callable[[ImportReport], None] | None = None,
    ) -> ImportReport:
        """Add the openids of a file to an audience, in constant memory.

        Args:
            app: alias of the app.
            name: the audience: 1-64 letters, digits, ``_ . -``; not ``all``.
            rows: lines: an openid each; or CSV, with a header that names a column ``openid``, or
                the openid first; or JSON lines, a string or an object with ``openid``.
            on_progress: called after each batch with the report so far.

        Raises:
            UnknownAppError: no such app.
            InvalidInputError: the name is not one, or the audience is being deleted.
            StoreUnavailableError: Redis did not answer; see the module's docstring.
        """
        self._settings.app(app)
        self._names.begin(app, name)
        report = ImportReport()
        for members in deadline.paced(batches(rows, report, self._settings)):
            added = self._store(app, name, members)
            report.added += added
            report.known += sum(map(len, members.values())) - added
            if on_progress:
                on_progress(report)
        self._names.register(app, name)  # who deleted it meanwhile did not delete what came after
        if on_progress:
            on_progress(report)
        return report

    def replace_rows(
        self,
        app: str,
        name: str,
        rows: Iterable[bytes | str],
        on_progress: Callable[[ImportReport], None] | None = None,
        *,
        allow_empty: bool = True,
    ) -> ImportReport:
        """Make the openids of a file an audience's only members, in constant memory.

        Args:
            app: alias of the app.
            name: the audience, as for `import_rows`; it is made if there is none.
            rows: as `import_rows` takes them. When they cannot be read to the end, or not one of
                them holds an openid, the audience stays as it was.
            on_progress: called after each batch with the report so far; who is new is known at
                the end.
            allow_empty: without a row the audience becomes empty; else that is an error.

        Raises:
            UnknownAppError: no such app.
            InvalidInputError: the name is not one, the audience is being deleted, another call
                goes on replacing it, or there is no row where there must be one.
            StoreUnavailableError: Redis did not answer; see the module's docstring.
        """
        self._settings.app(app)
        self._names.begin(app, name)
        report, beside = ImportReport(), self._switch.new_name()
        give_up_at = time.monotonic() + BESIDE_LIFE.total_seconds() / 2
        try:
            for members in deadline.paced(batches(rows, report, self._settings)):
                self._store(app, beside, members, ms(BESIDE_LIFE))
                if time.monotonic() > give_up_at:
                    raise InvalidInputError(["the rows took too long; send them faster"])
                if on_progress:
                    on_progress(report)
            if not report.rows and not allow_empty:
                raise InvalidInputError(["no row: the list would be empty, if that were allowed"])
            if report.bad < report.rows or not report.rows:
                self._switch.make(app, name, beside, report)
        finally:
            with contextlib.suppress(StoreUnavailableError):  # it ends by itself
                self._switch.discard(app, beside)
        self._names.register(app, name)
        if on_progress:
            on_progress(report)
        return report

    def remove_rows(
        self,
        app: str,
        name: str,
        rows: Iterable[bytes | str],
        on_progress: Callable[[RemovalReport], None] | None = None,
    ) -> RemovalReport:
        """Take the openids of a file out of an audience, in constant memory.

        Args:
            app: alias of the app.
            name: the audience; not ``all``, which has everyone who gave a permit (see
                `Users.forget`).
            rows: as `import_rows` takes them.
            on_progress: called after each batch with the report so far.

        Raises:
            UnknownAppError: no such app.
            InvalidInputError: it is ``all``.
            NotFoundError: no such audience.
            StoreUnavailableError: Redis did not answer; the same rows again are harmless.
        """
        self._settings.app(app)
        if name == ALL:
            raise InvalidInputError(["audience 'all': it has whoever gave a permit; forget a user"])
        self._names.find(app, name)
        report = RemovalReport()
        for members in deadline.paced(batches(rows, report, self._settings)):
            removed = by_lane(
                self._client, self._settings, members, partial(self._remove_in, app, name)
            )
            report.removed += removed
            report.unknown += sum(map(len, members.values())) - removed
            if on_progress:
                on_progress(report)
        if on_progress:
            on_progress(report)
        return report

    def delete(self, app: str, name: str, on_progress: Callable[[int], None] | None = None) -> int:
        """Delete an audience, a hundred buckets at a time.

        From the first moment it is no longer found. If the process dies in the middle, delete it
        again for the rest. An import that still runs may bring the name back, with what it added
        after the deletion.

        Args:
            app: alias of the app.
            name: the audience; not ``all``.
            on_progress: called with the members deleted so far.

        Returns:
            How many members were deleted (by this call).

        Raises:
            UnknownAppError: no such app.
            InvalidInputError: it is ``all``.
            NotFoundError: no such audience.
            StoreUnavailableError: Redis did not answer; delete it again for the rest.
        """
        self._settings.app(app)
        if name == ALL:
            raise InvalidInputError(["audience 'all' cannot be deleted: collecting keeps it"])
        self._names.mark(app, name)
        deleted = 0

        def drop(lane: int) -> None:
            nonlocal deleted
            for members in self._drop_lane(lane, app, name):
                deleted += members
                if on_progress:
                    on_progress(deleted)

        for _ in range(_PASSES):
            each_lane(self._client, self._settings, drop)
            if not self._counter.sizes(app, [name])[name]:
                break
        self._names.drop(app, name)
        if self._counter.sizes(app, [name])[name]:  # an import came after the last look
            self._names.register(app, name)
        logs.emit(AudienceDeleted(app, name, deleted))
        return deleted

    def _store(
        self,
        app: str,
        name: str,
        members: dict[int, list[str]],
        ttl_ms: int | Literal[""] = "",
    ) -> int:
        """Add openids, by bucket; returns how many are new."""

        def add(lane: int, some: dict[int, list[str]]) -> int:
            added = self._add.repeated(
                "storing the audience",
                AudienceKeys.of(lane, app, name),
                AddArgs(ttl_ms),
                arguments(some),
                more_keys=sets(lane, app, name, some),
            )
            return int(added)

        return by_lane(self._client, self._settings, members, add)

    def _remove_in(self, app: str, name: str, lane: int, members: dict[int, list[str]]) -> int:
        """Take openids of one lane out; returns how many were members."""
        removed = self._remove.repeated(
            "removing from the audience",
            AudienceKeys.of(lane, app, name),
            NoArgs(),
            arguments(members),
            more_keys=sets(lane, app, name, members),
        )
        return int(removed)

    def _drop_lane(self, lane: int, app: str, name: str) -> Iterator[int]:
        """Empty a lane's buckets, and yield how many members each step deleted."""
        buckets = filled_buckets(self._client, lane, app, name)
        for start in deadline.paced(range(0, len(buckets), _BUCKETS)):
            some = buckets[start : start + _BUCKETS]
            yield int(
                self._drop.repeated(
                    "deleting the audience",
                    DropKeys(
                        *AudienceKeys.of(lane, app, name), keys.audience_dropped(lane, app, name)
                    ),
                    DropArgs(ms(_DROPPED_KEPT)),
                    some,
                    more_keys=sets(lane, app, name, some),
                )
            )

    def names(self, app: str) -> list[str]:
        """Return the names of the app's audiences, sorted, ``all`` first.

        Raises:
            UnknownAppError: no such app.
        """
        self._settings.app(app)
        return self._names.standing(app)

    def page(self, app: str, cursor: str = "", limit: int = 100) -> AudiencePage:
        """Return one page of the app's audiences with their sizes.

        Args:
            app: alias of the app.
            cursor: of a page before; '' for the first.
            limit: 1 to 1,000 audiences.

        Raises:
            UnknownAppError: no such app.
            InvalidInputError: the cursor or the limit is none.
        """
        if not 1 <= limit <= MOST:
            raise InvalidInputError([f"limit {limit}: 1 to {MOST:,}"])
        if cursor and not NAME.fullmatch(cursor):
            raise InvalidInputError(["cursor: give the one that the page before ended with"])
        first, *names = self.names(app)
        if cursor == ALL or not cursor:
            names = [first, *names] if not cursor else names
        else:
            names = [name for name in names if name > cursor]
        shown = names[:limit]
        sizes = self._counter.sizes(app, shown)
        return AudiencePage(
            [(name, sizes[name]) for name in shown], shown[-1] if len(names) > limit else ""
        )

    def find(self, app: str, audience: str) -> Expression:
        """Return an audience, or an expression of audiences, each of which there is.

        Args:
            app: alias of the app.
            audience: a name, or ``vip & active - churned`` (see `expressions`).

        Raises:
            UnknownAppError: no such app.
            InvalidInputError: it is no expression.
            NotFoundError: no such audience.
            StoreUnavailableError: Redis did not answer.
        """
        self._settings.app(app)
        beside = keys.is_beside(audience)
        found = Expression.stored(audience) if beside else Expression.read(audience)
        for name in found.names:
            self._names.find(app, name)
        return found

    def count(self, app: str, name: str, on_progress: Callable[[int], None] | None = None) -> int:
        """Return how many members an audience, or an expression of audiences, has.

        An audience's size is kept; an expression is counted in small steps, about a second for a
        million members.

        Args:
            app: alias of the app.
            name: of an audience, or an expression, as for `find`.
            on_progress: called with the members of an expression counted so far.

        Raises:
            As `find`.
        """
        return self._counter.count(app, self.find(app, name), on_progress)

    def measure(self, app: str, audience: str) -> Size:
        """Return how many members an audience or an expression has, at a bounded cost.

        Beyond some ten thousand members an expression is estimated from buckets drawn by lot.

        Raises:
            As `find`.
        """
        return self._counter.measure(app, self.find(app, audience))
