"""The store of rows: a draft is loaded beside, and read by nobody until a broadcast is made of it.

If the process dies while it loads, the draft ends by itself after two hours, and the same call with
the same key loads another one. `keys.frozen` names all that is kept, drafts too, so that forgetting
a user finds it.
"""

import contextlib
import hashlib
import time
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from producers.errors import InvalidInputError, StoreUnavailableError
from producers.rows.check import DUPLICATE, Listed, Said, checked
from producers.rows.reading import Row
from producers.rows.report import RowsReport
from producers.settings import Settings, ms
from producers.store import Client, deadline, keys
from producers.store.clock import now_ms
from producers.store.lanes.following import by_lane, each_lane
from producers.store.lanes.plain import PLAIN, PlainArgs, PlainKeys
from producers.store.retry import repeat, repeat_all
from producers.store.scripts import Script, new_token

VALUE: Final = "\x1f"
"""Stands before each value of a packed row; see lanes/rows.lua."""

DRAFT_LIFE: Final = timedelta(hours=2)
_LOADING: Final = timedelta(hours=1)
"""How long a loading may take: no lane's part of a draft ends before its last row came."""

_WAITING_ROWS: Final = 100_000
"""Rows that are read before they are stored: about six of each bucket of five million's."""
_WAITING_BYTES: Final = 16 * 2**20
_ROWS: Final = 250
"""Rows per script run, at most."""
_BUCKETS: Final = 50
_BYTES: Final = 2**19
"""Bytes that a script run reads and writes: about a millisecond of Redis's time."""
_BUCKET_BYTES: Final = 2**19
"""Bytes of a bucket: what one step of a split, a take or a settle may have to read."""


_CROWDED: Final = (
    f"over {_BUCKET_BYTES:,} bytes of rows in one bucket; make more buckets, or send less"
)
_SLOW: Final = f"the rows took more than {_LOADING}; send them faster"


class AddKeys(NamedTuple):
    """KEYS of rows_add.lua."""

    reply: str
    rows: str
    size: str
    buckets: str

    @classmethod
    def of(cls, lane: int, app: str, name: str) -> "AddKeys":
        """Return those of a draft in a lane."""
        return cls(
            keys.reply(lane, "rows", name),
            keys.rows(lane, app, name),
            keys.audience_size(lane, app, name),
            keys.audience_buckets(lane, app, name),
        )


class AddArgs(NamedTuple):
    """ARGV of rows_add.lua; the rows of each bucket follow."""

    ttl_ms: int


ADD: Final = Script(__package__, "rows_add", AddKeys, AddArgs, token=True)


@dataclass(frozen=True, slots=True)
class Draft:
    """Rows that are stored, and read by nobody yet.

    Attributes:
        name: under which they lie.
        report: what was read.
        size: how many they are.
        digest: what tells these rows from others.
    """

    name: str
    report: RowsReport
    size: int
    digest: str


_Numbered = list[tuple[str, tuple[int, str]]]
"""Rows: of each its openid, its number, and its values."""
_Step = dict[int, _Numbered]
"""What one script run adds: rows of buckets of one lane."""


