"""The send path of one worker: pump, sender and settler, wired to what they share.

It begins when the pump is asked for a batch, and ends by draining: nothing more is taken, what was
not posted is handed back, and what was is waited for.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from producers.broadcasts import Broadcasts
from producers.settings import Settings
from producers.store import Client
from workers.limits.limiter import Limiter, Penalty
from workers.sending.claim import Claim
from workers.sending.consequences import Consequences
from workers.sending.egress import Egress
from workers.sending.memory import Memory
from workers.sending.pumping.intake import Intake
from workers.sending.pumping.pump import Pump
from workers.sending.pumping.reserver import Batch, Reserver
from workers.sending.sender import Sender
from workers.sending.settle import Settler
from workers.sending.take import Taker
from workers.wechat.client import WeChat
from workers.wechat.tokens import TokenKeeper


class Told(Protocol):
    """Who is told what takes and settles say of a broadcast; from any thread."""

    def low(self, broadcast: str, lane: int) -> None:
        """A queue wants a split."""

    def complete(self, broadcast: str) -> None:
        """A lane has settled everyone."""

    def flag(self, app: str, broadcast: str, lane: int, flag: str) -> None:
        """A settled batch says something; see `settle.Settler`."""


class SendPath:
    """One worker's; see the module.

    Args:
        settings: apps, lanes, limits.
        worker: this worker's id.
        loop: where it posts and settles.
        memory: shared with the duties.
        broadcasts: where specs are read.
        client, taking: Redis, for the pump's thread; its trips have a connection of their own.
        loop_client: Redis, for the loop.
        wechat: the client.
        tokens: app → its token keeper.
        egress: this worker's way out.
        workers: how many workers there are; 0 while this one is not known as alive.
        server_time: epoch seconds by the Redis server's clock.
        told: who is told what takes and settles say of a broadcast.

    Attributes:
        pump: gives batches.
    """

    def __init__(
        self,
        settings: Settings,
        worker: str,
        loop: asyncio.AbstractEventLoop,
        memory: Memory,
        broadcasts: Broadcasts,
        client: Client,
        taking: Client,
        loop_client: Client,
        wechat: WeChat,
        tokens: Mapping[str, TokenKeeper],
        egress: Egress,
        workers: Callable[[], int],
        server_time: Callable[[], float],
        told: Told,
    ) -> None:
        self._loop = loop
        self._hands = memory.hands
        ttl_ms = broadcasts.ttl_ms
        self._settler = Settler(
            loop_client, settings, worker, ttl_ms, memory.hands, told.flag, memory.meter
        )
        self._sender = Sender(
            settings,
            wechat,
            tokens,
            egress,
            Consequences(tokens, Penalty(loop_client), memory.gates, server_time),
            memory.gates,
            self._settler,
            memory.stops,
            server_time,
            loop_client,
            worker,
        )
        intake = Intake(
            settings,
            taking,
            Taker(taking, settings, worker, ttl_ms),
            memory.gates,
            tokens,
            memory.hands,
            workers,
            self.hand_back,
            told.low,
            told.complete,
            memory.turns,
            memory.stops,
            self._sender.posts,
            server_time,
        )
        reserver = Reserver(
            settings,
            taking,
            Limiter(client, worker),
            broadcasts,
            memory.gates,
            self.hand_back,
            self._sender.wait_s,
            server_time,
        )
        self.pump = Pump(taking, memory.gates, memory.hands, intake, reserver)

    @property
    def is_busy(self) -> bool:
        """Whether claims are in hand, or may lie under this worker's name."""
        # in this order: the pump takes them in hand first, and knows them then
        return self.pump.unknown or self._hands.held > 0

    def pump_gone(self) -> str:
        """Say why the pump is gone, or '' while it is there or has not begun."""
        thread = self.pump.thread
        return "its thread ended" if thread is not None and not thread.is_alive() else ""

    def serve(self, apps: Collection[str]) -> None:
        """Serve these apps from now on; on the loop alone."""
        self._sender.serve(apps)

    def start(self, batch: Batch) -> None:
        """Hand a batch to the loop; returns at once. From any thread, as most."""
        self._loop.call_soon_threadsafe(self._sender.start, batch)

    def hand_back(self, claims: list[Claim]) -> None:
        """Return claims that were surely never posted."""
        self._loop.call_soon_threadsafe(self._sender.hand_back, claims)

    def give_up(self, claims: list[Claim]) -> None:
        """Settle claims that may have been posted, and may have been settled, as forgotten."""
        self._loop.call_soon_threadsafe(self._sender.give_up, claims)

    def drain(self, until: float) -> None:
        """Take nothing more, and wait until nothing is in hand, or until then (monotonic s)."""
        self._hands.close()
        self._loop.call_soon_threadsafe(self._sender.drain)
        # a take whose reply was lost is asked again: what it claimed must be known, or buried
        while self.is_busy and time.monotonic() < until:
            time.sleep(0.02)
            self._hands.wait_empty(0.1)
            swapped = [self._hands.swapped.popleft() for _ in range(len(self._hands.swapped))]
            if swapped:
                self.hand_back(swapped)

    async def close(self) -> None:
        """Stop, on the loop; what is left is recovery's."""
        await self._sender.close()
        await self._settler.close()
