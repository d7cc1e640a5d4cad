"""Single messages: one user, one message, now.

A message of its own travels as a broadcast's recipient does: same queue, same claim, same limiter,
same settle, before all broadcasts. What carries it is a *carrier*: a broadcast without an audience,
one per app, channel, template and day, whose id begins with ``m``. A carrier holds one message per
user at most; a user's second one of that template and day goes to the second carrier. So a message
costs Redis a queue entry, its content until it has an outcome, and the outcome.

I7 holds for carriers: until WeChat delivers one message of the template, K at a time are at risk,
first where the first message lies; K template errors in a row (40037, …), or K users refused in a
row before any delivery, pause the day's carriers of the template, so that nothing is burnt and
nothing goes before everybody in vain. What waits then waits until an operator resumes or the
carrier ends, and a post is refused. A refusal of one user, and what WeChat says of one message's
content, stop nothing. The next day's carrier begins anew: open, if the last one delivered; with a
canary, if it did not.

If the process dies before the answer, nobody knows whether the message was posted; the same call
with the same key says so, and posts it if it was not.
"""

import hashlib
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Any, Final, NamedTuple

from producers import logs
from producers.broadcasts import Broadcasts
from producers.broadcasts.carriers import DAY_MS, MOST, carrier_id
from producers.broadcasts.create import check_key
from producers.broadcasts.outcomes import Recorded
from producers.broadcasts.spec import Spec
from producers.errors import (
    IdempotencyConflictError,
    InvalidInputError,
    MessagesStoppedError,
    NotFoundError,
    TooManyMessagesError,
)
from producers.logs.events import MessagePosted
from producers.openid import check_openid
from producers.settings import Settings, ms
from producers.store import Client, keys
from producers.store.clock import now_ms
from producers.store.lanes.following import anew, steady
from producers.store.retry import repeat, repeat_all
from producers.store.scripts import Script, new_token
from producers.templates import Templates
from producers.words import Channel

MAX_LIFE: Final = timedelta(days=1)
_OF_BROADCASTS: Final = frozenset({"weight", "purpose", "carry_over"})
_GRACE_MS: Final = DAY_MS + 3_600_000
"""A carrier ends so long after its day: then each of its messages has ended."""

_KEY_TTL: Final = timedelta(days=1)
_TOKEN_TTL: Final = timedelta(minutes=10)
"""A call without a key repeats itself for seconds."""

_CLOCK_S: Final = 60.0
"""How long the server's clock is known without asking."""


@dataclass(frozen=True, slots=True)
class Posted:
    """The answer to a post: the id, and whether the key had posted it before."""

    id: str
    known: bool


@dataclass(frozen=True, slots=True)
class MessageStatus:
    """What became of a single message.

    Attributes:
        id, app, channel, template_id, openid: what it is.
        state: waiting, in_flight or ended.
        outcome: once it has ended (see `Outcome`), else ''.
        errcode: WeChat's, 0 when there is none.
    """

    id: str
    app: str
    channel: Channel
    template_id: str
    openid: str
    state: str
    outcome: str
    errcode: int

    def as_dict(self) -> dict[str, Any]:
        """Return the status as JSON-ready fields."""
        return {name: getattr(self, name) for name in self.__slots__}


class PostKeys(NamedTuple):
    """KEYS of post.lua."""

    posted: str


class PostArgs(NamedTuple):
    """ARGV of post.lua."""

    prefix: str
    item: str
    payload: str
    life_ms: int
    ttl_ms: int
    key_ttl_ms: int
    digest: str
    app: str


POST: Final = Script(__package__, "post", PostKeys, PostArgs, clock=True)


