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
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, Final, Literal, NamedTuple

from producers import logs
from producers.audiences.rows import FAULT, openids
from producers.errors import InvalidInputError, NotFoundError, StoreUnavailableError
from producers.logs.events import AudienceDeleted
from producers.settings import Settings, ms
from producers.store import Client, deadline, keys
from producers.store.buckets import filled_buckets
from producers.store.retry import repeat, repeat_all
from producers.store.scripts import NoArgs, Script, new_token

ALL: Final = "all"
"""The audience that collecting keeps."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_MEMBERS: Final = 500
"""Openids per script run, each in a bucket of its own as a rule: about 1 ms of Redis's time."""
_COMPARED: Final = 2000
"""Members per script run of a replacement, on average: half a millisecond."""
_LISTED: Final = 100
_BUCKETS: Final = 100
"""Buckets per script run of a deletion, or at most of a replacement: some thousand members."""
_PASSES: Final = 3
"""An import that runs on while its audience is deleted is followed so often."""
MOST: Final = 1000
"""Audiences on one page of a list."""
_BESIDE: Final = "~"
"""What the name of sets begins with that are built beside; no audience's does."""
_BESIDE_LIFE: Final = timedelta(days=1)
_TURN: Final = timedelta(minutes=1)
"""How long one call may switch an audience without a word, and how long another one waits."""
_STEPS: Final = 500
"""Steps of a switch after which its turn is prolonged."""
_AGAIN_S: Final = 0.05
_DELETING: Final = "-"
"""What the time of an audience begins with while it is being deleted."""


@dataclass
class ImportReport:
    """What became of the rows of one import.

    Attributes:
        rows: rows read, without blank ones and a CSV header.
        added: members that are new.
        known: members that were there before.
        bad: rows that hold no openid.
        listed: the first 100 bad rows: (row number from 1, one sentence).
        removed: members that a replacement left out.
    """

    rows: int = 0
    added: int = 0
    known: int = 0
    bad: int = 0
    listed: list[tuple[int, str]] = field(default_factory=list)
    removed: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready fields."""
        return {
            "rows": self.rows,
            "added": self.added,
            "known": self.known,
            "bad": self.bad,
            "removed": self.removed,
            "listed": [{"row": row, "detail": detail} for row, detail in self.listed],
        }


@dataclass
class RemovalReport:
    """What became of the rows of one removal.

    Attributes:
        rows: rows read, without blank ones and a CSV header.
        removed: who was a member.
        unknown: who was none.
        bad: rows that hold no openid.
        listed: the first 100 bad rows: (row number from 1, one sentence).
    """

    rows: int = 0
    removed: int = 0
    unknown: int = 0
    bad: int = 0
    listed: list[tuple[int, str]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready fields."""
        return {
            "rows": self.rows,
            "removed": self.removed,
            "unknown": self.unknown,
            "bad": self.bad,
            "listed": [{"row": row, "detail": detail} for row, detail in self.listed],
        }


@dataclass(frozen=True, slots=True)
class AudiencePage:
    """One page of an app's audiences.

    Attributes:
        audiences: (name, members) by name, ``all`` first of all.
        cursor: of the next page; '' when this is the last.
    """

    audiences: list[tuple[str, int]]
    cursor: str

    def as_dict(self) -> dict[str, Any]:
        """Return the page as JSON-ready fields."""
        return {
            "audiences": [{"name": name, "members": size} for name, size in self.audiences],
            "cursor": self.cursor,
        }


def standing(names: Mapping[str, str]) -> list[str]:
    """Return the audiences of `keys.audiences` that are not being deleted, ``all`` first."""
    return [ALL, *sorted(name for name, at in names.items() if not at.startswith(_DELETING))]


