"""Batches: the openids of a file by lane and bucket, as the scripts take them."""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from producers.audiences.reports import ImportReport, RemovalReport
from producers.audiences.rows import FAULT, openids
from producers.settings import Settings
from producers.store import keys

_MEMBERS: Final = 500
"""Openids per script run, each in a bucket of its own as a rule: about 1 ms of Redis's time."""
_LISTED: Final = 100


class AudienceKeys(NamedTuple):
    """KEYS of the scripts that change an audience in a lane; per bucket one follows, or two."""

    size: str
    buckets: str

    @classmethod
    def of(cls, lane: int, app: str, name: str) -> "AudienceKeys":
        """Return those of an audience in a lane."""
        return cls(keys.audience_size(lane, app, name), keys.audience_buckets(lane, app, name))


def sets(lane: int, app: str, name: str, buckets: Iterable[int]) -> list[str]:
    """Return the keys of an audience's sets in some buckets."""
    return [keys.audience(lane, app, name, bucket) for bucket in buckets]


def arguments(members: dict[int, list[str]]) -> list[str | int]:
    """Return openids by bucket as the scripts take them."""
    args: list[str | int] = []
    for bucket, some in members.items():
        args += (bucket, len(some), *some)
    return args


def batches(
    rows: Iterable[bytes | str], report: ImportReport | RemovalReport, settings: Settings
) -> Iterator[dict[int, list[str]]]:
    """Yield openids by bucket, some hundred of a lane at a time; bad rows go to the report."""
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
            yield waiting.pop(lane)
            sizes[lane] = 0
    yield from waiting.values()
