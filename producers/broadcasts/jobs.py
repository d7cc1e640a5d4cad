"""Jobs: Dramatiq messages that producers enqueue, by actor name, without any worker code.

They are edges: the keeper does the same a second later, so a lost one delays and loses nothing.
"""

from typing import Final

from dramatiq.brokers.redis import RedisBroker
from dramatiq.message import Message

from producers.store import Client, keys

SPLIT: Final = "split"
"""Actor and queue: fill the window of a broadcast. Args: broadcast id."""

SEND: Final = "send"
"""Actor and queue: one message to one openid; at rest encoded as its openid (see keys.queue)."""

ACTORS: Final = (SPLIT, SEND)
"""Every actor that producers name; a test asserts that the workers declare each of them."""


class Jobs:
    """Enqueues jobs. Safe to share between threads."""

    def __init__(self, client: Client) -> None:
        self._broker = RedisBroker(  # type: ignore[no-untyped-call]
            client=client, namespace=keys.DRAMATIQ_NAMESPACE, maintenance_chance=0, middleware=[]
        )

    def split(self, broadcast: str) -> None:
        """Ask a worker to split the next window of a broadcast.

        Raises:
            redis.ConnectionError, redis.TimeoutError: it may or may not be enqueued; either way
                the keeper splits within a second.
        """
        self._broker.enqueue(
            Message(queue_name=SPLIT, actor_name=SPLIT, args=(broadcast,), kwargs={}, options={})
        )
