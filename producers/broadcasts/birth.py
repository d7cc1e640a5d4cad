"""Birth: how a broadcast comes into Redis, whoever dies on the way.

It gets its id, which the caller's key remembers; it is listed, so that nothing may run which
forgetting a user would not find; it is written at its home, once; each lane adopts it; and its
first window is filled. One to few goes all of that way in one trip. If the process dies in the
middle, the keeper finds what was stored and goes on, or the same call with the same key does.
"""

import contextlib
import math
import secrets
import time
import zlib
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Final, NamedTuple

from producers import logs
from producers.audiences.expressions import Expression
from producers.broadcasts.glance import Glance
from producers.broadcasts.lifecycle import Lifecycle
from producers.broadcasts.spec import MAX_LIFE, Spec
from producers.broadcasts.split import Splitter
from producers.broadcasts.timing import MAX_AHEAD, Timing
from producers.errors import IdempotencyConflictError, LaneDividedError
from producers.logs.events import BroadcastCreated
from producers.settings import Settings, ms
from producers.store import Client, keys
from producers.store.clock import now_ms
from producers.store.lanes.following import anew, following
from producers.store.retry import repeat
from producers.store.scripts import Script
from producers.store.trip import Question, in_order, is_done
from producers.words import State

_KEY_TTL: Final = timedelta(days=7)
_SMALL: Final = 10_000
"""An audience up to so many is split by its creator at once; larger ones by a worker."""

_MOST_LANES: Final = 1024
"""As many as the settings allow."""


class CreateKeys(NamedTuple):
    """KEYS of create.lua."""

    home: str


class CreateArgs(NamedTuple):
    """ARGV of create.lua."""

    ttl_ms: int


CREATE: Final = Script(__package__, "create", CreateKeys, CreateArgs, clock=True)


