"""Sending: each claim is posted at its slot, and its reply judged.

The batch is handed over and the caller goes on: one slow answer delays nobody else. Just before the
POST comes a last look: nothing is started late (a slot unused 10 ms after its time is void, a
claim lives 3 s), for a stopped broadcast, or while the worker drains. If the process dies before
the POST of a form_id, recovery cannot tell and resumes as if it had been sent; the three-state
table (see `verdict`) makes that harmless. What is no idempotency key is marked just before it
(`posting`), so that recovery can tell.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

import redis

from producers import logs
from producers.events import DutyFailed, LimitHit, LimitLifted, StoreUnreachable, UnknownErrcode
from producers.settings import Settings
from producers.store import Client
from workers.claim import Claim
from workers.errcodes import BACK_OFF_MS, Disposition, PermitFate, rule
from workers.gate import Gate
from workers.limiter import Penalty
from workers.posting import SPARE, Marker, needs_mark
from workers.settle import Answer, Settler
from workers.stops import Stops
from workers.take import CLAIM_LIFE_S
from workers.tokens import TokenKeeper
from workers.verdict import DELIVERED, Action, Fate, Reply, Verdict, judge
from workers.wechat import Envelope, WeChat

SLOT_LIFE_S: Final = 0.01
"""A slot unused so long after its time is void.