class Rows:
    """The rows of every app's broadcasts. Safe to share between threads.

    Every call may raise `StoreUnavailableError`: Redis did not answer.
    """

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._add = ADD.on(client)
        self._plain = PLAIN.on(client)

    def load(
        self,
        app: str,
        said: Said,
        rows: Iterable[object] | str | Path,
        on_progress: Callable[[RowsReport], None] | None = None,
        listed: Listed = MappingProxyType({}),
    ) -> Draft:
        """Read, check and store rows, in constant memory.

        Args:
            app: alias of the app.
            said: what is to be said, a `Spec` made with ``rows=True``.
            rows: as `read_rows` takes them.
            on_progress: called after each step with the report so far.
            listed: the values that its template lets fields have.

        Raises:
            InvalidInputError: as `read_rows`; too many of them fall into one bucket, or they came
                too slowly. Nothing is left of the draft, then.
        """
        name = keys.ROWS_NAME + new_token()
        self._list(app, name, ms(DRAFT_LIFE))
        report, digest, added = RowsReport(), hashlib.sha256(), 0
        try:
            for step in deadline.paced(
                self._steps(checked(said, rows, report, listed), report, digest)
            ):
                added += by_lane(
                    self._client, self._settings, step, partial(self._add_in, app, name, report)
                )
                if on_progress:
                    on_progress(report)
        except BaseException:
            with contextlib.suppress(StoreUnavailableError):  # it ends by itself
                self.discard(app, name)
            raise
        return Draft(name, report, added, digest.hexdigest()[:32])

    def _add_in(self, app: str, name: str, report: RowsReport, lane: int, step: _Step) -> int:
        """Add rows of one lane; returns how many are no duplicates."""
        numbers = [number for some in step.values() for _, (number, _) in some]
        args: list[str | int] = []
        for bucket, some in step.items():
            args += (bucket, len(some))
            for openid, (_, text) in some:
                args += (openid, text)
        known = self._add.repeated(
            "storing rows", AddKeys.of(lane, app, name), AddArgs(ms(DRAFT_LIFE)), args
        )
        for place in known:
            report.note(numbers[place - 1], *DUPLICATE)
        return len(numbers) - len(known)

    def keep(self, app: str, name: str, ttl_ms: int) -> None:
        """A broadcast is made of a draft: what lies under its name is found for so long."""
        self._list(app, name, ttl_ms)

    def discard(self, app: str, name: str) -> None:
        """Remove what lies under a name that no broadcast has."""

        def remove(lane: int) -> None:
            first, *more = AddKeys.of(lane, app, name)
            self._plain.repeated(
                "discarding rows", PlainKeys(first), PlainArgs("UNLINK"), more_keys=more
            )

        each_lane(self._client, self._settings, remove)
        repeat("discarding rows", lambda: self._client.zrem(keys.frozen(app), name))

    def _list(self, app: str, name: str, ttl_ms: int) -> None:
        key = keys.frozen(app)
        at_ms = repeat("asking the time", partial(now_ms, self._client))

        def fill(pipeline: Any) -> None:
            pipeline.zremrangebyscore(key, "-inf", at_ms)
            pipeline.zadd(key, {name: at_ms + ttl_ms})
            pipeline.pexpire(key, ttl_ms, gt=True)
            pipeline.pexpire(key, ttl_ms, nx=True)

        repeat_all("listing the rows", self._client, fill)

    def _steps(self, rows: Iterable[Row], report: RowsReport, digest: Any) -> Iterator[_Step]:
        """Yield what is to be stored, some thousand rows of all buckets at a time."""
        stored = array("I", bytes(4 * self._settings.buckets))  # bytes of each bucket
        waiting: dict[int, dict[str, tuple[int, str]]] = {}
        count = size = 0
        give_up_at = time.monotonic() + _LOADING.total_seconds()
        for row in rows:
            values = VALUE + VALUE.join(row.values)
            digest.update(f"{row.openid}{values}\x1e".encode())
            mine = waiting.setdefault(keys.bucket_of(row.openid, self._settings.buckets), {})
            if row.openid in mine:
                report.note(row.number, *DUPLICATE)
                continue
            mine[row.openid] = (row.number, values)
            count, size = count + 1, size + len(values)
            if count >= _WAITING_ROWS or size >= _WAITING_BYTES:
                if time.monotonic() > give_up_at:
                    raise InvalidInputError([_SLOW])
                yield from self._packed(waiting, stored)
                waiting, count, size = {}, 0, 0
        yield from self._packed(waiting, stored)

    def _packed(
        self, waiting: dict[int, dict[str, tuple[int, str]]], stored: "array[int]"
    ) -> Iterator[_Step]:
        lanes: dict[int, list[int]] = {}
        for bucket in sorted(waiting):
            lanes.setdefault(self._settings.layout.of_number(bucket), []).append(bucket)
        for buckets in lanes.values():
            step, rows, size = _Step(), 0, 0
            for bucket in buckets:
                for some in _parts(list(waiting[bucket].items())):
                    bytes_of = sum(len(one) + len(text.encode()) + 1 for one, (_, text) in some)
                    stored[bucket] += bytes_of
                    if stored[bucket] > _BUCKET_BYTES:
                        raise InvalidInputError([_CROWDED])
                    step[bucket] = some  # once: a bucket's next part comes after a whole one
                    rows += len(some)
                    size += stored[bucket]
                    if len(step) >= _BUCKETS or size >= _BYTES or rows >= _ROWS:
                        yield step
                        step, rows, size = _Step(), 0, 0
            if step:
                yield step


def _parts(rows: _Numbered) -> Iterator[_Numbered]:
    for start in range(0, len(rows), _ROWS):
        yield rows[start : start + _ROWS]
