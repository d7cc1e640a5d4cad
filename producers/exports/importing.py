"""Importing: the lines of an export become users, audiences and lists of this deployment's app.

Importing is adding, and the same file twice changes nothing: a use is known by its id, whatever
became of it, and a user's accepts, which have none, are counted once per deployment that they come
from, for 30 days, so that a later export of it adds only users who are new. If the process dies in
the middle, import the file again. The number of lanes and of buckets may be another one.

What is wrong in a line costs that line. A file that ends without its footer was cut short: what it
held is stored, and the report says that it is not whole.
"""

import hashlib
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, Final, NamedTuple

from producers import logs
from producers.audiences import Audiences
from producers.errors import InvalidInputError
from producers.exports.lines import (
    BadLineError,
    Digests,
    Footer,
    Header,
    Key,
    Line,
    Members,
    User,
    read,
)
from producers.exports.origin import origin_of
from producers.logs.events import AppImported
from producers.settings import Settings, ms
from producers.store import Client, deadline, keys
from producers.store.clock import now_ms
from producers.store.lanes.following import by_lane
from producers.store.retry import repeat, repeat_all
from producers.store.scripts import Script, Value
from producers.suppressions import Reason, Suppressions

_WEIGHT: Final = 400
"""What one script run stores, uses and the like: 1 to 2 ms of Redis."""
_USERS: Final = 200
"""Users of one script run."""
_OPENIDS: Final = 5000
"""Openids of an audience that are stored at once."""
_TOOK_LIFE: Final = timedelta(days=30)
"""How long it is known whose accepts were counted, after the last import."""
_LISTED: Final = 100
_PLACES: Final = 64
"""Buckets that a forgotten user may lie in, beyond which the digest is not placed."""


class UsersKeys(NamedTuple):
    """KEYS of import_users.lua; five per user follow."""

    stock: str
    ledger: str
    size: str
    buckets: str
    took_size: str
    took_buckets: str

    @classmethod
    def of(cls, lane: int, app: str, took: str) -> "UsersKeys":
        """Return those of an app in a lane."""
        return cls(
            keys.stock(lane, app),
            keys.ledger(lane, app),
            keys.audience_size(lane, app, "all"),
            keys.audience_buckets(lane, app, "all"),
            keys.audience_size(lane, app, took),
            keys.audience_buckets(lane, app, took),
        )


class UsersArgs(NamedTuple):
    """ARGV of import_users.lua; each user follows."""

    at_ms: int
    ttl_ms: int
    counts: int
    users: int


IMPORT_USERS: Final = Script(__package__, "import_users", UsersKeys, UsersArgs, clock=True)


