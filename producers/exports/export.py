"""Exporting: one app as lines, in bounded memory, and in short steps of Redis.

Users come bucket by bucket, each at its moment; audiences and lists after them. Nothing stops
while it runs: a use that is held, or is sent meanwhile, is ``gone``, and one that is handed back
afterwards stays here alone; who gives a permit after the bucket was read is not in it. For sums
that are exact on both sides let nobody collect and nothing be sent until it has ended: the footer
says what the ledger said then.

If the process dies, the file has no footer, and importing says so; export it again.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final

from producers import logs
from producers.access.api_keys import ANY_APP, ApiKeys
from producers.audiences import ALL, Audiences
from producers.audiences.reading import read_members
from producers.exports.lines import (
    MOST_OPENIDS,
    MOST_USES,
    Digests,
    Footer,
    Header,
    Key,
    Members,
    Sums,
    User,
)
from producers.exports.origin import origin_of
from producers.logs.events import AppExported
from producers.permits import ledger
from producers.permits.subscriptions import MOST_SUBSCRIPTIONS
from producers.settings import Settings
from producers.store import Client, keys
from producers.store.clock import now_ms
from producers.store.lanes.following import steady
from producers.store.retry import repeat, repeat_all
from producers.store.scripts import new_token
from producers.suppressions import Reason

_USERS: Final = 100
"""Users read in one trip: three short commands each."""
_EVERY: Final = 1000
"""Users between two calls of `on_progress`."""


class Exporter:
    """Exports of every app. It changes nothing but the deployment's name. Safe to share."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._audiences = Audiences(client, settings)
        self._keys = ApiKeys(client, settings)

    def export(
        self, app: str, on_progress: Callable[[Sums], None] | None = None
    ) -> Iterator[bytes]:
        """Yield one app as lines; see `lines`.

        Args:
            app: alias of the app.
            on_progress: called now and then with what was written so far.

        Raises:
            UnknownAppError: no such app.
            StoreUnavailableError: Redis did not answer; export it again.
        """
        appid = self._settings.app(app).appid
        header = Header(
            app=app,
            appid=appid,
            export=new_token(),
            origin=origin_of(self._client),
            at_ms=repeat("asking the time", partial(now_ms, self._client)),
            lanes=self._settings.layout.count,
            buckets=self._settings.buckets,
        )
        sums, digest, lines = Sums(), hashlib.sha256(), 0
        for line in self._lines(app, header, sums, on_progress):
            digest.update(line)
            lines += 1
            yield line
        found = ledger.totals(self._client, self._settings, app).as_dict()
        yield Footer(lines, digest.hexdigest(), sums.as_dict(), found).line()
        if on_progress:
            on_progress(sums)
        logs.emit(
            AppExported(
                app, header.export, sums.users, sum(sums.uses.values()), sum(sums.gone.values())
            )
        )

    def _lines(
        self, app: str, header: Header, sums: Sums, on_progress: Callable[[Sums], None] | None
    ) -> Iterator[bytes]:
        yield header.line()
        yield from self._key_lines(app, sums)
        before = ""
        for user in self._users(app, header.at_ms):
            _count(user, sums)
            sums.users += user.openid != before  # one with many uses has several lines
            before = user.openid
            yield user.line()
            if on_progress and sums.users % _EVERY == 0:
                on_progress(sums)
        yield from self._audience_lines(app, sums)
        yield from self._suppressed_lines(app, sums)

    def _key_lines(self, app: str, sums: Sums) -> Iterator[bytes]:
        for key in self._keys.list():
            if key.is_for(app):
                sums.keys += 1
                yield Key({**key.as_dict(), "apps": sorted(key.apps & {app, ANY_APP})}).line()

    def _audience_lines(self, app: str, sums: Sums) -> Iterator[bytes]:
        for name in self._audiences.names(app):
            if name != ALL:
                sums.audiences[name] += 0
                for some in _pieces(read_members(self._client, self._settings, app, name)):
                    sums.audiences[name] += len(some)
                    yield Members(name, some).line("audience")
                if not sums.audiences[name]:  # an expression, or a series, may name it
                    yield Members(name, []).line("audience")

    def _suppressed_lines(self, app: str, sums: Sums) -> Iterator[bytes]:
        for reason in Reason:
            found = read_members(self._client, self._settings, app, reason.list)
            if reason is not Reason.FORGOTTEN:
                for some in _pieces(found):
                    sums.suppressed[reason.value] += len(some)
                    yield Members(reason.value, some).line("suppressed")
                continue
            for bucket, digests in found:  # of a digest nobody can tell the bucket elsewhere
                sums.suppressed[reason.value] += len(digests)
                for start in range(0, len(digests), MOST_OPENIDS):
                    yield Digests(bucket, digests[start : start + MOST_OPENIDS]).line()

    def _users(self, app: str, at_ms: int) -> Iterator[User]:
        waiting: list[tuple[int, str]] = []
        for bucket, openids in read_members(self._client, self._settings, app, ALL):
            waiting += ((bucket, openid) for openid in openids)
            while len(waiting) >= _USERS:
                yield from self._read(app, waiting[:_USERS], at_ms)
                waiting = waiting[_USERS:]
        yield from self._read(app, waiting, at_ms)

    def _read(self, app: str, users: list[tuple[int, str]], at_ms: int) -> Iterator[User]:
        found = self._held(app, users) if users else []
        for place, (_, openid) in enumerate(users):
            scores, (_, accepts), marks = found[3 * place : 3 * place + 3]
            yield from _user_lines(openid, scores, accepts, marks, at_ms)

    @steady
    def _held(self, app: str, users: list[tuple[int, str]]) -> list[Any]:
        """Return of each of these users, by bucket, the permits, the accepts and the marks."""
        layout = self._settings.layout

        def ask(pipeline: Any) -> None:
            for bucket, openid in users:
                lane = layout.of_number(bucket)
                pipeline.zrange(keys.permits(lane, app, openid), 0, -1, withscores=True)
                pipeline.hscan(keys.subscriptions(lane, app, openid), count=MOST_SUBSCRIPTIONS)
                pipeline.hgetall(keys.marks(lane, app, openid))

        return repeat_all("reading users", self._client, ask)