class Birth(Lifecycle):
    """Brings broadcasts into Redis, for those who make them. Safe to share between threads."""

    def __init__(self, client: Client, settings: Settings) -> None:
        super().__init__(client, settings)
        self._splitter = Splitter(client, settings)
        self._create = CREATE.on(client)

    def _claim_id(self, app: str, key: str, digest: str, new: str = "", *, near: str = "") -> str:
        """Return a new id, or the one that the key claimed before.

        Args:
            app: alias of the app.
            key: an idempotency key, or ''.
            digest: what tells the content from another under the same key.
            new: the new id; '': any.
            near: a broadcast whose home lane a new one is to have, now and later; '': any.

        Raises:
            IdempotencyConflictError: the key was used with other content.
            StoreUnavailableError: Redis did not answer.
        """
        broadcast = new or new_id()
        homes = self._homes()
        while near and (_number(broadcast) - _number(near)) % homes:
            broadcast = new_id()
        if not key:
            return broadcast
        mine = f"{broadcast} {digest}"
        held = repeat(
            "claiming the key",
            lambda: self._client.set(
                keys.idempotency(app, key), mine, nx=True, get=True, px=ms(_KEY_TTL)
            ),
        )
        known, content = (held or mine).split(" ")
        if content != digest:
            raise IdempotencyConflictError(key, known)
        return str(known)

    def _homes(self) -> int:
        """Return by what two numbers are to leave one remainder to have one home at all times."""
        layout = self._settings.layout
        may_be = range(layout.count, _MOST_LANES + 1, layout.count)
        return math.lcm(*(count for count in may_be if layout.buckets % count == 0))

    def _store(
        self,
        broadcast: str,
        spec: Spec,
        size: int,
        *more: str | int,
        write: Callable[[str, list[str | int]], int] | None = None,
    ) -> bool:
        """List a broadcast, write it at its home and bring it to the lanes; say if it is new.

        Args:
            broadcast: its id.
            spec: what is sent to whom.
            size: members of the audience.
            *more: further fields of its home, and their values.
            write: writes the fields at a home's key, once, and says whether they are new; default:
                create.lua does. What it raises ends the call.
        """
        at_ms = self._now_ms()
        listing = self._listing(spec.app, broadcast, at_ms)
        repeat("listing the broadcast", lambda: in_order(self._client, listing))
        fields = self._fields(broadcast, spec, size, *more)

        def create() -> int:
            return (write or self._write)(keys.home(self.home_lane(broadcast), broadcast), fields)

        created = anew(self._client, self._settings, create)
        self._adopt_where_it_may(broadcast)
        if created:
            of = dict(zip(more[::2], more[1::2], strict=True))
            self._tell_created(broadcast, spec, size, int(of.get("starts_at_ms", 0)))
        return bool(created)

    def _listing(self, app: str, broadcast: str, at_ms: int) -> list[Question]:
        """Return what lists a broadcast, before it is written.

        Nothing may run that forgetting a user would not find. It is listed as long as any outcome
        may live: the first one is written up to a whole life after its start.
        """
        listed_ms = self.ttl_ms + ms(MAX_LIFE + MAX_AHEAD)
        past = f"{at_ms - listed_ms}"
        return [
            ("ZADD", keys.active(app), "NX", at_ms, broadcast),
            ("ZADD", keys.history(app), "NX", at_ms, broadcast),
            ("ZREMRANGEBYSCORE", keys.history(app), "-inf", past),
            ("PEXPIRE", keys.history(app), listed_ms),
            ("ZADD", keys.APPS, at_ms, app),
            ("ZREMRANGEBYSCORE", keys.APPS, "-inf", past),
            ("PEXPIRE", keys.APPS, listed_ms),
        ]

    def _fields(self, broadcast: str, spec: Spec, size: int, *more: str | int) -> list[str | int]:
        """Return what is written at a broadcast's home, fields and values."""
        return [
            "spec",
            spec.to_json(),
            "app",
            spec.app,
            "state",
            State.RUNNING,
            "generation",
            1,
            "audience_size",
            size,
            "expires_in_ms",
            spec.expires_in_ms,
            "canary_lane",
            self.home_lane(broadcast),
            *more,  # a field that comes twice is what it is last
        ]

    @staticmethod
    def _tell_created(broadcast: str, spec: Spec, size: int, starts_at_ms: int = 0) -> None:
        logs.emit(
            BroadcastCreated(
                spec.app,
                broadcast,
                spec.channel,
                spec.template_id,
                spec.audience,
                size,
                starts_at_ms,
            )
        )

    def _write(self, home: str, fields: list[str | int]) -> int:
        created, *_ = self._create.repeated(
            "creating the broadcast", CreateKeys(home), CreateArgs(self.ttl_ms), fields
        )
        return int(created)

    @following
    def _bear(self, broadcast: str, spec: Spec, seen: Glance, *more: str | int) -> bool:
        """Write a new broadcast to few, and begin to send it, in one trip; say if it is new.

        What a lane refuses that is just being divided is the keeper's; its home is waited for.

        Raises:
            StoreUnavailableError: Redis did not answer; the keeper goes on with what was written.
        """
        fields = self._fields(broadcast, spec, seen.size, *more)
        home = {
            str(name): str(value) for name, value in zip(fields[::2], fields[1::2], strict=True)
        }
        home_key = keys.home(self.home_lane(broadcast), broadcast)
        lanes, audience = [*seen.buckets], Expression.stored(spec.audience).postfix
        stages = (
            self._listing(spec.app, broadcast, seen.now_ms),
            [self._create.call(CreateKeys(home_key), CreateArgs(self.ttl_ms), fields)],
            [self._adoption(lane, broadcast, home, spec) for lane in lanes],
            [self._splitter.first(broadcast, lane, audience, seen.buckets[lane]) for lane in lanes],
        )
        _, ((created, *_),), _, splits = repeat(
            "creating the broadcast", lambda: in_order(self._client, *stages, firm=2)
        )
        if created:
            self._tell_created(broadcast, spec, seen.size)
        for lane, split in zip(lanes, splits, strict=True):
            if not is_done(split):
                continue
            status, cursor, *_ = split
            left = [bucket for bucket in seen.buckets[lane] if bucket >= int(cursor)]
            if status == 1 and left:
                self._split_if_it_may(broadcast, lane)
        return bool(created)

    def _canary(self, broadcast: str, seen: Glance | None) -> list[str | int]:
        """Return where the canary is to begin: at home, unless nobody is there."""
        home = self.home_lane(broadcast)
        if seen is None or seen.buckets.get(home, True):  # or it was divided just now
            return []
        return ["canary_lane", max(seen.buckets, key=lambda lane: len(seen.buckets[lane]))]

    def _begin(self, broadcast: str, size: int) -> None:
        """Have the first window filled: of a small one here, of others by a worker.

        Raises:
            StoreUnavailableError: Redis did not answer; the keeper does it.
        """
        if size <= _SMALL:
            for lane in self._settings.layout.lanes:
                self._split_if_it_may(broadcast, lane)
        else:
            self._ask_for_split(broadcast)

    def _split_if_it_may(self, broadcast: str, lane: int) -> None:
        """Fill a lane's window; of one that is just being divided that is left to the keeper."""
        with contextlib.suppress(LaneDividedError):
            self._splitter.fill(broadcast, lane)

    def _go_on(self, broadcast: str, size: int) -> None:
        """Go on where the creator of a broadcast may have died.

        Raises:
            StoreUnavailableError: Redis did not answer; the keeper does it.
        """
        self._adopt_where_it_may(broadcast)
        self._begin(broadcast, size)

    def _now_ms(self) -> int:
        return repeat("asking the time", partial(now_ms, self._client))


def _number(broadcast: str) -> int:
    """Return the number that says where a broadcast is at home (`Layout.home_of`)."""
    return zlib.crc32(broadcast.encode())


def times(timing: Timing) -> list[str | int]:
    """Return what a home keeps of a timing, fields and values."""
    fields: list[str | int] = []
    if timing.ends_at_ms:
        fields += ("ends_at_ms", timing.ends_at_ms)
    if timing.starts_at_ms:
        fields += ("state", State.SCHEDULED, "starts_at_ms", timing.starts_at_ms)
    return fields


def new_id() -> str:
    """Return a new broadcast's id.

    It begins with the time, so that ids sort by it for people; the server's clock decides
    everything else.
    """
    return f"{time.time_ns() // 1_000_000:011x}{secrets.token_hex(5)}"
