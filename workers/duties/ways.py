"""The ways of a worker: its connections to Redis, guarded by the epoch, and its session to WeChat.

Opened at boot and closed at the end. Whoever may not work here (another layout, several servers, a
Redis that is away) finds out by opening them.
"""

import asyncio
import contextlib
from typing import Final

import redis

from producers import store
from producers.broadcasts import Broadcasts
from producers.settings import Settings
from producers.store.retry import LOST
from workers.duties.epochs import Epochs, NodeEpochs
from workers.duties.peers import Peers
from workers.wechat.client import WeChat

_OPEN_S: Final = 30.0


class Ways:
    """One worker's.

    Args:
        settings: as loaded.
        worker: this worker's id.
        loop: where the asynchronous ones belong.

    Attributes:
        client: Redis, for any thread.
        taking: Redis, for takes alone: they wait for nobody.
        loop_client: Redis, for the loop.
        wechat: the session, for the loop.
        broadcasts: what producers do with them, by `client`.
        epochs: which server this is; takes, settles and beats reach no other one.
        peers: who lives; this worker is known as alive before it takes anything.

    Raises:
        LayoutMismatchError, SeveralServersError: the deployment has another layout, or is several.
        StoreUnavailableError, redis.RedisError: Redis did not answer.
    """

    def __init__(self, settings: Settings, worker: str, loop: asyncio.AbstractEventLoop) -> None:
        self.client = store.connect(settings, role="worker")
        store.check_layout(self.client, settings)
        self.broadcasts = Broadcasts(self.client, settings)
        kind = NodeEpochs if store.is_cluster(self.client) else Epochs
        self.epochs = kind(self.client, settings, self.broadcasts)
        self.epochs.begin()
        self.taking = store.connect(settings, connections=2, role="worker")
        self.epochs.guard(self.taking)
        self.loop_client = store.connect_async(settings)
        self.epochs.guard_async(self.loop_client)
        self.peers = Peers(self.loop_client, worker, settings.apps)
        opening = asyncio.run_coroutine_threadsafe(self._open(settings), loop)
        self.wechat = opening.result(_OPEN_S)

    async def _open(self, settings: Settings) -> WeChat:
        with contextlib.suppress(*LOST):
            await self.peers.beat()
        return WeChat(settings)

    async def close_loops(self, *, leaves: bool) -> None:
        """Close those of the loop, on it.

        Args:
            leaves: nothing is in hand: this worker need not be recovered.
        """
        await self.wechat.close()
        if leaves:
            with contextlib.suppress(redis.RedisError):
                await self.peers.leave()
        await self.loop_client.aclose()

    def close(self) -> None:
        """Close the others."""
        self.taking.close()
        self.client.close()
