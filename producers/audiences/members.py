"""Audiences: named sets of openids of one app; ``all`` is every openid that ever gave a permit.

Kept as one set per bucket, so that a broadcast can be split bucket by bucket while members come
and go. Importing is adding: the same file twice changes nothing. If the process dies in the
middle, what was answered stays; import the file again for the rest. So does removing.

A running broadcast reads its audience as it goes: whoever is removed before his bucket was split is
no recipient, whoever was split stays one. A broadcast whose audience is deleted ends with those who
were split until then.
"""

import contextlib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple

from producers import logs
from producers.audiences.batches import AudienceKeys, arguments, batches, sets
from producers.audiences.reports import AudiencePage, ImportReport, RemovalReport
from producers.audiences.switch import BESIDE_LIFE, Switch
from producers.errors import InvalidInputError, NotFoundError, StoreUnavailableError
from producers.logs.events import AudienceDeleted
from producers.settings import Settings, ms
from producers.store import Client, deadline, keys
from producers.store.buckets import filled_buckets
from producers.store.retry import repeat, repeat_all
from producers.store.scripts import NoArgs, Script

ALL: Final = "all"
"""The audience that collecting keeps."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_BUCKETS: Final = 100
"""Buckets per script run of a deletion: some thousand members."""
_PASSES: Final = 3
"""An import that runs on while its audience is deleted is followed so often."""
MOST: Final = 1000
"""Audiences on one page of a list."""
_DELETING: Final = "-"
"""What the time of an audience begins with while it is being deleted."""


def standing(names: Mapping[str, str]) -> list[str]:
    """Return the audiences of `keys.audiences` that are not being deleted, ``all`` first."""
    return [ALL, *sorted(name for name, at in names.items() if not at.startswith(_DELETING))]


class AddArgs(NamedTuple):
    """ARGV of add.lua; the openids of each bucket follow."""

    ttl_ms: int | Literal[""]


class MarkKeys(NamedTuple):
    """KEYS of mark.lua."""

    audiences: str


class MarkArgs(NamedTuple):
    """ARGV of mark.lua."""

    name: str
    mark: str


ADD: Final = Script(__package__, "add", AudienceKeys, AddArgs)
REMOVE: Final = Script(__package__, "remove", AudienceKeys, NoArgs)
DROP: Final = Script(__package__, "drop", AudienceKeys, NoArgs)
MARK: Final = Script(__package__, "mark", MarkKeys, MarkArgs)


class Audiences:
    """The audiences of every app. Safe to share between threads."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._add = ADD.on(client)
        self._remove = REMOVE.on(client)
        self._mark = MARK.on(client)
        self._drop = DROP.on(client)
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
        self._begin(app, name)
        report = ImportReport()
        for lane, members in deadline.paced(batches(rows, report, self._settings)):
            added = self._store(lane, app, name, members)
            report.added += added
            report.known += sum(map(len, members.values())) - added
            if on_progress:
                on_progress(report)
        self._register(app, name)  # who deleted it meanwhile did not delete what came after
        if on_progress:
            on_progress(report)
        return report

    def replace_rows(
        self,
        app: str,
        name: str,
        rows: Iterable[bytes | str],
        on_progress: Callable[[ImportReport], None] | None = None,
    ) -> ImportReport:
        """Make the openids of a file an audience's only members, in constant memory.

        Args:
            app: alias of the app.
            name: the audience, as for `import_rows`; it is made if there is none.
            rows: as `import_rows` takes them. When they cannot be read to the end, or not one of
                them holds an openid, the audience stays as it was.
            on_progress: called after each batch with the report so far; who is new is known at
                the end.

        Raises:
            UnknownAppError: no such app.
            InvalidInputError: the name is not one, the audience is being deleted, or another call
                goes on replacing it.
            StoreUnavailableError: Redis did not answer; see the module's docstring.
        """
        self._begin(app, name)
        report, beside = ImportReport(), self._switch.new_name()
        give_up_at = time.monotonic() + BESIDE_LIFE.total_seconds() / 2
        try:
            for lane, members in deadline.paced(batches(rows, report, self._settings)):
                self._store(lane, app, beside, members, ms(BESIDE_LIFE))
                if time.monotonic() > give_up_at:
                    raise InvalidInputError(["the rows took too long; send them faster"])
                if on_progress:
                    on_progress(report)
            if report.bad < report.rows or not report.rows:
                self._switch.make(app, name, beside, report)
        finally:
            with contextlib.suppress(StoreUnavailableError):  # it ends by itself
                self._switch.discard(app, beside)
        self._register(app, name)
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
        self._find(app, name)
        report = RemovalReport()
        for lane, members in deadline.paced(batches(rows, report, self._settings)):
            removed = int(
                self._remove.repeated(
                    "removing from the audience",
                    AudienceKeys.of(lane, app, name),
                    NoArgs(),
                    arguments(members),
                    more_keys=sets(lane, app, name, members),
                )
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
        since = self._since(app, name)
        if since is None:
            raise self._not_found(app, name)
        mark = _DELETING + since.removeprefix(_DELETING)
        self._mark.repeated(
            "deleting the audience", MarkKeys(keys.audiences(app)), MarkArgs(name, mark)
        )
        deleted = 0
        for _ in range(_PASSES):
            for lane in range(self._settings.lanes):
                for members in self._drop_lane(lane, app, name):
                    deleted += members
                    if on_progress:
                        on_progress(deleted)
            if not self._sizes(app, [name])[name]:
                break
        repeat("deleting the audience", lambda: self._client.hdel(keys.audiences(app), name))
        if self._sizes(app, [name])[name]:  # an import came after the last look
            self._register(app, name)
        logs.emit(AudienceDeleted(app, name, deleted))
        return deleted

    def _begin(self, app: str, name: str) -> None:
        """Name an audience that openids are about to be put into."""
        self._settings.app(app)
        if not _NAME.fullmatch(name) or name == ALL:
            raise InvalidInputError(
                [f"audience name {name!r}: take 1-64 of letters, digits, _ . - (and not 'all')"]
            )
        self._register(app, name)

    def _store(
        self,
        lane: int,
        app: str,
        name: str,
        members: dict[int, list[str]],
        ttl_ms: int | Literal[""] = "",
    ) -> int:
        """Add openids of one lane; returns how many are new."""
        added = self._add.repeated(
            "storing the audience",
            AudienceKeys.of(lane, app, name),
            AddArgs(ttl_ms),
            arguments(members),
            more_keys=sets(lane, app, name, members),
        )
        return int(added)

    def _drop_lane(self, lane: int, app: str, name: str) -> Iterator[int]:
        """Empty a lane's buckets, and yield how many members each step deleted."""
        buckets = filled_buckets(self._client, lane, app, name, 0)
        for start in deadline.paced(range(0, len(buckets), _BUCKETS)):
            some = buckets[start : start + _BUCKETS]
            yield int(
                self._drop.repeated(
                    "deleting the audience",
                    AudienceKeys.of(lane, app, name),
                    NoArgs(),
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
        names = repeat("listing audiences", lambda: self._client.hgetall(keys.audiences(app)))
        return standing(names)

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
        if cursor and not _NAME.fullmatch(cursor):
            raise InvalidInputError(["cursor: give the one that the page before ended with"])
        first, *names = self.names(app)
        if cursor == ALL or not cursor:
            names = [first, *names] if not cursor else names
        else:
            names = [name for name in names if name > cursor]
        shown = names[:limit]
        sizes = self._sizes(app, shown)
        return AudiencePage(
            [(name, sizes[name]) for name in shown], shown[-1] if len(names) > limit else ""
        )

    def count(self, app: str, name: str) -> int:
        """Return how many members an audience has.

        Raises:
            UnknownAppError: no such app.
            NotFoundError: no such audience.
        """
        self._settings.app(app)
        self._find(app, name)
        return self._sizes(app, [name])[name]

    def _find(self, app: str, name: str) -> None:
        """Raise `NotFoundError` unless there is such an audience."""
        if name == ALL:
            return
        since = self._since(app, name)
        if since is None or since.startswith(_DELETING):
            raise self._not_found(app, name)

    def _since(self, app: str, name: str) -> str | None:
        found: str | None = repeat(
            "looking up the audience", lambda: self._client.hget(keys.audiences(app), name)
        )
        return found

    @staticmethod
    def _not_found(app: str, name: str) -> NotFoundError:
        return NotFoundError(
            f"no audience {name!r} of app {app!r}; `wxbroadcast audience list` shows them, "
            "`wxbroadcast audience import` makes one"
        )

    def _register(self, app: str, name: str) -> None:
        """Name the audience, unless it is being deleted."""
        now = str(time.time_ns() // 10**6)

        def fill(pipeline: Any) -> None:
            pipeline.hsetnx(keys.audiences(app), name, now)
            pipeline.hget(keys.audiences(app), name)

        _, since = repeat_all("naming the audience", self._client, fill)
        if since is not None and since.startswith(_DELETING):
            raise InvalidInputError(
                [f"audience {name!r} is being deleted; delete it again, if that was cut short"]
            )

    def _sizes(self, app: str, names: list[str]) -> dict[str, int]:
        """Return name → members."""
        lanes = self._settings.lanes

        def fill(pipeline: Any) -> None:
            for name in names:
                for lane in range(lanes):
                    pipeline.get(keys.audience_size(lane, app, name))

        sizes = repeat_all("counting the audience", self._client, fill) if names else []
        return {
            name: sum(int(size or 0) for size in sizes[place * lanes : (place + 1) * lanes])
            for place, name in enumerate(names)
        }