@dataclass
class ImportReport:
    """What became of the lines of one import.

    Attributes:
        lines: read, blank ones not counted.
        export: which export it was.
        new: uses that are new, by kind's letter: f, p, s (accepts).
        known: uses that were there before, whatever became of them.
        ended: uses whose time was over.
        gone: uses that cannot be collected here, of those that were held, spent or void there.
        lost: of those the ones that could be had here until now.
        left_out: accepts that were not counted: the user's were before, or there is no room.
        withdrawn: accepts that the user withdrew here since.
        users: users who are new in `all`.
        audiences: name → members that are new.
        suppressed: reason → openids that are new; of the forgotten, digests.
        unplaced: digests of the forgotten that fit into no bucket.
        keys: what may be shown of the API keys, which are not made: nobody has their secrets.
        bad: lines that say nothing.
        listed: the first 100 of them: (line from 1, one sentence).
        whole: the footer came, and everything is as it was written.
        problems: what is wrong with the file as a whole, a sentence each.
    """

    lines: int = 0
    export: str = ""
    new: Counter[str] = field(default_factory=Counter)
    known: int = 0
    ended: int = 0
    gone: int = 0
    lost: int = 0
    left_out: int = 0
    withdrawn: int = 0
    users: int = 0
    audiences: Counter[str] = field(default_factory=Counter)
    suppressed: Counter[str] = field(default_factory=Counter)
    unplaced: int = 0
    keys: list[dict[str, Any]] = field(default_factory=list)
    bad: int = 0
    listed: list[tuple[int, str]] = field(default_factory=list)
    whole: bool = False
    problems: list[str] = field(default_factory=list)

    @property
    def added(self) -> int:
        """Uses and accepts that are new."""
        return sum(self.new.values())

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready fields."""
        return {
            **{name: getattr(self, name) for name in _SHOWN},
            "new": {letter: self.new[letter] for letter in "fps"},
            "listed": [{"line": line, "detail": detail} for line, detail in self.listed],
        }


_SHOWN: Final = (
    "lines",
    "export",
    "new",
    "known",
    "ended",
    "gone",
    "lost",
    "left_out",
    "withdrawn",
    "users",
    "audiences",
    "suppressed",
    "unplaced",
    "keys",
    "bad",
    "whole",
    "problems",
)


class Importer:
    """Imports into every app. Safe to share between threads."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._audiences = Audiences(client, settings)
        self._suppressions = Suppressions(client, settings)
        self._users = IMPORT_USERS.on(client)

    def load(
        self,
        app: str,
        lines: Iterable[bytes],
        on_progress: Callable[[ImportReport], None] | None = None,
        *,
        again: bool = False,
    ) -> ImportReport:
        """Store what an export holds, in bounded memory.

        Args:
            app: alias of the app; it may be another one than there, its appid not.
            lines: of the file.
            on_progress: called after each step with the report so far.
            again: count accepts also of users whose accepts of that deployment were counted, and of
                an export of this very deployment: after Redis forgot them.

        Raises:
            UnknownAppError: no such app.
            InvalidInputError: it is no export, or another app's; nothing was stored.
            StoreUnavailableError: Redis did not answer; import it again.
        """
        appid = self._settings.app(app).appid
        left = iter(lines)
        first = next((line for line in left if line.strip()), b"")
        header = Header.read(first)
        if header.appid != appid:
            fault = (
                f"the file is of appid {header.appid}, app {app!r} is {appid}: openids and permits "
                "of one mini-program mean nothing to another"
            )
            raise InvalidInputError([fault])
        one = _Import(self, app, header, ImportReport(lines=1, export=header.export), again=again)
        steps = one.steps(itertools.chain([first], left))
        for step in deadline.paced(steps):
            step()
            if on_progress:
                on_progress(one.report)
        if on_progress:
            on_progress(one.report)
        found = one.report
        logs.emit(AppImported(app, found.export, found.users, found.added, found.bad, found.whole))
        return found


