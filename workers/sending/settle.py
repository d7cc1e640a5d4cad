"""Settling: answers are recorded in batches, one script run per batch, lane and app.

See settle.lua for what it guarantees. A batch is what came in within 20 ms, or 128 answers when
they come faster; while it is on its way the next ones follow, a few at the most, each with a token
and a kept answer of its own. A lost reply is asked for again with the same token until it comes,
and what is in hand stays bounded. Where replicas are to have
it (`store.replicas`) and do not say so three times, it counts all the same, and the log and
`doctor` say that: the message is out, and waiting longer makes nobody surer. If the worker dies
before it, recovery resumes the messages; if others have taken them, the fence makes this answer
harmless. What was never posted is handed back without asking a second time: where that is
forgotten, the worker finds the claim under its name and hands it back anew.

A lane that is being divided refuses a batch before it begins. It waits, a second or two, and is
then settled in the lanes in which its claims lie (`heirs`).
"""

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple, cast

import redis

from producers import logs
from producers.logs.events import DutyFailed, MessageSettled, ReplicasBehind, StoreUnreachable
from producers.metrics import Meter
from producers.settings import Settings, ms
from producers.store import Client, keys
from producers.store.lanes.fence import is_refusal
from producers.store.replicas import UnacknowledgedError
from producers.store.retry import pause_s
from producers.store.scripts import Script
from producers.store.trip import Shared
from producers.words import KIND_OF, Outcome
from workers.sending.claim import Claim
from workers.sending.hands import Hands
from workers.sending.heirs import Heirs
from workers.sending.lines import Line, Lines, company
from workers.sending.take import sending_lease_ms
from workers.sending.verdict import Action, Verdict
from workers.wechat.errcodes import PermitFate
from workers.wechat.reply import Reply

LINGER_S: Final = 0.020
BATCH: Final = 128
MOST: Final = 512
"""Answers in one script run: about 3 ms of Redis."""
_PLENTY: Final = 256
"""With so many waiting another run begins, though the one before is on its way still."""
_ABREAST: Final = 4
"""Runs of one lane and app that may be under way at once."""
_REFUSALS_TOLD: Final = 100
"""Refusals of a lane, about 0.1 s each, after which it is said that it takes long."""
MOST_TOLD: Final = 128
"""The same where each is a webhook event too, which costs as much again and more."""

_ASKS: Final = 3
"""How often replicas are asked whether they have a batch, a second each time."""

_DAY_S: Final = 86_400

_ACTIONS: Final = {
    Action.SWAP: "delayed",
    Action.DELAY: "delayed",
    Action.KEEP: "kept",
    Action.REQUEUE: "requeued",
}
"""What was done with an answer whose message waits."""
_OUTCOMES: Final = frozenset(Outcome)


class SettleKeys(NamedTuple):
    """KEYS of settle.lua."""

    reply: str
    sending: str
    fence: str
    stock: str
    ledger: str

    @classmethod
    def of(cls, lane: int, app: str, worker: str, place: int = 0) -> "SettleKeys":
        """Return those of one worker's settling of an app in a lane.

        Args:
            lane: in which lane.
            app: whose claims.
            worker: who settles.
            place: tells runs apart that are under way at once: each has an answer that is kept.
        """
        return cls(
            keys.reply(lane, f"settle:{app}:{place}" if place else f"settle:{app}", worker),
            keys.sending(lane, app),
            keys.fence(lane),
            keys.stock(lane, app),
            keys.ledger(lane, app),
        )


class SettleArgs(NamedTuple):
    """ARGV of settle.lua; the rows follow."""

    worker: str
    prefix: str
    app: str
    lease_ms: int
    margin_ms: int
    ttl_ms: int
    canary: int
    keep: str = ""


SETTLE: Final = Script(
    __package__, "settle", SettleKeys, SettleArgs, token=True, clock=True, replicated=True
)


