"""Consequences: what an answer says beyond its own message.

A refused token concerns all sends of the app, a limit error all workers; and a code that nobody
knows is said loudly.
"""

import time
from collections.abc import Callable, Mapping
from typing import Final

from producers import logs
from producers.logs.events import LimitHit, LimitLifted, RateLowered, UnknownErrcode
from workers.limits.gate import Gate
from workers.limits.limiter import Penalty
from workers.sending.claim import Claim
from workers.sending.verdict import Verdict
from workers.wechat.errcodes import BACK_OFFS, DAY_IS_OVER, BackOff, Disposition, rule
from workers.wechat.reply import Fate, Reply
from workers.wechat.tokens import TokenKeeper

_BACK_OFF: Final = BackOff(1000, 30_000, 10_000)
"""After a limit error that `BACK_OFFS` does not name."""

_UNEXPLAINED: Final = 5
"""Errcodes that wait to be asked about."""


class Consequences:
    """Lets all know what answers say; belongs to one event loop.

    Args:
        tokens: app → its token keeper.
        penalty: holds everyone back.
        gates: app → what this worker knows of its limits.
        server_time: epoch seconds by the Redis server's clock.
    """

    def __init__(
        self,
        tokens: Mapping[str, TokenKeeper],
        penalty: Penalty,
        gates: Mapping[str, Gate],
        server_time: Callable[[], float],
    ) -> None:
        self._tokens = tokens
        self._penalty = penalty
        self._gates = gates
        self._server_time = server_time

    async def tell(self, claim: Claim, reply: Reply, verdict: Verdict, access_token: str) -> None:
        """Let all know what an answer says.

        Raises:
            redis.RedisError: Redis did not answer; the next answer of the kind says it again.
        """
        gate = self._gates[claim.app]
        if verdict.stale_token:
            self._tokens[claim.app].refuse(access_token)
            await self._tokens[claim.app].tick()
        elif verdict.penalize:
            await self._hold_back(claim.app, claim.channel, reply, gate)
        elif reply.fate is Fate.ANSWERED and reply.errcode == 0:
            self._tokens[claim.app].accept(access_token)
            if gate.level:
                await self._let_go(claim.app, gate)
        elif rule(reply.errcode).disposition in {Disposition.UNKNOWN, Disposition.NOT_A_SEND}:
            logs.emit(
                UnknownErrcode(claim.app, claim.broadcast, reply.errcode, reply.errmsg, reply.rid)
            )
            if reply.rid and len(gate.unexplained) < _UNEXPLAINED:
                gate.unexplained[reply.errcode] = reply.rid

    async def _hold_back(self, app: str, channel: str, reply: Reply, gate: Gate) -> None:
        back_off = BACK_OFFS.get(reply.errcode, _BACK_OFF)
        level_before = gate.level
        gate.level = max(1, gate.level)  # here and now; the others learn it at their next reserve
        blow = await self._penalty.hit(
            app,
            gate.rate,
            back_off.first_ms,
            back_off.most_ms,
            back_off.span_ms,
            minute=back_off.minute,
            took_ms=reply.latency_ms,
        )
        if reply.errcode == DAY_IS_OVER:
            gate.urgent.add(channel)  # what is left is asked for at once
        gate.level = blow.level
        wait_ms = 0
        if blow.level:
            wait_ms = max(0, blow.until_ms - round(self._server_time() * 1000))
            gate.not_before = max(gate.not_before, time.monotonic() + wait_ms / 1000)
        if blow.level != level_before:
            logs.emit(LimitHit(app, reply.errcode, reply.rid, blow.level, wait_ms))
        if blow.after:
            gate.limit = blow.after
            logs.emit(RateLowered(app, reply.errcode, reply.rid, blow.before, blow.after))

    async def _let_go(self, app: str, gate: Gate) -> None:
        gate.level = await self._penalty.lift(app)
        if gate.level == 0:
            logs.emit(LimitLifted(app))