def _count(user: User, sums: Sums) -> None:
    sums.uses.update(member[0] for member in user.uses)
    sums.gone.update(member[0] for member in user.gone)
    for count in user.accepts.values():
        if count > 0:
            sums.uses["s"] += count
        else:
            sums.forever += 1


def _user_lines(
    openid: str,
    scores: list[tuple[str, float]],
    accepts: Mapping[str, str],
    marks: Mapping[str, str],
    at_ms: int,
) -> Iterator[User]:
    """Yield the lines of a user; what has ended is left out."""
    alive = [(member, int(score)) for member, score in scores if abs(score) > at_ms]
    counts = {
        template: int(count)
        for template, count in accepts.items()
        if ":" not in template and count.removeprefix("-").isdigit() and int(count) != 0
    }
    first = alive[:MOST_USES]
    yield User(openid, *_split(first), accepts=counts, marks=marks)
    for start in range(MOST_USES, len(alive), MOST_USES):
        yield User(openid, *_split(alive[start : start + MOST_USES]))


def _split(members: list[tuple[str, int]]) -> tuple[dict[str, int], dict[str, int]]:
    """Return what can be had, and what is gone."""
    uses = {member: score for member, score in members if score > 0}
    return uses, {member: -score for member, score in members if score < 0}


def _pieces(buckets: Iterator[tuple[int, list[str]]]) -> Iterator[list[str]]:
    """Yield the members of many small buckets in pieces of one size."""
    waiting: list[str] = []
    for _, openids in buckets:
        waiting += openids
        while len(waiting) >= MOST_OPENIDS:
            yield waiting[:MOST_OPENIDS]
            waiting = waiting[MOST_OPENIDS:]
    if waiting:
        yield waiting
