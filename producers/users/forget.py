"""Forgetting: one user leaves everywhere, and every sum stays true.

Two steps, each done again at will. First, in one script: permits and subscriptions (counted void),
receipts, and the membership of every audience, so that nothing more is claimed for the user and no
broadcast is split to the user. Then, a few hundred broadcasts a script: waiting messages are
dropped (counted as cancelled), and recorded outcomes lose the openid and stay as counts. If the
process dies in between, forget again.

What is in a worker's hands at that moment is not touched: it may have been posted. It is never
repeated, and its outcome is written without the openid. What stays for a while, and ends by itself:
the openid in a worker's last take (10 minutes, or the next take), in log lines, in a receipt
that WeChat sends later (one day), and, of a message in hands whose broadcast is cancelled before it
is settled, among those that leave (8 days). A user who gives a permit afterwards is a new user.

Who was suppressed by an operator, or opted out, stays so, as a digest of the openid: see
`producers.suppressions`.
"""

import itertools
import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, NamedTuple

from producers import logs
from producers.broadcasts.spec import MAX_LIFE
from producers.broadcasts.status import Register
from producers.logs.events import UserForgotten
from producers.openid import check_openid
from producers.settings import Settings, ms
from producers.store import Client, deadline, keys
from producers.store.lanes.following import following
from producers.store.retry import repeat
from producers.store.scripts import Script
from producers.suppressions import Suppressions
from producers.webhooks import forget as webhooks

_BROADCASTS: Final = 300
"""Broadcasts per script run: about 2 ms of Redis."""

_FROZEN: Final = 200
"""Names of frozen recipients per script run: of those that have rows, a bucket each is read."""