class AudienceKeys(NamedTuple):
    """KEYS of the scripts that change an audience in a lane; per bucket one follows, or two."""

    size: str
    buckets: str

    @classmethod
    def of(cls, lane: int, app: str, name: str) -> "AudienceKeys":
        """Return those of an audience in a lane."""
        return cls(keys.audience_size(lane, app, name), keys.audience_buckets(lane, app, name))


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
SWAP: Final = Script(__package__, "swap", AudienceKeys, NoArgs)
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
        self._swap = SWAP.on(client)

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
        for lane, members in deadline.paced(_batches(rows, report, self._settings)):
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
        report, beside = ImportReport(), _BESIDE + new_token()
        give_up_at = time.monotonic() + _BESIDE_LIFE.total_seconds() / 2
        try:
            for lane, members in deadline.paced(_batches(rows, report, self._settings)):
                self._store(lane, app, beside, members, ms(_BESIDE_LIFE))
                if time.monotonic() > give_up_at:
                    raise InvalidInputError(["the rows took too long; send them faster"])
                if on_progress:
                    on_progress(report)
            if report.bad < report.rows or not report.rows:
                with self._turn(app, name):
                    self._switch(app, name, beside, report)
        finally:
            with contextlib.suppress(StoreUnavailableError):  # it ends by itself
                for lane in range(self._settings.lanes):
                    self._discard(lane, app, beside)
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
        for lane, members in deadline.paced(_batches(rows, report, self._settings)):
            removed = int(
                self._remove.repeated(
                    "removing from the audience",
                    AudienceKeys.of(lane, app, name),
                    NoArgs(),
                    _arguments(members),
                    more_keys=_sets(lane, app, name, members),
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
            _arguments(members),
            more_keys=_sets(lane, app, name, members),
        )
        return int(added)

    @contextlib.contextmanager
    def _turn(self, app: str, name: str) -> Iterator[None]:
        """Wait until no other call switches this audience: the last one is to stand whole."""
        key, mine = keys.audience_turn(app, name), new_token()
        give_up_at = time.monotonic() + _TURN.total_seconds()
        take = partial(self._client.set, key, mine, nx=True, px=ms(_TURN), get=True)
        while repeat("replacing the audience", take) not in {None, mine}:
            left_s = deadline.left_s()
            if time.monotonic() > give_up_at or (left_s is not None and left_s < _AGAIN_S):
                raise InvalidInputError([f"audience {name!r} is being replaced by another call"])
            time.sleep(_AGAIN_S)
        try:
            yield
        finally:
            with contextlib.suppress(StoreUnavailableError):
                repeat("replacing the audience", lambda: self._client.delete(key))

    def _switch(self, app: str, name: str, beside: str, report: ImportReport) -> None:
        """Put what was built beside in the audience's place."""
        turn = keys.audience_turn(app, name)
        for lane in range(self._settings.lanes):
            built = set(filled_buckets(self._client, lane, app, beside, 0))
            buckets = sorted(built.union(filled_buckets(self._client, lane, app, name, 0)))
            most = self._buckets_at_once(lane, app, (name, beside), len(buckets))
            for step, start in enumerate(deadline.paced(range(0, len(buckets), most))):
                sets: list[str] = []
                which: list[int] = []
                for bucket in buckets[start : start + most]:
                    sets += (
                        keys.audience(lane, app, name, bucket),
                        keys.audience(lane, app, beside, bucket),
                    )
                    which += (bucket, int(bucket in built))
                added, removed = self._swap.repeated(
                    "replacing the audience",
                    AudienceKeys.of(lane, app, name),
                    NoArgs(),
                    which,
                    more_keys=sets,
                )
                report.added += added
                report.removed += removed
                if step % _STEPS == 0:
                    repeat("replacing the audience", partial(self._client.pexpire, turn, ms(_TURN)))
        report.known = report.rows - report.bad - report.added

    def _buckets_at_once(self, lane: int, app: str, names: Iterable[str], buckets: int) -> int:
        """Return how many buckets one step may compare: they hold some thousand members."""
        sizes = [keys.audience_size(lane, app, name) for name in names]
        found = repeat("replacing the audience", partial(self._client.mget, sizes))
        members = sum(int(size or 0) for size in found)
        return max(1, min(_BUCKETS, _COMPARED * buckets // max(1, members)))

    def _discard(self, lane: int, app: str, beside: str) -> None:
        """Remove what is left of sets that were built beside."""
        buckets = filled_buckets(self._client, lane, app, beside, 0)
        gone = [keys.audience(lane, app, beside, bucket) for bucket in buckets]
        gone += [keys.audience_size(lane, app, beside), keys.audience_buckets(lane, app, beside)]
        for start in deadline.paced(range(0, len(gone), _BUCKETS)):
            some = gone[start : start + _BUCKETS]
            repeat("replacing the audience", partial(self._client.unlink, *some))

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
                    more_keys=_sets(lane, app, name, some),
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


def _sets(lane: int, app: str, name: str, buckets: Iterable[int]) -> list[str]:
    """Return the keys of an audience's sets in some buckets."""
    return [keys.audience(lane, app, name, bucket) for bucket in buckets]


def _arguments(members: dict[int, list[str]]) -> list[str | int]:
    """Return openids by bucket as the scripts take them."""
    args: list[str | int] = []
    for bucket, some in members.items():
        args += (bucket, len(some), *some)
    return args


def _batches(
    rows: Iterable[bytes | str], report: ImportReport | RemovalReport, settings: Settings
) -> Iterator[tuple[int, dict[int, list[str]]]]:
    """Yield (lane, its openids by bucket), some thousand at a time; bad rows go to the report."""
    waiting: dict[int, dict[int, list[str]]] = {}
    sizes: dict[int, int] = {}
    for number, openid in openids(rows):
        report.rows += 1
        if openid is None:
            report.bad += 1
            if len(report.listed) < _LISTED:
                report.listed.append((number, FAULT))
            continue
        lane, bucket, _ = keys.place_of(openid, settings)
        waiting.setdefault(lane, {}).setdefault(bucket, []).append(openid)
        sizes[lane] = sizes.get(lane, 0) + 1
        if sizes[lane] >= _MEMBERS:
            yield lane, waiting.pop(lane)
            sizes[lane] = 0
    yield from waiting.items()