class Answer(NamedTuple):
    """One claim's answer, on its way to be settled."""

    claim: Claim
    reply: Reply | None
    verdict: Verdict

    def row(self) -> str:
        """Return the row for settle.lua; delays get up to a quarter of jitter."""
        claim, verdict, reply = self.claim, self.verdict, self.reply
        delay_ms = verdict.delay_ms
        if delay_ms:
            delay_ms += random.randrange(delay_ms // 4 + 1)  # noqa: S311
        return (
            f"{claim.broadcast} {claim.item} {claim.fence} {verdict.action} {verdict.fate} "
            f"{verdict.outcome} {reply.errcode if reply else 0} {delay_ms} {verdict.streak} "
            f"{verdict.skip} {reply.msgid if reply and reply.msgid else '-'}"
        )


def _claim_of(answer: Answer) -> Claim:
    return answer.claim


class Settler:
    """Settles for one worker; belongs to one event loop.

    Args:
        client: Redis.
        settings: for leases and limits.
        worker: this worker's id.
        ttl_ms: how long outcomes are kept.
        hands: told of every claim that is out of hand, and given the swapped ones.
        on_flag: called with (app, broadcast, lane, flag) for what a batch says of a broadcast:
            ``opened``, ``verdict abort 40037``, ``complete``, ``closed``.
        meter: counts the answers, where somebody reads it.

    Attributes:
        heirs: knows where claims lie.
    """

    def __init__(
        self,
        client: Client,
        settings: Settings,
        worker: str,
        ttl_ms: int,
        hands: Hands,
        on_flag: Callable[[str, str, int, str], None],
        meter: Meter | None = None,
    ) -> None:
        self._client = client
        self._script = SETTLE.on(client)
        self.heirs = Heirs(client, settings)
        self._trips = Shared(client, settings.redis_replicas)
        self._worker = worker
        self._fixed = (
            sending_lease_ms(settings),
            ms(settings.permit_margin),
            ttl_ms,
            settings.canary,
        )
        self._settings = settings
        self._sample = settings.log_sample
        self._hands = hands
        self._on_flag = on_flag
        self._meter = meter
        self._lines: Lines[tuple[str, int], Answer] = Lines(self._run)

    def put(self, answer: Answer) -> None:
        """Take one answer to settle."""
        self._lines.put((answer.claim.app, answer.claim.lane), answer)

    async def close(self) -> None:
        """Stop; what still waits is left to recovery."""
        await self._lines.close()
        await self._trips.close()
        await self.heirs.close()

    async def _run(self, where: tuple[str, int], line: Line[Answer]) -> None:
        app, _ = where
        free, under_way = deque(range(_ABREAST)), set[asyncio.Task[None]]()
        try:
            while True:
                if not await line.wait():
                    if not under_way:
                        return
                    continue
                if len(line.items) < BATCH:
                    await company(LINGER_S)  # a run costs by far less for each of many
                while under_way and (not free or len(line.items) < _PLENTY):
                    await asyncio.wait(
                        under_way, timeout=LINGER_S, return_when=asyncio.FIRST_COMPLETED
                    )
                place = free.popleft()
                run = asyncio.ensure_future(
                    self._settle_some(where, line.pop(self._most(app)), place)
                )
                under_way.add(run)

                def end(done: asyncio.Task[None], place: int = place) -> None:
                    under_way.discard(done)
                    free.append(place)

                run.add_done_callback(end)
        finally:
            for run in under_way:
                run.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def _settle_some(self, where: tuple[str, int], batch: list[Answer], place: int) -> None:
        app, lane = where
        started = time.monotonic()  # a swapped permit is claimed no earlier than this
        results = await self._settle(app, lane, batch, place)
        if results is None:
            await self._settle_in_heirs(app, lane, batch, place)
            return
        try:
            self._conclude(app, lane, batch, results, started)
        except Exception as error:  # noqa: BLE001  (the lane must go on; it is settled already)
            logs.emit(DutyFailed("conclude", lane, f"{type(error).__name__}: {error}"))

    async def _settle_in_heirs(self, app: str, lane: int, batch: list[Answer], place: int) -> None:
        """Settle a batch whose lane was divided where its claims lie now.

        At places of its own: what was taken in those lanes has the others.
        """
        parts = self.heirs.parted(lane, batch, _claim_of)
        await asyncio.gather(
            *(
                self._settle_some((app, heir), some, place + _ABREAST)
                for heir, some in parts.items()
            )
        )

    def _most(self, app: str) -> int:
        """Return how many answers of an app one script run may settle."""
        known = self._settings.apps.get(app)  # None: it went while its last ones were out
        told = known is not None and "message.settled" in known.webhook_events
        return MOST_TOLD if told else MOST

    async def _settle(
        self, app: str, lane: int, batch: list[Answer], place: int
    ) -> list[str] | None:
        """Record a batch; returns what is said of it, or None: its lane was divided.

        Should it have been recorded there just before that, and the answer lost, it is asked of the
        heirs anew, and is stale there.
        """
        if self.heirs.is_divided(lane):
            return None
        script_keys = SettleKeys.of(lane, app, self._worker, place)
        known = self._settings.apps.get(app)
        keep = known.keep if known else ""
        args = SettleArgs(self._worker, keys.lane_prefix(lane), app, *self._fixed, keep)
        rows = ("\n".join([answer.row() for answer in batch]),)
        call = self._script.call(script_keys, args, rows)  # repeated with its token
        posted = sum(answer.reply is not None for answer in batch)
        attempt = 0
        while True:
            try:
                results: list[str] = await self._trips.run(call)
            except UnacknowledgedError as error:
                attempt += 1
                counted = posted > 0 and attempt >= _ASKS
                logs.emit(ReplicasBehind("settling", error.have, attempt, counted))
                if counted:
                    await self._note_unreplicated(posted)
                if counted or not posted:
                    return cast("list[str]", error.reply)
            except Exception as error:  # noqa: BLE001  (else nothing of this lane is ever settled)
                attempt += 1
                await self._wait_out(error, attempt)
                if self.heirs.is_divided(lane):
                    return None
            else:
                return results

    async def _wait_out(self, error: Exception, attempt: int) -> None:
        """Let a batch wait that was not recorded, as far as is known."""
        if is_refusal(error):
            if attempt % _REFUSALS_TOLD == 0:
                logs.emit(StoreUnreachable("settling", "LaneDivided", attempt))
            await self.heirs.look()
            return
        # a full or read-only server refuses as it loses: the answers wait, in hand
        logs.emit(StoreUnreachable("settling", type(error).__name__, attempt))
        await asyncio.sleep(pause_s(attempt))

    async def _note_unreplicated(self, answers: int) -> None:
        """Let the doctor know of answers that count though a failover may forget them."""
        pipeline = self._client.pipeline(transaction=False)
        pipeline.incrby(keys.UNREPLICATED, answers)
        pipeline.expire(keys.UNREPLICATED, _DAY_S)
        with contextlib.suppress(redis.RedisError):
            await pipeline.execute()

    def _conclude(
        self, app: str, lane: int, batch: list[Answer], results: list[str], claimed_at: float
    ) -> None:
        out_of_hand: list[Claim] = []
        swapped: list[Claim] = []
        for answer, result in zip(batch, results, strict=False):
            if result.startswith("next "):
                _, member, expires, fence, unsure = result.split(" ")
                old = answer.claim
                swapped.append(
                    Claim(
                        app,
                        lane,
                        old.broadcast,
                        old.item,
                        member,
                        int(expires),
                        fence,
                        old.tries + (answer.verdict.fate == PermitFate.BACK),
                        resumed=False,
                        unsure=unsure == "1",
                        claimed_at=claimed_at,
                        rate=old.rate,
                        payload=old.payload,
                    )
                )
            out_of_hand.append(answer.claim)
            self._log(answer, result)
        if swapped:  # in hand before the old ones leave it, so that no drain ends in between
            self._hands.take(swapped)
            self._hands.swapped.extend(swapped)
            self._hands.wake()
        self._hands.drop(out_of_hand)
        for flag in results[len(batch) :]:
            broadcast, _, what = flag.partition(" ")
            self._on_flag(app, broadcast, lane, what)

    def _log(self, answer: Answer, result: str) -> None:
        claim, reply, verdict = answer.claim, answer.reply, answer.verdict
        if reply is None:
            return
        outcome = verdict.outcome
        if result in _OUTCOMES:
            action, outcome = "settled", result
        elif result == "done":
            action = "settled"
        elif result.startswith("next "):
            action = "swapped"
        else:
            action = "stale" if result == "stale" else _ACTIONS[verdict.action]
        if action != "settled":
            outcome = ""
        if self._meter is not None:
            self._meter.answered(claim.app, action, outcome, reply.errcode, reply.latency_ms)
        if self._sample < 1 and random.random() >= self._sample:  # noqa: S311
            return
        logs.emit(
            MessageSettled(
                app=claim.app,
                broadcast=claim.broadcast,
                lane=claim.lane,
                openid=claim.openid,
                attempt=claim.tries + 1,
                action=action,
                outcome=outcome,
                errcode=reply.errcode,
                errmsg=reply.errmsg,
                rid=reply.rid,
                msgid=reply.msgid,
                permit_kind=KIND_OF[claim.kind],
                resumed=claim.resumed,
                latency_ms=reply.latency_ms,
                sample=self._sample,
            )
        )
