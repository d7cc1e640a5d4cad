"""Audiences: named sets of openids of one app; ``all`` is every openid that ever gave a permit.

Kept as one set per bucket, so that a broadcast can be split bucket by bucket while members come
and go. Importing is adding: the same file twice changes nothing. If the process dies in the
middle, what was answered stays; import the file again for the rest.
"""

import csv
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from producers import keys, scripts
from producers.errors import InvalidInputError, NotFoundError
from producers.retry import repeat, repeat_all
from producers.settings import Settings
from producers.store import Client

ALL: Final = "all"
"""The audience that collecting keeps."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_OPENID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MEMBERS: Final = 2000
"""Openids per script run."""
_LISTED: Final = 100


@dataclass
class ImportReport:
    """What became of the rows of one import.

    Attributes:
        rows: rows read, without blank ones and a CSV header.
        added: members that are new.
        known: members that were there before.
        bad: rows that hold no openid.
        listed: the first 100 bad rows: (row number from 1, one sentence).
    """

    rows: int = 0
    added: int = 0
    known: int = 0
    bad: int = 0
    listed: list[tuple[int, str]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready fields."""
        return {
            "rows": self.rows,
            "added": self.added,
            "known": self.known,
            "bad": self.bad,
            "listed": [{"row": row, "detail": detail} for row, detail in self.listed],
        }


class Audiences:
    """The audiences of every app. Safe to share between threads."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._add = client.register_script(scripts.source("producers", "audience_add"))

    def import_rows(
        self,
        app: str,
        name: str,
        rows: Iterable[bytes],
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
            InvalidInputError: the name is not one.
            StoreUnavailableError: Redis did not answer; see the module's docstring.
        """
        self._settings.app(app)
        if not _NAME.fullmatch(name) or name == ALL:
            raise InvalidInputError(
                [f"audience name {name!r}: take 1-64 of letters, digits, _ . - (and not 'all')"]
            )
        repeat(
            "naming the audience",
            lambda: self._client.hsetnx(keys.audiences(app), name, str(time.time_ns() // 10**6)),
        )
        report = ImportReport()
        waiting: dict[int, dict[int, list[str]]] = {}
        sizes: dict[int, int] = {}
        for number, openid in _openids(rows, report):
            if openid is None:
                report.bad += 1
                if len(report.listed) < _LISTED:
                    report.listed.append((number, "no openid: 1-64 letters, digits, _ or -"))
                continue
            bucket = keys.bucket_of(openid, self._settings.buckets)
            lane = bucket % self._settings.lanes
            waiting.setdefault(lane, {}).setdefault(bucket, []).append(openid)
            sizes[lane] = sizes.get(lane, 0) + 1
            if sizes[lane] >= _MEMBERS:
                self._store(lane, app, name, waiting.pop(lane), report)
                sizes[lane] = 0
                if on_progress:
                    on_progress(report)
        for lane, members in waiting.items():
            self._store(lane, app, name, members, report)
        if on_progress:
            on_progress(report)
        return report

    def names(self, app: str) -> list[str]:
        """Return the names of the app's audiences, sorted, ``all`` first.

        Raises:
            UnknownAppError: no such app.
        """
        self._settings.app(app)
        names = repeat("listing audiences", lambda: self._client.hkeys(keys.audiences(app)))
        return [ALL, *sorted(names)]

    def count(self, app: str, name: str) -> int:
        """Return how many members an audience has.

        Raises:
            UnknownAppError: no such app.
            NotFoundError: no such audience.
        """
        self._settings.app(app)
        if name != ALL and not repeat(
            "looking up the audience", lambda: self._client.hexists(keys.audiences(app), name)
        ):
            raise NotFoundError(
                f"no audience {name!r} of app {app!r}; `wxbroadcast audience list` shows them, "
                "`wxbroadcast audience import` makes one"
            )

        def fill(pipeline: Any) -> None:
            for lane in range(self._settings.lanes):
                pipeline.get(keys.audience_size(lane, app, name))

        sizes = repeat_all("counting the audience", self._client, fill)
        return sum(int(size or 0) for size in sizes)

    def _store(
        self,
        lane: int,
        app: str,
        name: str,
        members: dict[int, list[str]],
        report: ImportReport,
    ) -> None:
        script_keys = [
            keys.audience_size(lane, app, name),
            keys.audience_buckets(lane, app, name),
            *(keys.audience(lane, app, name, bucket) for bucket in members),
        ]
        args: list[str | int] = []
        for bucket, openids in members.items():
            args += (bucket, len(openids), *openids)
        added = repeat("storing the audience", lambda: self._add(keys=script_keys, args=args))
        report.added += added
        report.known += sum(map(len, members.values())) - added


def _openids(rows: Iterable[bytes], report: ImportReport) -> Iterable[tuple[int, str | None]]:
    """Yield (row number, openid or None for a bad row)."""
    column = 0
    for number, row in enumerate(rows, start=1):
        line = row.strip().removeprefix(b"\xef\xbb\xbf")  # spreadsheets write a byte order mark
        if not line:
            continue
        if line[:1] in b'{"' and (found := _from_json(line)) is not None:
            if report.rows == 0 and found.lower() == "openid":
                continue  # a CSV header of one quoted column
            report.rows += 1
            yield number, found if _OPENID.fullmatch(found) else None
            continue
        try:
            cells = next(csv.reader([line.decode("utf-8", "replace")]))
        except csv.Error:
            cells = []
        if report.rows == 0 and "openid" in (names := [cell.strip().lower() for cell in cells]):
            column = names.index("openid")
            continue
        report.rows += 1
        cell = cells[column].strip() if column < len(cells) else ""
        yield number, cell if _OPENID.fullmatch(cell) else None


def _from_json(line: bytes) -> str | None:
    """Return the openid of a JSON row, '' for JSON without one, None for what is not JSON."""
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    value = row.get("openid") if isinstance(row, dict) else row
    return value if isinstance(value, str) else ""