_LEAVING_TTL_MS: Final = ms(MAX_LIFE + timedelta(days=1))
"""A message that is in hands now ends with its broadcast."""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was known of a user who is forgotten now.

    After a lost reply the counts may be lower than what was done.

    Attributes:
        uses: uses and accepts that were available, and are void now.
        audiences: audiences that had the user, ``all`` among them.
        outcomes: recorded outcomes that lost the openid.
        dropped: waiting messages that were dropped, counted as cancelled.
        in_doubt: messages that waited for another attempt, and were perhaps sent.
        in_hands: messages that are being sent at this moment.
    """

    uses: int
    audiences: int
    outcomes: int
    dropped: int
    in_doubt: int
    in_hands: int

    def as_dict(self) -> dict[str, Any]:
        """Return the counts as JSON-ready fields."""
        return {name: getattr(self, name) for name in self.__slots__}


class ForgetKeys(NamedTuple):
    """KEYS of forget.lua."""

    stock: str
    ledger: str
    sending: str
    permits: str
    subs: str
    receipts: str

    @classmethod
    def of(cls, lane: int, app: str, openid: str) -> "ForgetKeys":
        """Return those of a user; three per audience follow."""
        return cls(
            keys.stock(lane, app),
            keys.ledger(lane, app),
            keys.sending(lane, app),
            keys.permits(lane, app, openid),
            keys.subscriptions(lane, app, openid),
            keys.receipts(lane, app, openid),
        )


class ForgetArgs(NamedTuple):
    """ARGV of forget.lua."""

    openid: str
    bucket: int


class UnnameKeys(NamedTuple):
    """KEYS of unname.lua."""

    stock: str
    ledger: str
    sending: str
    leaving: str


class UnnameArgs(NamedTuple):
    """ARGV of unname.lua."""

    prefix: str
    app: str
    item: str
    seed: str
    ttl_ms: int
    leaving_ttl_ms: int


FORGET: Final = Script(__package__, "forget", ForgetKeys, ForgetArgs, clock=True)
UNNAME: Final = Script(__package__, "unname", UnnameKeys, UnnameArgs, clock=True)


class Forgetter:
    """Forgets users. Safe to share between threads."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._register = Register(client, settings)
        self._suppressions = Suppressions(client, settings)
        self._forget = FORGET.on(client)
        self._unname = UNNAME.on(client)
        self._webhooks = webhooks.Forgetter(client, settings)

    def forget(self, app: str, openid: str) -> Forgotten:
        """Forget a user everywhere; a user who is not known changes nothing.

        Args:
            app: alias of the app.
            openid: the user.

        Raises:
            UnknownAppError: no such app.
            InvalidInputError: the openid is none.
            StoreUnavailableError: Redis did not answer; forget again for the rest.
        """
        self._settings.app(app)
        check_openid(openid)
        names = repeat("listing audiences", lambda: self._client.hkeys(keys.audiences(app)))
        self._suppressions.forget(app, openid)
        uses, audiences = self._leave(app, openid, ["all", *names])
        found = [0, 0, 0, 0]
        while True:
            self._leave_retries(app, openid)
            counts = self._lose_names(app, openid)
            found = [sum(pair) for pair in zip(found, counts, strict=True)]
            # a retry that chose its recipients meanwhile may have found the name until now
            if not self._leave_retries(app, openid):
                break
        self._webhooks.forget(app, openid)
        forgotten = Forgotten(uses, audiences, *found)
        lane, _, _ = keys.place_of(openid, self._settings)
        logs.emit(UserForgotten(app, lane, **forgotten.as_dict()))
        return forgotten

    def _leave_retries(self, app: str, openid: str) -> int:
        """Leave the recipients of retries, and all rows; returns how many had the user."""
        names = repeat("listing recipients", lambda: self._client.zrange(keys.frozen(app), 0, -1))
        return sum(
            self._leave(app, openid, names[start : start + _FROZEN])[1]
            for start in deadline.paced(range(0, len(names), _FROZEN))
        )

    def _lose_names(self, app: str, openid: str) -> list[int]:
        """Take the name out of all broadcasts; returns the sums of what `_lose_name` counts."""
        # listed after the audiences were left: none that comes later finds the user in its own
        broadcasts = repeat(
            "listing broadcasts", lambda: self._client.zrevrange(keys.history(app), 0, -1)
        )
        found = [0, 0, 0, 0]
        for _ in deadline.paced(itertools.count()):
            if not broadcasts:
                break
            looked, *counts = self._lose_name(app, openid, broadcasts[:_BROADCASTS])
            broadcasts = broadcasts[looked:]
            found = [sum(pair) for pair in zip(found, counts, strict=True)]
        return found

    @following
    def _leave(self, app: str, openid: str, names: list[str]) -> tuple[int, int]:
        lane, bucket, _ = keys.place_of(openid, self._settings)
        audiences: list[str] = []
        for name in names:
            audiences += (
                keys.audience_size(lane, app, name),
                keys.audience_buckets(lane, app, name),
                keys.rows(lane, app, name)
                if keys.is_rows(name)
                else keys.audience(lane, app, name, bucket),
            )
        uses, left = self._forget.repeated(
            "forgetting a user",
            ForgetKeys.of(lane, app, openid),
            ForgetArgs(openid, bucket),
            more_keys=audiences,
        )
        return int(uses), int(left)

    @following
    def _lose_name(self, app: str, openid: str, broadcasts: list[str]) -> list[int]:
        lane, _, item = keys.place_of(openid, self._settings)
        counts: list[int] = self._unname.repeated(
            "forgetting a recipient",
            UnnameKeys(
                keys.stock(lane, app),
                keys.ledger(lane, app),
                keys.sending(lane, app),
                keys.leaving(lane),
            ),
            UnnameArgs(
                prefix=keys.lane_prefix(lane),
                app=app,
                item=item,
                seed=secrets.token_hex(16),
                ttl_ms=self._register.ttl_ms,
                leaving_ttl_ms=_LEAVING_TTL_MS,
            ),
            broadcasts,
        )
        return counts