Sends that start late crowd into the following second: rate × this many extra ones. At 10 ms that is
the 1 % which I4 allows; at 100 ms a busy machine was seen to start 9 % too many.
"""

Begin = Callable[[Claim, Envelope], None]

UNREACHABLE_MS: Final = (1000, 30_000)
"""First and longest pause of everyone when no connection to WeChat comes up."""

_WEEK_MS: Final = 7 * 24 * 3600 * 1000
_UNSENT: Final = Verdict(Action.REQUEUE, PermitFate.BACK)


class Sender:
    """Posts claims; belongs to one event loop.

    Args:
        settings: attempts, and what each app allows.
        wechat: the client.
        tokens: app → its token keeper.
        penalty: holds everyone back.
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
        penalty: Penalty,
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
        self._penalty = penalty
        self._gates = gates
        self._settler = settler
        self._stops = stops
        self._server_time = server_time
        self._ready: deque[tuple[Claim, Envelope]] = deque()
        self._idle: list[asyncio.Future[None]] = []
        self._posters: list[asyncio.Task[None]] = []
        self._waiting: dict[tuple[int, str], tuple[asyncio.TimerHandle, Claim]] = {}
        self._marker = Marker(client, worker, self._room, self._marked, self.hand_back)
        self._marked_ahead = 0
        self._draining = False

    def start(self, claims: list[tuple[Claim, Envelope]]) -> None:
        """Post each claim at its slot; returns at once."""
        loop = asyncio.get_running_loop()
        now = time.monotonic()
        lead_s = self._marker.lead_s
        for claim, envelope in claims:
            begin, ahead = self._begin, claim.slot_at - now
            if needs_mark(claim):
                begin, ahead = self._marker.put, ahead - lead_s
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

    def _begin_marked(self, claim: Claim, envelope: Envelope) -> None:
        self._marked_ahead -= 1
        self._begin(claim, envelope)

    def _room(self) -> int:
        """Return how many more claims are worth a mark: about as many as posters are free."""
        busy = len(self._posters) - len(self._idle) + len(self._ready) + self._marked_ahead
        return self._settings.in_flight + SPARE - busy

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
        waiting, self._waiting = self._waiting, {}
        for handle, _ in waiting.values():
            handle.cancel()
        ready, self._ready = self._ready, deque()
        self.hand_back([claim for _, claim in waiting.values()] + [claim for claim, _ in ready])
        self.hand_back(self._marker.drain())

    async def close(self) -> None:
        """Stop; what is being posted is left to recovery."""
        for poster in self._posters:
            poster.cancel()
        await self._marker.close()

    def _begin(self, claim: Claim, envelope: Envelope) -> None:
        """Let the next free poster have it; there are as many as there may be unanswered POSTs."""
        self._ready.append((claim, envelope))
        if self._idle:
            self._idle.pop().set_result(None)
        elif len(self._posters) < self._settings.in_flight:
            self._posters.append(asyncio.get_running_loop().create_task(self._post_on()))

    async def _post_on(self) -> None:
        """Post one claim after another; cheaper than a task for each."""
        loop = asyncio.get_running_loop()
        while True:
            while self._ready:
                claim, envelope = self._ready.popleft()
                try:
                    token = self._last_look(claim)
                    if token:
                        await self._send(claim, envelope, token)
                except Exception as error:  # noqa: BLE001  (the others must go on)
                    logs.emit(DutyFailed("send", claim.lane, f"{type(error).__name__}: {error}"))
                    with contextlib.suppress(Exception):  # perhaps posted; stale if settled already
                        self._put(claim, Reply(Fate.UNANSWERED, errmsg=type(error).__name__))
                if self._marker.starved and self._room() > SPARE // 2:
                    self._marker.freed()
            called = loop.create_future()
            self._idle.append(called)
            await called

    def _last_look(self, claim: Claim) -> str:
        """Return the access token to post it with; '' when it must not be posted: it goes back."""
        now = time.monotonic()
        token = self._tokens[claim.app].ready
        late = now - claim.claimed_at > CLAIM_LIFE_S or (
            claim.slot_ends and now - claim.slot_at > SLOT_LIFE_S
        )
        if late or token is None or self._draining or self._stops.cover(claim):
            self._gates[claim.app].unused += 1
            self._settler.put(Answer(claim, None, _UNSENT))
            return ""
        return token.value

    async def _send(self, claim: Claim, envelope: Envelope, access_token: str) -> None:
        reply = await self._wechat.send(claim.app, access_token, envelope, claim)
        verdict = self._judged(claim, reply)
        self._settler.put(Answer(claim, reply, verdict))
        if verdict is DELIVERED and not self._gates[claim.app].level:
            self._tokens[claim.app].accept(access_token)
            return
        try:
            await self._tell(claim, reply, verdict, access_token)
        except redis.RedisError as error:  # the message is settled all the same
            logs.emit(StoreUnreachable("telling of an answer", type(error).__name__, 1))

    def _judged(self, claim: Claim, reply: Reply) -> Verdict:
        if reply.fate is Fate.ANSWERED and reply.errcode == 0:
            return DELIVERED
        age_ms = round(self._server_time() * 1000) - (claim.expires_at_ms - _WEEK_MS)
        return judge(
            reply,
            kind=claim.kind,
            resumed=claim.resumed,
            tries=claim.tries,
            attempts=self._settings.attempts,
            permit_age_ms=age_ms,
            retry_when_busy=self._settings.app(claim.app).retry_when_busy,
            unsure=claim.unsure,
        )

    async def _tell(self, claim: Claim, reply: Reply, verdict: Verdict, access_token: str) -> None:
        """Let all know what an answer says beyond its own message."""
        gate = self._gates[claim.app]
        if verdict.stale_token:
            self._tokens[claim.app].refuse(access_token)
            await self._tokens[claim.app].tick()
        elif verdict.penalize:
            await self._hold_back(claim.app, reply, gate)
        elif reply.fate is Fate.ANSWERED and reply.errcode == 0:
            self._tokens[claim.app].accept(access_token)
            if gate.level:
                await self._let_go(claim.app, gate)
        elif rule(reply.errcode).disposition in {Disposition.UNKNOWN, Disposition.NOT_A_SEND}:
            logs.emit(
                UnknownErrcode(claim.app, claim.broadcast, reply.errcode, reply.errmsg, reply.rid)
            )

    async def _hold_back(self, app: str, reply: Reply, gate: Gate) -> None:
        base_ms, most_ms = BACK_OFF_MS.get(reply.errcode, UNREACHABLE_MS)
        level_before = gate.level
        gate.level = max(1, gate.level)  # here and now; the others learn it at their next reserve
        until_ms, level = await self._penalty.hit(app, base_ms, most_ms)
        wait_ms = max(0, until_ms - round(self._server_time() * 1000))
        gate.level = level
        gate.not_before = max(gate.not_before, time.monotonic() + wait_ms / 1000)
        if level != level_before:
            logs.emit(LimitHit(app, reply.errcode, reply.rid, level, wait_ms))

    async def _let_go(self, app: str, gate: Gate) -> None:
        gate.level = await self._penalty.lift(app)
        if gate.level == 0:
            logs.emit(LimitLifted(app))
