"""Frozen recipients: whom a retry is for, chosen once and kept beside until it is sent.

They lie as an audience does, a set per bucket, under a name that no audience has; Redis chooses
them bucket by bucket, so that memory stays flat whatever their number. Until the retry is written
at its home nobody reads them; if the process dies before, they end by themselves. `keys.frozen`
names them all, so that forgetting a user finds them.
"""

from functools import partial
from typing import Any, Final, NamedTuple

from producers.audiences.batches import AudienceKeys, sets
from producers.audiences.filled import filled_buckets
from producers.audiences.switch import Switch
from producers.errors import NotFoundError
from producers.retries.choice import Choice
from producers.settings import Settings
from producers.store import Client, deadline, keys
from producers.store.buckets import recipient_buckets
from producers.store.clock import now_ms
from producers.store.lanes.following import each_lane, steady
from producers.store.lanes.plain import PLAIN, PlainArgs, PlainKeys
from producers.store.retry import repeat, repeat_all
from producers.store.scripts import Script, new_token

_LOOKED_AT: Final = 2000
"""Recipients per script run, those of each broadcast of the family counted: about a millisecond."""
_BUCKETS: Final = 100
"""Buckets per script run, at most."""


class SelectArgs(NamedTuple):
    """ARGV of select.lua; the buckets follow."""

    prefix: str
    app: str
    broadcast: str
    ttl_ms: int
    outcomes: str
    errcodes: str
    doubts: int
    rest: str
    family: str
    rows_from: str
    rows_to: str


SELECT: Final = Script(__package__, "select", AudienceKeys, SelectArgs)


class Frozen:
    """The recipients of retries. Safe to share between threads.

    Every call may raise `StoreUnavailableError`: Redis did not answer.
    """

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._select = SELECT.on(client)
        self._plain = PLAIN.on(client)
        self._switch = Switch(client, settings)

    def name(self, app: str, ttl_ms: int, *, rows: bool) -> str:
        """Return a new name for recipients, who may have rows, and list it."""
        name, key = self._switch.new_name(), keys.frozen(app)
        if rows:
            name = keys.ROWS_NAME + new_token()
        at_ms = repeat("asking the time", partial(now_ms, self._client))

        def fill(pipeline: Any) -> None:
            pipeline.zremrangebyscore(key, "-inf", at_ms)
            pipeline.zadd(key, {name: at_ms + ttl_ms})
            pipeline.pexpire(key, ttl_ms, gt=True)
            pipeline.pexpire(key, ttl_ms, nx=True)

        repeat_all("listing the recipients", self._client, fill)
        return name

    def choose(
        self,
        app: str,
        name: str,
        broadcast: str,
        choice: Choice,
        *,
        rest: str,
        rows: str,
        others: list[str],
        members: int,
        ttl_ms: int,
    ) -> int:
        """Choose recipients of a broadcast, and put them under a name.

        Args:
            app: alias of the app.
            name: as `name` gave it.
            broadcast: whose recipients.
            choice: which of them.
            rest: an audience, as Redis reads it (`Expression.postfix`), whose members without an
                outcome belong to them too; '': none.
            rows: the name under which the broadcast's rows lie; '': it has none.
            others: the other broadcasts of the family.
            members: how many recipients there are, about.
            ttl_ms: how long they are kept.

        Returns:
            How many they are.

        Raises:
            NotFoundError: rows of some of them are not kept any more.
        """

        def choose_in(lane: int) -> int:
            lost = 0
            found = set(recipient_buckets(self._client, lane, broadcast))
            if rest:
                found.update(filled_buckets(self._client, lane, app, rest))
            buckets = sorted(found)
            args = SelectArgs(
                prefix=keys.lane_prefix(lane),
                app=app,
                broadcast=broadcast,
                ttl_ms=ttl_ms,
                outcomes=" ".join(choice.outcomes),
                errcodes=" ".join(map(str, choice.errcodes)),
                doubts=int(choice.even_in_doubt),
                rest=rest,
                family=" ".join(others),
                rows_from=rows,
                rows_to=name if rows else "",
            )
            looks = members // len(self._settings.layout.lanes) * (1 + len(others))
            most = max(1, min(_BUCKETS, _LOOKED_AT * len(buckets) // max(1, looks)))
            for start in deadline.paced(range(0, len(buckets), most)):
                some = buckets[start : start + most]
                _, without = self._select.repeated(
                    "choosing the recipients",
                    AudienceKeys.of(lane, app, name),
                    args,
                    some,
                    more_keys=sets(lane, app, name, some),
                )
                lost += without
            return lost

        lost = sum(each_lane(self._client, self._settings, choose_in).values())
        if lost:
            raise NotFoundError(
                f"the rows of {lost:,} of broadcast {broadcast} are not kept any more: those who "
                "were not delivered have theirs for a day after its end"
            )
        return self.size(app, name)

    @steady
    def size(self, app: str, name: str) -> int:
        """Return how many lie under a name."""
        sizes = [keys.audience_size(lane, app, name) for lane in self._settings.layout.lanes]

        def ask(pipeline: Any) -> None:
            for key in sizes:
                pipeline.get(key)

        return sum(
            int(size or 0) for size in repeat_all("counting the recipients", self._client, ask)
        )

    def discard(self, app: str, name: str) -> None:
        """Remove what lies under a name that no retry has."""
        self._switch.discard(app, name)

        def remove(lane: int) -> None:
            rows = PlainKeys(keys.rows(lane, app, name))
            self._plain.repeated("unlisting", rows, PlainArgs("UNLINK"))

        each_lane(self._client, self._settings, remove)
        repeat("unlisting", lambda: self._client.zrem(keys.frozen(app), name))
