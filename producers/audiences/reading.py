"""Reading: the members of an audience, or of a list that is kept as one, in bounded memory."""

from collections.abc import Iterator
from functools import partial
from typing import Any, Final

from producers.settings import Settings
from producers.store import Client, deadline, keys
from producers.store.buckets import filled_buckets
from producers.store.lanes.following import lanes_now
from producers.store.lanes.layout import follow
from producers.store.retry import repeat, repeat_all

_MEMBERS: Final = 5000
"""Members read in one trip, about."""
_BUCKETS: Final = 200
"""Buckets read in one trip, at most."""


def read_members(
    client: Client, settings: Settings, app: str, name: str
) -> Iterator[tuple[int, list[str]]]:
    """Yield (bucket, its members) of an audience, lane by lane.

    Each bucket is read whole at its moment; who comes or goes meanwhile may be among them or not.
    Nobody else is missing, or comes twice, though lanes are divided meanwhile.

    Args:
        client: Redis.
        settings: those of the deployment.
        app: alias of the app.
        name: of the audience, or of a list (`suppressions`).

    Raises:
        StoreUnavailableError: Redis did not answer.
    """

    def read(lane: int, buckets: list[int], pipeline: Any) -> None:
        for bucket in buckets:
            pipeline.smembers(keys.audience(lane, app, name, bucket))

    done, finished = set[int](), set[int]()
    while True:
        lane = next((lane for lane in settings.layout.lanes if lane not in finished), None)
        if lane is None:
            if repeat("looking at the lanes", lambda: follow(client, settings)):
                continue
            return
        buckets = [one for one in filled_buckets(client, lane, app, name) if one not in done]
        step, start = 1, 0
        for _ in deadline.paced(range(len(buckets))):
            some = buckets[start : start + step]
            if not some:
                break
            found = repeat_all("reading an audience", client, partial(read, lane, some))
            if lane not in lanes_now(client, settings):  # it was perhaps not there any more
                break
            done.update(some)
            yield from zip(some, map(sorted, found), strict=True)
            start += step
            step = max(1, min(_BUCKETS, step * _MEMBERS // max(1, sum(map(len, found)))))
        if lane in lanes_now(client, settings):
            finished.add(lane)