class _Import:
    """One import on its way."""

    def __init__(
        self, of: Importer, app: str, header: Header, report: ImportReport, *, again: bool
    ) -> None:
        self._client, self._settings = of._client, of._settings  # noqa: SLF001 - its own
        self._audiences, self._suppressions = of._audiences, of._suppressions  # noqa: SLF001
        self._script = of._users  # noqa: SLF001
        self._app, self._header, self.report = app, header, report
        own = origin_of(self._client) == header.origin
        self._counts = again or not own
        # of one that is to count again: by itself, so that it does so once
        self._took = f"~{header.export if again else header.origin}"
        self._waiting: dict[int, list[User]] = {}
        self._openids: dict[tuple[str, str], list[str]] = {}

    def steps(self, lines: Iterable[bytes]) -> Iterator[Callable[[], None]]:
        """Yield what there is to store, a step at a time."""
        yield self._remember_took
        digest, footer = hashlib.sha256(), None
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            if number > 1:
                self.report.lines += 1
                kind, said = self._said(number, line, after_end=footer is not None)
                if isinstance(said, Footer):
                    footer = said
                    continue
                if said is not None:
                    yield from self._take(kind, said)
            digest.update(line.rstrip(b"\r\n") + b"\n")
        yield from self._rest()
        self._judge(footer, digest.hexdigest())

    def _said(self, number: int, line: bytes, *, after_end: bool) -> tuple[str, Line | None]:
        """Return what a line says; None for one that says nothing, which is reported."""
        try:
            found = read(line)
        except BadLineError as error:
            fault = str(error)
        else:
            if not after_end:
                return found
            fault = "after the end"
        self.report.bad += 1
        if len(self.report.listed) < _LISTED:
            self.report.listed.append((number, fault))
        return "", None

    def _judge(self, footer: Footer | None, digest: str) -> None:
        """Say whether the file is whole."""
        problems = self.report.problems
        if footer is None:
            problems.append(
                "the file ends before its last line: it was cut short. What it held is stored; get "
                "all of it, and import it again"
            )
        elif footer.sha256 != digest:
            problems.append(
                "the lines are not those that were written: some are missing or were changed. What "
                "could be read is stored"
            )
        if self.report.unplaced:
            problems.append(
                f"{self.report.unplaced:,} digests of forgotten users fit into no bucket here: "
                f"give this deployment a number of buckets that has a large divisor in common with "
                f"{self._header.buckets:,}, or keep these users out of what you send to"
            )
        self.report.whole = not problems and not self.report.bad

    def _take(self, kind: str, said: Line) -> Iterator[Callable[[], None]]:
        if isinstance(said, User):
            lane, _, _ = keys.place_of(said.openid, self._settings)
            users = self._waiting.setdefault(lane, [])
            users.append(said)
            if len(users) >= _USERS or sum(one.weight for one in users) >= _WEIGHT:
                yield partial(self._store, self._waiting.pop(lane))
        elif isinstance(said, Members):
            openids = self._openids.setdefault((kind, said.of), [])
            openids += said.openids
            if len(openids) >= _OPENIDS:
                yield partial(self._add, kind, said.of, self._openids.pop((kind, said.of)))
        elif isinstance(said, Digests):
            yield partial(self._place, said)
        elif isinstance(said, Key) and len(self.report.keys) < _LISTED:
            self.report.keys.append(dict(said.shown))

    def _rest(self) -> Iterator[Callable[[], None]]:
        for users in self._waiting.values():
            yield partial(self._store, users)
        for (kind, name), openids in self._openids.items():
            yield partial(self._add, kind, name, openids)

    def _remember_took(self) -> None:
        """Name the sets of those whose accepts are counted: forgetting a user has to find them."""
        key, ttl_ms = keys.frozen(self._app), ms(_TOOK_LIFE)
        at_ms = repeat("asking the time", partial(now_ms, self._client))

        def fill(pipeline: Any) -> None:
            pipeline.zremrangebyscore(key, "-inf", at_ms)
            pipeline.zadd(key, {self._took: at_ms + ttl_ms})
            pipeline.pexpire(key, ttl_ms, gt=True)
            pipeline.pexpire(key, ttl_ms, nx=True)

        repeat_all("importing", self._client, fill)

    def _store(self, users: list[User]) -> None:
        buckets: dict[int, list[User]] = {}
        for one in users:
            bucket = keys.bucket_of(one.openid, self._settings.buckets)
            buckets.setdefault(bucket, []).append(one)
        by_lane(self._client, self._settings, buckets, self._store_in)

    def _store_in(self, lane: int, buckets: dict[int, list[User]]) -> int:
        """Store users of one lane; returns how many are new."""
        app, names, args = self._app, list[str](), list[Value]()
        users = [(bucket, one) for bucket, some in buckets.items() for one in some]
        for bucket, one in users:
            names += (
                keys.permits(lane, app, one.openid),
                keys.subscriptions(lane, app, one.openid),
                keys.marks(lane, app, one.openid),
                keys.audience(lane, app, "all", bucket),
                keys.audience(lane, app, self._took, bucket),
            )
            gone = ((member, -until_ms) for member, until_ms in one.gone.items())
            uses = [*one.uses.items(), *gone]
            args += (one.openid, bucket, len(uses), len(one.accepts), len(one.marks))
            args += itertools.chain(*uses, *one.accepts.items(), *one.marks.items())
        answer = self._script.repeated(
            "importing",
            UsersKeys.of(lane, app, self._took),
            UsersArgs(self._header.at_ms, ms(_TOOK_LIFE), int(self._counts), len(users)),
            args,
            more_keys=names,
        )
        report = self.report
        report.new.update(dict(zip("fps", answer[:3], strict=True)))
        for name, count in zip(
            ("known", "ended", "gone", "lost", "left_out", "withdrawn", "users"),
            answer[3:],
            strict=True,
        ):
            setattr(report, name, getattr(report, name) + count)
        return int(answer[-1])

    def _add(self, kind: str, name: str, openids: list[str]) -> None:
        rows = [b"openid", *(openid.encode() for openid in openids)]
        if kind == "audience":
            added = self._audiences.import_rows(self._app, name, rows).added
            self.report.audiences[name] += added
        else:
            added = self._suppressions.restore(self._app, Reason(name), rows).added
            self.report.suppressed[name] += added

    def _place(self, said: Digests) -> None:
        """Store digests in each bucket here that their users may lie in.

        A checksum is known by its remainder of the buckets there; here its remainder is one of
        those that agree with it in the divisor that both have in common.
        """
        common = math.gcd(self._header.buckets, self._settings.buckets)
        if self._settings.buckets // common > _PLACES:
            self.report.unplaced += len(said.digests)
            return
        places = range(said.bucket % common, self._settings.buckets, common)
        added = self._suppressions.restore_forgotten(self._app, places, said.digests)
        self.report.suppressed[Reason.FORGOTTEN.value] += added
