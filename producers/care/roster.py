"""The roster: which workers are alive, which apps they know, and which they do not reach.

It answers why a broadcast that runs does not move. A look costs two trips to Redis.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from producers.store import Client, keys
from producers.store.clock import ms_of, now_ms
from producers.store.retry import repeat_all

_ALIVE_MS: Final = 5000
"""A worker beats each second; one that was silent for so long is not counted on."""

TELL_EVERY_S: Final = 20.0
_WEB_ALIVE_MS: Final = 60_000

SEE: Final = "see appid, secret and IP whitelist"


@dataclass(frozen=True, slots=True)
class Closed:
    """One worker's own gate of one app, which it closed, or cannot open for want of a token.

    Attributes:
        worker: its id.
        app: whose POSTs do not come through.
        seconds: since when.
        reason: ``no connection``, ``no answer``, or ``no token: 40125 …``.
    """

    worker: str
    app: str
    seconds: int
    reason: str

    @property
    def without(self) -> str:
        """Why the worker has no token, in WeChat's words; '' when that is not what it lacks."""
        return self.reason.removeprefix(keys.LACKING) if keys.LACKING in self.reason else ""


@dataclass(frozen=True, slots=True)
class Roster:
    """Who works at one moment.

    Attributes:
        workers: how many are alive.
        apps: the apps that they know; None when one of them has not said.
        closed: the gates that they closed by themselves.
        digests: process, a worker or one of the service → the digest of its apps, where it said so.
    """

    workers: int
    apps: frozenset[str] | None
    closed: tuple[Closed, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)

    def knows(self, app: str) -> bool:
        """Say whether some worker may send for an app."""
        return self.workers > 0 and (self.apps is None or app in self.apps)

    def hinders(self, app: str) -> str:
        """Return why nothing of an app is sent, and what to do; '' when workers are there."""
        if not self.workers:
            return "no worker alive: start `wxbroadcast up`, or the worker line of the Procfile"
        if not self.knows(app):
            names = sorted(self.apps or ())
            more = f" and {len(names) - 20:,} more" if len(names) > 20 else ""
            known = f"{', '.join(names[:20])}{more}"
            return f"no worker knows app {app} (they know {known}): see their WXB_APPS"
        closed = [one for one in self.closed if one.app == app]
        if len(closed) >= self.workers and all(one.without for one in closed):
            return f"no worker has a token for app {app}: {closed[0].without}: {SEE}"
        if len(closed) >= self.workers:
            return f"no worker reaches WeChat for app {app} ({closed[0].reason}): see the network"
        return ""


def look(client: Client) -> Roster:
    """Return who works now.

    Raises:
        StoreUnavailableError: Redis did not answer.
    """

    def ask(pipeline: Any) -> None:
        pipeline.time()
        pipeline.zrange(keys.WORKERS, 0, -1, withscores=True)

    clock, beats = repeat_all("looking for workers", client, ask)
    clock_ms = ms_of(clock)
    alive = [worker for worker, beat_ms in beats if clock_ms - beat_ms < _ALIVE_MS]

    def ask_each(pipeline: Any) -> None:
        for worker in alive:
            pipeline.get(keys.worker_apps(worker))
        for worker in alive:
            pipeline.hgetall(keys.closed_gates(worker))
        pipeline.zrangebyscore(keys.WEBS, clock_ms - _WEB_ALIVE_MS, "+inf")

    *answers, webs = repeat_all("asking workers for their apps", client, ask_each)
    said = answers[: len(alive)]
    words = [text.split() if text is not None else [] for text in said]
    apps = {word for some in words for word in some if not word.startswith("#")}
    digests = {
        worker: some[-1].removeprefix("#")
        for worker, some in zip(alive, words, strict=True)
        if some and some[-1].startswith("#")
    }
    digests |= dict(one.split(" ") for one in webs)
    closed = [
        _closed(worker, app, text, clock_ms)
        for worker, gates in zip(alive, answers[len(alive) :], strict=True)
        for app, text in sorted(gates.items())
    ]
    known = None if None in said else frozenset(apps)
    return Roster(len(alive), known, tuple(closed), digests)


def tell_web(client: Client, process: str, digest: str, before: str = "") -> None:
    """Say which apps a process of the service has; repeat it each `TELL_EVERY_S`.

    Args:
        client: Redis.
        process: its name, without blanks.
        digest: of its apps.
        before: what it said last; '' for nothing.

    Raises:
        redis.RedisError, StoreUnavailableError: Redis did not answer; say it again.
    """
    at_ms = now_ms(client)
    pipeline = client.pipeline(transaction=True)
    pipeline.zremrangebyscore(keys.WEBS, "-inf", at_ms - _WEB_ALIVE_MS)
    if before and before != digest:
        pipeline.zrem(keys.WEBS, f"{process} {before}")
    pipeline.zadd(keys.WEBS, {f"{process} {digest}": at_ms})
    pipeline.pexpire(keys.WEBS, _WEB_ALIVE_MS)
    pipeline.execute()


def _closed(worker: str, app: str, text: str, clock_ms: int) -> Closed:
    since_ms, _, reason = text.partition(" ")
    return Closed(worker, app, max(0, clock_ms - int(since_ms)) // 1000, reason)
