"""The actors: what a worker does with a message."""

import dramatiq

from producers.broadcasts import jobs
from workers.broker import WorkBroker
from workers.sending.pumping.reserver import Batch

broker = WorkBroker()
dramatiq.set_broker(broker)


@dramatiq.actor(actor_name=jobs.SEND, queue_name=jobs.SEND, broker=broker)
def send(batch: Batch) -> None:
    """Start the sends of one batch of claimed messages, and return at once."""
    if broker.runtime:
        broker.runtime.send(batch)


@dramatiq.actor(actor_name=jobs.SPLIT, queue_name=jobs.SPLIT, broker=broker)
def split(broadcast: str) -> None:
    """Fill the windows of a broadcast; the keeper would do it within a second."""
    if broker.runtime:
        broker.runtime.split(broadcast)
