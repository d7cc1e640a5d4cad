"""Sending: each claim is posted at its slot, and its reply judged.

The batch is handed over and the caller goes on: one slow answer delays nobody else. Just before the
POST comes a last look: nothing is started late (a slot unused 10 ms after its time is void, a
claim lives 3 s), for a stopped broadcast, while this worker's POSTs of the app do not come through
(`egress`), or while it drains. The POSTs that may be unanswered are shared by the apps (`shares`):
one that hangs leaves room for the others. If the process dies before the POST of a form_id,
recovery cannot tell and resumes as if it had been sent; the three-state table (see `verdict`) makes
that harmless. What is no idempotency key is marked just before it (`posting`), so that recovery can
tell.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

import redis

from producers import logs
from producers.logs.events import DutyFailed, StoreUnreachable
from producers.settings import Settings
from producers.store import Client
from workers.limits.gate import BATCH, Gate
from workers.limits.hours import SLOT_LIFE_S
from workers.limits.shares import share, worth
from workers.sending.claim import Claim
from workers.sending.consequences import Consequences
from workers.sending.egress import Egress
from workers.sending.hands import ENOUGH
from workers.sending.posting import SPARE, Marker, needs_mark
from workers.sending.settle import Answer, Settler
from workers.sending.stops import Stops
from workers.sending.take import CLAIM_LIFE_S
from workers.sending.verdict import DELIVERED, Action, Verdict, judge
from workers.wechat.client import WeChat
from workers.wechat.envelope import Envelope
from workers.wechat.errcodes import PermitFate
from workers.wechat.reply import Fate, Reply
from workers.wechat.tokens import TokenKeeper

Begin = Callable[[Claim, Envelope], None]

_CUT_S: Final = 6.5
"""A worker that drains waits so long for answers: then it must settle, and end in time."""

_WEEK_MS: Final = 7 * 24 * 3600 * 1000
_UNSENT: Final = Verdict(Action.REQUEUE, PermitFate.BACK)


class _Line:
    """One app's claims on their way.

    Attributes:
        ready: those whose slot has come.
        listed: it stands among the lines that wait for a poster.
        posting: POSTs that are not answered.
        begun: claims that were given to the sender and have no answer yet.
    """

    __slots__ = ("begun", "listed", "posting", "ready")

    def __init__(self) -> None:
        self.ready: deque[tuple[Claim, Envelope]] = deque()
        self.listed = False
        self.posting = 0
        self.begun = 0


class Sender:
    """Posts claims; belongs to one event loop.

    Args:
        settings: attempts, and what each app allows.
        wechat: the client.
        tokens: app → its token keeper.
        egress: told of what becomes of POSTs.
        consequences: lets all know what an answer says beyond its own message.
        gates: app → what this worker knows of its limits.
        settler: takes the answers.
        stops: claims that must not start a send any more.
        server_time: epoch seconds by the Redis server's clock.
        client: Redis, for posting marks.
        worker: this worker's id.
    """

    def __init__(
        self,
        settings: Settings,
        wechat: WeChat,
        tokens: Mapping[str, TokenKeeper],
        egress: Egress,
        consequences: Consequences,
        gates: Mapping[str, Gate],
        settler: Settler,
        stops: Stops,
        server_time: Callable[[], float],
        client: Client,
        worker: str,
    ) -> None:
        self._settings = settings
        self._wechat = wechat
        self._tokens = tokens
        self._egress = egress
        self._consequences = consequences
        self._gates = gates
        self._settler = settler
        self._stops = stops
        self._server_time = server_time
        self._lines = {app: _Line() for app in settings.apps}
        self._turns: deque[_Line] = deque()
        self._only = self._only_line()
        self._begun = self._posting = 0
        self._idle: list[asyncio.Future[None]] = []
        self._posters: list[asyncio.Task[None]] = []
        self._waiting: dict[tuple[int, str], tuple[asyncio.TimerHandle, Claim]] = {}
        self._marker = Marker(client, worker, settler.heirs, self._room, self._marked, self._refuse)
        self._marked_ahead = 0
        self._draining = False

    def _only_line(self) -> _Line | None:
        """Return the line of an app that is alone: it shares nothing."""
        return next(iter(self._lines.values())) if len(self._lines) == 1 else None

    def serve(self, apps: Collection[str]) -> None:
        """Serve these apps from now on, and those of which something is still on its way."""
        for app, line in list(self._lines.items()):
            if app not in apps and not line.begun and not line.ready:
                del self._lines[app]
        for app in apps:
            if app not in self._lines:
                self._lines[app] = _Line()
        self._only = self._only_line()
        self._turns.clear()
        for line in self._lines.values():
            line.listed = self._only is None and bool(line.ready)
            if line.listed:
                self._turns.append(line)

    def start(self, claims: list[tuple[Claim, Envelope]]) -> None:
        """Post each claim at its slot; returns at once."""
        loop = asyncio.get_running_loop()
        now = time.monotonic()
        lead_s = self._marker.lead_s
        for claim, envelope in claims:
            line = self._lines.get(claim.app)
            if line is None:  # it came, or went, a moment ago
                self.serve([*self._lines, claim.app])
                line = self._lines[claim.app]
            line.begun += 1
            self._begun += 1
            begin, ahead = self._begin, claim.slot_at - now
            if needs_mark(claim):
                begin, ahead = self._marker.put, ahead - lead_s  # marked by the time of its slot
            if ahead < 0.001:
                begin(claim, envelope)
                continue

            key = (claim.lane, claim.fence)
            handle = loop.call_later(ahead, self._due, key, begin, claim, envelope)
            self._waiting[key] = (handle, claim)

    def _due(self, key: tuple[int, str], begin: Begin, claim: Claim, envelope: Envelope) -> None:
        del self._waiting[key]
        begin(claim, envelope)

    def _marked(self, claim: Claim, envelope: Envelope) -> None:
        """A claim may be posted by now, as far as Redis knows: do so at its slot."""
        ahead = claim.slot_at - time.monotonic()
        if self._draining:
            self.hand_back([claim])
        elif ahead < 0.001:
            self._begin(claim, envelope)
        else:
            self._marked_ahead += 1
            key = (claim.lane, claim.fence)
            handle = asyncio.get_running_loop().call_later(
                ahead, self._due, key, self._begin_marked, claim, envelope
            )
            self._waiting[key] = (handle, claim)

    def _refuse(self, claims: list[Claim]) -> None:
        """Hand back claims that could not be marked."""
        for claim in claims:
            self._lines[claim.app].begun -= 1
            self._begun -= 1
        self.hand_back(claims)

    def _begin_marked(self, claim: Claim, envelope: Envelope) -> None:
        self._marked_ahead -= 1
        self._begin(claim, envelope)

    def _room(self) -> int:
        """Return how many more claims are worth a mark: about as many as posters are free."""
        busy = len(self._posters) - len(self._idle) + self._marked_ahead
        busy += sum(len(line.ready) for line in (self._turns if not self._only else [self._only]))
        return self._settings.in_flight + SPARE - busy

    def wait_s(self, claims: Iterable[Claim]) -> float:
        """Return how far ahead slots must lie so that these can be posted in them; any thread."""
        return self._marker.wait_s if any(map(needs_mark, claims)) else 0.0

    def posts(self, app: str) -> int:
        """Return how many more POSTs an app may begin; 0 while it is too little to be worth it.

        May be called from any thread. What was taken and is not begun yet is not counted.
        """
        if self._only:
            return BATCH  # its hands are the bound
        line = self._lines.get(app)
        begun = line.begun if line else 0
        most = share(self._settings.in_flight, max(0, self._begun - begun), alone=False)
        return worth(most - begun, most, ENOUGH)

    def hand_back(self, claims: list[Claim]) -> None:
        """Return claims that were never posted to the front of their queue."""
        for claim in claims:
            self._settler.put(Answer(claim, None, _UNSENT))

    def give_up(self, claims: list[Claim]) -> None:
        """Settle claims that may have been posted, and may have been settled, as forgotten."""
        for claim in claims:
            self._put(claim, Reply(Fate.FORGOTTEN, errmsg="forgotten"))

    def _put(self, claim: Claim, reply: Reply) -> None:
        self._settler.put(Answer(claim, reply, self._judged(claim, reply)))

    def drain(self) -> None:
        """Start nothing more; what waits for its slot is handed back."""
        self._draining = True
        self._egress.drain()
        waiting, self._waiting = self._waiting, {}
        for handle, _ in waiting.values():
            handle.cancel()
        self.hand_back([claim for _, claim in waiting.values()])
        for line in self._lines.values():
            self.hand_back([claim for claim, _ in line.ready])
            line.ready.clear()
        self.hand_back(self._marker.drain())
        asyncio.get_running_loop().call_later(_CUT_S, self._cut)

    def _cut(self) -> None:
        """Wait no longer for answers: what has none is settled as unanswered, before the end."""
        for poster in self._posters:
            poster.cancel()

    async def close(self) -> None:
        """Stop; what is being posted is left to recovery."""
        for poster in self._posters:
            poster.cancel()
        self._egress.close()
        await self._marker.close()

    def _begin(self, claim: Claim, envelope: Envelope) -> None:
        """Let the next free poster have it; there are as many as there may be unanswered POSTs."""
        line = self._lines[claim.app]
        line.ready.append((claim, envelope))
        if not self._only:
            if not line.listed:
                line.listed = True
                self._turns.append(line)
            if not self._may_post(line):
                return  # a poster that has done with another claim takes it
        if self._idle:
            self._idle.pop().set_result(None)
        elif len(self._posters) < self._settings.in_flight:
            self._posters.append(asyncio.get_running_loop().create_task(self._post_on()))

    def _may_post(self, line: _Line) -> bool:
        others = self._posting - line.posting
        return line.posting < share(self._settings.in_flight, others, alone=False)

    def _next_line(self) -> _Line | None:
        """Return the next app that has a claim ready and may post it."""
        if self._only:
            return self._only if self._only.ready else None
        for _ in range(len(self._turns)):
            line = self._turns.popleft()
            if not line.ready:
                line.listed = False
                continue
            self._turns.append(line)
            if self._may_post(line):
                return line
        return None

    async def _post_on(self) -> None:
        """Post one claim after another; cheaper than a task for each."""
        loop = asyncio.get_running_loop()
        while True:
            while (line := self._next_line()) is not None:
                claim, envelope = line.ready.popleft()
                line.posting += 1
                self._posting += 1
                try:
                    token = self._last_look(claim)
                    if token:
                        await self._send(claim, envelope, token)
                except asyncio.CancelledError:  # perhaps posted
                    self._put(claim, Reply(Fate.UNANSWERED, errmsg="cut off"))
                    raise
                except Exception as error:  # noqa: BLE001  (the others must go on)
                    logs.emit(DutyFailed("send", claim.lane, f"{type(error).__name__}: {error}"))
                    with contextlib.suppress(Exception):  # perhaps posted; stale if settled already
                        self._broke(claim, Reply(Fate.UNANSWERED, errmsg=type(error).__name__))
                line.posting -= 1
                line.begun -= 1
                self._begun -= 1
                self._posting -= 1
                if self._marker.starved and self._room() > SPARE // 2:
                    self._marker.freed()
            called = loop.create_future()
            self._idle.append(called)
            await called

    def _broke(self, claim: Claim, reply: Reply) -> None:
        """Settle a claim whose sending broke; should it have been a probe, say so: others wait."""
        if self._gates[claim.app].breaker.trouble:
            self._egress.note(claim.app, reply)
        self._put(claim, reply)

    def _last_look(self, claim: Claim) -> str:
        """Return the access token to post it with; '' when it must not be posted: it goes back."""
        now = time.monotonic()
        token = self._tokens[claim.app].ready
        late = now - claim.claimed_at > CLAIM_LIFE_S or (
            claim.slot_ends and now - claim.slot_at > SLOT_LIFE_S
        )
        if (
            late
            or token is None
            or self._draining
            or self._stops.cover(claim)
            or ((breaker := self._gates[claim.app].breaker).trouble and not breaker.lets_pass())
        ):
            self._gates[claim.app].waste(claim.channel)
            self._settler.put(Answer(claim, None, _UNSENT))
            return ""
        return token.value

    async def _send(self, claim: Claim, envelope: Envelope, access_token: str) -> None:
        body = envelope.body(claim.openid, claim.permit_id)
        reply = await self._wechat.send(claim.app, access_token, envelope.path, body)
        gate = self._gates[claim.app]
        if gate.breaker.silent or reply.fate is not Fate.ANSWERED:
            self._egress.note(claim.app, reply)
        verdict = self._judged(claim, reply)
        self._settler.put(Answer(claim, reply, verdict))
        if verdict is DELIVERED and not gate.level:
            self._tokens[claim.app].accept(access_token)
            return
        try:
            await self._consequences.tell(claim, reply, verdict, access_token)
        except redis.RedisError as error:  # the message is settled all the same
            logs.emit(StoreUnreachable("telling of an answer", type(error).__name__, 1))

    def _judged(self, claim: Claim, reply: Reply) -> Verdict:
        if reply.fate is Fate.ANSWERED and reply.errcode == 0:
            return DELIVERED
        age_ms = round(self._server_time() * 1000) - (claim.expires_at_ms - _WEEK_MS)
        app = self._settings.apps.get(claim.app)  # None: it went while this was out
        return judge(
            reply,
            kind=claim.kind,
            resumed=claim.resumed,
            tries=claim.tries,
            attempts=self._settings.attempts,
            permit_age_ms=age_ms,
            retry_when_busy=app is not None and app.retry_when_busy,
            unsure=claim.unsure,
        )
