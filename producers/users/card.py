"""Users: what one user gave, what became of it, and forgetting all of it.

Showing reads a moment of one lane and of the app's newest broadcasts, in at most three trips, and
changes nothing. Permits that are held, spent or void are not shown one by one: what is held shows
as a send in flight, what is spent as its outcome.
"""

from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from producers.audiences.expressions import Expression
from producers.audiences.names import standing
from producers.broadcasts.outcomes import Recorded
from producers.broadcasts.spec import Spec
from producers.openid import check_openid
from producers.ordering.passes import next_bucket
from producers.permits.subscriptions import MOST_SUBSCRIPTIONS, withdrawn_at_ms
from producers.settings import Settings, ms
from producers.store import Client, keys
from producers.store.clock import ms_of
from producers.store.lanes.following import steady
from producers.store.retry import repeat_all
from producers.suppressions.suppressions import Reason, ask_reasons, reasons_of
from producers.users.forget import Forgetter, Forgotten
from producers.words import KIND_OF, PermitKind

RECENT: Final = 100
"""Newest broadcasts of the app in which a user is looked for."""

_QUEUE: Final = 5000
"""Messages of one queue that are looked through; a longer one is a window of more than that."""

_HOUR_MS: Final = 3_600_000


@dataclass(frozen=True, slots=True)
class Balance:
    """Permits of one kind and one expiry hour, or the accepts of one template.

    Attributes:
        kind: form_id, prepay_id or subscription.
        uses: messages that may be sent with them; -1: any number (long-term).
        template_id: of a subscription; '' otherwise.
        expires_after_ms, expires_before_ms: the hour in which they end, server epoch ms; 0 for a
            subscription, which has no end.
        withdrawn_at_ms: when the user, or WeChat, withdrew the subscription; 0: not in the last
            30 days, or the user accepted it again.
    """

    kind: PermitKind
    uses: int
    template_id: str = ""
    expires_after_ms: int = 0
    expires_before_ms: int = 0
    withdrawn_at_ms: int = 0


@dataclass(frozen=True, slots=True)
class Send:
    """What became of one broadcast's message to this user.

    Attributes:
        broadcast: its id; of a single message, its carrier's.
        created_at_ms: when that was created.
        channel, template_id: what it is.
        state: ``settled``, ``in_flight``, ``delayed``, ``queued``, ``aside`` (set aside for an
            operator) or ``to_be_split`` (its turn comes later).
        outcome: of a settled one, else ''.
        errcode: WeChat's last word on it; 0 when none.
        msgid: while it is kept (one day), else ''.
        settled_by: ``answer``, ``receipt`` or ``operator``; '' when not settled.
        message: the id of a single message, '' otherwise.
    """

    broadcast: str
    created_at_ms: int
    channel: str
    template_id: str
    state: str
    outcome: str = ""
    errcode: int = 0
    msgid: str = ""
    settled_by: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class UserCard:
    """One user at one moment.

    Attributes:
        app, openid: who.
        at_ms: when it was read, server epoch ms.
        audiences: the audiences that have the user, ``all`` first.
        usable: kind → uses that a message could take now; a subscription's by `balance` alone.
        held: uses that are put aside for messages in flight.
        sending: whether a message is being sent to the user at this moment.
        balance: permits by expiry hour, then subscriptions by template.
        sends: what became of the newest broadcasts, the newest first. Recipients of a cancelled
            or late broadcast who were never sent to are not recorded one by one.
        suppressed: why the user is sent nothing: imported, opted_out, invalid, forgotten.
    """

    app: str
    openid: str
    at_ms: int
    audiences: list[str]
    usable: dict[str, int]
    held: int
    sending: bool
    balance: list[Balance]
    sends: list[Send]
    suppressed: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the card as JSON-ready fields."""
        return asdict(self)


class Users:
    """The users of every app. Safe to share between threads."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._forgetter = Forgetter(client, settings)

    def forget(self, app: str, openid: str) -> Forgotten:
        """Forget a user everywhere; see `Forgetter.forget`."""
        return self._forgetter.forget(app, openid)

    @steady
    def show(self, app: str, openid: str) -> UserCard:
        """Return what is known of a user; of an unknown one, an empty card.

        Args:
            app: alias of the app.
            openid: the user.

        Raises:
            UnknownAppError: no such app.
            InvalidInputError: the openid is none.
            StoreUnavailableError: Redis did not answer.
        """
        self._settings.app(app)
        check_openid(openid)

        def ask(pipeline: Any) -> None:
            pipeline.time()
            pipeline.zrevrange(keys.history(app), 0, RECENT - 1)
            pipeline.zrange(keys.active(app), 0, -1)
            pipeline.hgetall(keys.audiences(app))

        clock, broadcasts, active, names = repeat_all("reading the app", self._client, ask)
        look = _Look(self._client, self._settings, app, openid, clock)
        look.read(broadcasts, frozenset(active), standing(names))
        return look.card()