class Messages:
    """Posts single messages. Safe to share between threads."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._broadcasts = Broadcasts(client, settings)
        self._templates = Templates(client, settings)
        self._post = POST.on(client)
        self._server_ahead_ms = 0.0
        self._asked_at = float("-inf")
        self._opened: dict[_OfDay, int] = {}
        self._full: set[tuple[_OfDay, str]] = set()

    def post(
        self,
        *,
        app: str,
        channel: str,
        template_id: str,
        openid: str,
        data: object,
        expires_in: timedelta = timedelta(hours=1),
        key: str = "",
        test: bool = False,
        **content: Any,
    ) -> Posted:
        """Post one message to one user.

        Args:
            app: alias of the app.
            channel: template or subscribe.
            template_id: the template.
            openid: the user.
            data: as for `Spec.checked`.
            expires_in: not sent within so long, it is late; 1 s to 1 day.
            key: idempotency key, 1-128 visible ASCII characters; the same one with the same content
                to the same user is the same message for a day. Without one, each call posts anew.
            test: it is a test: another message than those of the day, on a carrier for tests.
            **content: page, emphasis_keyword, miniprogram_state, lang (see `Spec.checked`).

        Raises:
            UnknownAppError: no such app.
            InvalidInputError: with one sentence for every fault, that no template of the app fits
                among them.
            IdempotencyConflictError: the key was used with other content.
            TooManyMessagesError: this user was posted `MOST` messages of this template today.
            MessagesStoppedError: WeChat refuses the template; nothing is posted until an operator
                resumes its carrier, or the day is over.
            StoreUnavailableError: Redis did not answer; the same call with the same key goes on.
        """
        self._settings.app(app)
        check_key(key)
        check_openid(openid)
        if content.keys() & _OF_BROADCASTS:
            names = ", ".join(sorted(content.keys() & _OF_BROADCASTS))
            raise InvalidInputError([f"{names}: a single message goes before all broadcasts"])
        if expires_in > MAX_LIFE:
            raise InvalidInputError(["expires_in: between 1 second and 1 day"])
        spec = Spec.checked(
            app=app,
            channel=channel,
            template_id=template_id,
            audience="",
            data=data,
            expires_in=expires_in,
            priority=True,
            **content,
        )
        of_key = _of_user(key, openid) if key else new_token()

        def post() -> tuple[str, str]:
            lane, _, item = keys.place_of(openid, self._settings)
            args = PostArgs(
                prefix=keys.lane_prefix(lane),
                item=item,
                payload=spec.payload(),
                life_ms=spec.expires_in_ms,
                ttl_ms=self._broadcasts.ttl_ms,
                key_ttl_ms=ms(_KEY_TTL if key else _TOKEN_TTL),
                digest=spec.digest(),
                app=app,
            )
            posted = PostKeys(keys.posted(lane, app, of_key))
            self._check_template(spec, posted)
            return self._post_to_carriers(spec, lane, posted, args, test=test)

        status, carrier = anew(self._client, self._settings, post)
        if status == "other":
            raise IdempotencyConflictError(key, f"{carrier}.{openid}")
        if status == "new":
            logs.emit(MessagePosted(app, carrier, openid, spec.channel, template_id))
        return Posted(f"{carrier}.{openid}", known=status == "known")

    @steady
    def show(self, message: str) -> MessageStatus:
        """Return what became of a message.

        Raises:
            NotFoundError: no such message, or its retention is over, or its user was forgotten.
            StoreUnavailableError: Redis did not answer.
        """
        carrier, _, openid = message.partition(".")
        if not keys.is_carrier(carrier) or not openid:
            raise NotFoundError(f"no message {message[:200]}")
        lane, bucket, item = keys.place_of(openid, self._settings)

        def ask(pipeline: Any) -> None:
            pipeline.hmget(
                keys.lane_broadcast(lane, carrier), ["app", "channel", "template", "drop"]
            )
            pipeline.hget(keys.outcomes(lane, carrier, bucket), openid)
            pipeline.hexists(keys.flight(lane, carrier), item)
            pipeline.hexists(keys.mail(lane, carrier), item)

        copy, outcome, in_flight, waits = repeat_all(
            "reading the message", self._client, ask, atomic=True
        )
        app, channel, template_id, drop = copy
        if app is None or not (outcome or in_flight or waits):
            raise NotFoundError(f"no message {message}: it never was, or its retention is over")
        if not outcome and not in_flight and drop:
            outcome = drop  # what waited when its carrier was ended
        recorded = Recorded.read(outcome) if outcome else None
        return MessageStatus(
            id=message,
            app=app,
            channel=Channel(channel),
            template_id=template_id,
            openid=openid,
            state="ended" if recorded else "in_flight" if in_flight else "waiting",
            outcome=recorded.outcome if recorded else "",
            errcode=recorded.errcode if recorded else 0,
        )

    def _check_template(self, spec: Spec, posted: PostKeys) -> None:
        """Refuse what no template of its app fits, unless its key posted it before.

        Where nothing is known of the templates nobody waits: the message may be an urgent one.
        """
        faults = self._templates.faults(
            spec.app, spec.channel, spec.template_id, spec.data, waits=False
        )
        known = partial(self._client.exists, posted.posted)
        if faults and not repeat("looking up the key", known):
            raise InvalidInputError(faults)

    def _post_to_carriers(
        self, spec: Spec, lane: int, posted: PostKeys, args: PostArgs, *, test: bool
    ) -> tuple[str, str]:
        """Ask the carriers that there are, and open one more where it needs one."""
        day = self._server_ms() // DAY_MS
        of_day = _OfDay(spec.app, str(spec.channel), spec.template_id, day, test)
        known = self._opened.get(of_day, 1)
        of_user = (of_day, args.item)
        if of_user in self._full:  # then only what the key posted before is looked for
            known = 0
        for _ in range(3 * MOST):  # each carrier may be asked, opened, and asked once more
            ids = [of_day.carrier(number) for number in range(known)]
            answer = self._post.repeated("posting a message", posted, args, ids)
            status, carrier, *errcode = answer
            if status == "absent":
                # who knows whether WeChat delivers the template: yesterday's first, or today's
                yesterday = of_day._replace(day=day - 1)
                before = yesterday.carrier(0) if carrier == ids[0] else ids[0]
                life_ms = (day + 1) * DAY_MS + _GRACE_MS - self._server_ms()
                empty = replace(spec, data={}, page="", emphasis_keyword="", expires_in_ms=life_ms)
                self._broadcasts.open_carrier(carrier, empty, lane, delivers=self._delivers(before))
            elif status == "stopped":
                reason = self._broadcasts.status(carrier).reason
                raise MessagesStoppedError(spec.template_id, int(errcode[0]), reason, carrier)
            elif status == "full" and 0 < known < MOST:
                known += 1
            elif status == "full":
                self._remember_full(of_user)
                break
            else:
                self._remember(of_day, known)
                return status, carrier
        raise TooManyMessagesError(spec.template_id, MOST)

    @steady
    def _delivers(self, carrier: str) -> bool:
        """Say whether WeChat took a message of a carrier, and nothing stopped it since.

        Then the next carrier of its template needs no canary: it is open from its first message.
        """

        def ask(pipeline: Any) -> None:
            pipeline.hget(keys.home(self._broadcasts.home_lane(carrier), carrier), "errcode")
            for lane in self._settings.layout.lanes:
                pipeline.hget(keys.lane_broadcast(lane, carrier), "o:delivered")

        errcode, *delivered = repeat_all("reading the last carrier", self._client, ask)
        return (errcode or "0") == "0" and any(int(number or 0) > 0 for number in delivered)

    def _remember(self, of_day: "_OfDay", known: int) -> None:
        if len(self._opened) > 10_000:
            self._opened.clear()
        self._opened[of_day] = known

    def _remember_full(self, of_user: tuple["_OfDay", str]) -> None:
        if len(self._full) > 10_000:
            self._full.clear()
        self._full.add(of_user)

    def _server_ms(self) -> int:
        """Return the server's clock, asked once a minute."""
        now = time.monotonic()
        if now - self._asked_at > _CLOCK_S:
            server_ms = repeat("asking the time", partial(now_ms, self._client))
            self._server_ahead_ms = server_ms - now * 1000
            self._asked_at = now
        return round(now * 1000 + self._server_ahead_ms)


class _OfDay(NamedTuple):
    """What a day's carriers have in common."""

    app: str
    channel: str
    template_id: str
    day: int
    test: bool

    def carrier(self, number: int) -> str:
        """Return the id of one of them."""
        return carrier_id(
            self.app, self.channel, self.template_id, self.day, number, test=self.test
        )


def _of_user(key: str, openid: str) -> str:
    """Return what a key is kept by: each user's keys are the user's own, and name nobody."""
    return hashlib.sha256(f"{openid} {key}".encode()).hexdigest()[:32]