class _Look:
    """One look at a user, on its way to be a card."""

    def __init__(
        self, client: Client, settings: Settings, app: str, openid: str, clock: tuple[int, int]
    ) -> None:
        self._client = client
        self._app = app
        self._openid = openid
        self._now_ms = ms_of(clock)
        self._usable_from_ms = self._now_ms + ms(settings.permit_margin)
        self._settings = settings
        self._lane, self._bucket, self._item = keys.place_of(openid, settings)
        self._held = 0

    def read(self, broadcasts: list[str], active: frozenset[str], names: list[str]) -> None:
        lane, bucket, app, openid = self._lane, self._bucket, self._app, self._openid
        layout = self._settings.layout

        def ask(pipeline: Any) -> None:
            pipeline.zrangebyscore(
                keys.permits(lane, app, openid), f"({self._now_ms}", "+inf", withscores=True
            )
            pipeline.hscan(keys.subscriptions(lane, app, openid), count=MOST_SUBSCRIPTIONS)
            pipeline.hgetall(keys.marks(lane, app, openid))
            pipeline.zscore(keys.sending(lane, app), openid)
            ask_reasons(pipeline, lane, app, bucket, openid)
            for name in names:
                pipeline.sismember(keys.audience(lane, app, name, bucket), openid)
            for broadcast in broadcasts:
                pipeline.hmget(
                    keys.home(layout.home_of(broadcast), broadcast), "spec", "created_at_ms"
                )
                pipeline.hget(keys.outcomes(lane, broadcast, bucket), openid)
                pipeline.hget(keys.msgids(lane, broadcast, bucket), openid)
                pipeline.hget(keys.flight(lane, broadcast), self._item)
                pipeline.zscore(keys.delayed(lane, broadcast), self._item)

        answers = repeat_all("reading the user", self._client, ask)
        self._uses, (_, self._subs), marks, self._lease = answers[:4]
        self._withdrawn = withdrawn_at_ms(marks)
        self._suppressed = reasons_of(answers[4 : 4 + len(Reason)])
        answers = answers[4 + len(Reason) :]
        self._names = [name for name, has in zip(names, answers[: len(names)], strict=True) if has]
        rest = answers[len(names) :]
        self._sends: list[Send] = []
        pending = []
        for place, broadcast in enumerate(broadcasts):
            home, outcome, msgid, flight, delayed = rest[5 * place : 5 * place + 5]
            if home[0] is None:
                continue  # its retention is over, or it is being created
            spec = Spec.from_json(home[0])
            message = f"{broadcast}.{openid}" if keys.is_carrier(broadcast) else ""
            send = Send(
                broadcast, int(home[1]), spec.channel, spec.template_id, "", message=message
            )
            if outcome is not None:
                self._sends.append(_settled(send, outcome, msgid))
            elif flight is not None or delayed is not None:
                self._sends.append(_with_state(send, self._state_of(flight)))
            elif broadcast in active:
                pending.append((send, spec))
        self._look_into_queues(pending)
        self._sends.sort(key=lambda send: (send.created_at_ms, send.broadcast), reverse=True)

    def _state_of(self, flight: str | None) -> str:
        """Return the state that a flight entry means; without one the message is delayed."""
        if flight is None:
            return "delayed"
        worker, _, member, expires, *_ = flight.split(" ")
        if member[0] != "s" or expires == "1":
            self._held += 1
        return {"-": "delayed", "aside": "aside"}.get(worker, "in_flight")

    def _look_into_queues(self, pending: list[tuple[Send, Spec]]) -> None:
        """Find the user in what is queued, or yet to be split."""
        lane, bucket = self._lane, self._bucket

        whose = [Expression.stored(spec.audience) for _, spec in pending]
        names = list(dict.fromkeys(name for one in whose for name in one.names))

        def ask(pipeline: Any) -> None:
            for name in names:
                pipeline.sismember(keys.audience(lane, self._app, name, bucket), self._openid)
            for send, _ in pending:
                pipeline.lpos(keys.queue(lane, send.broadcast), self._item, maxlen=_QUEUE)
                pipeline.hmget(keys.lane_broadcast(lane, send.broadcast), "cursor", "split", "drop")

        answers = repeat_all("reading the queues", self._client, ask) if pending else []
        member = dict(zip(names, answers, strict=False))
        answers = answers[len(names) :]
        for place, (send, _) in enumerate(pending):
            queued, (cursor, split, drop) = answers[2 * place : 2 * place + 2]
            if queued is not None:
                self._sends.append(_with_state(send, "queued"))
            elif split != "done" and not drop and next_bucket(cursor or "") <= bucket:
                if not whose[place].holds(member):
                    continue
                self._sends.append(_with_state(send, "to_be_split"))

    def card(self) -> UserCard:
        uses: Counter[tuple[str, int]] = Counter()
        usable = dict.fromkeys(PermitKind, 0)
        for member, score in self._uses:
            uses[member[0], int(score) // _HOUR_MS] += 1
            if score > self._usable_from_ms:
                usable[KIND_OF[member[0]]] += 1
        balance = [
            Balance(KIND_OF[kind], n, "", hour * _HOUR_MS, (hour + 1) * _HOUR_MS)
            for (kind, hour), n in sorted(uses.items(), key=lambda one: (one[0][1], one[0][0]))
        ]
        for template in sorted({*self._subs, *self._withdrawn}):
            count = int(self._subs.get(template, 0))
            withdrawn = 0 if count else self._withdrawn.get(template, 0)
            if (count or withdrawn) and ":" not in template:  # one of an older layout's marks
                kind = PermitKind.SUBSCRIPTION
                balance.append(Balance(kind, count, template, withdrawn_at_ms=withdrawn))
                usable[kind] += max(0, count)
        return UserCard(
            app=self._app,
            openid=self._openid,
            at_ms=self._now_ms,
            audiences=self._names,
            usable={kind.value: n for kind, n in usable.items()},
            held=self._held,
            sending=self._lease is not None and self._lease > self._now_ms,
            balance=balance,
            sends=self._sends,
            suppressed=self._suppressed,
        )


def _with_state(send: Send, state: str) -> Send:
    return replace(send, state=state)


def _settled(send: Send, value: str, msgid: str | None) -> Send:
    recorded = Recorded.read(value)
    return replace(
        send,
        state="settled",
        outcome=recorded.outcome,
        errcode=recorded.errcode,
        msgid=msgid or "",
        settled_by=recorded.settled_by,
    )
