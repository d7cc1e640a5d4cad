"""The Python door: what a backend imports to collect permits and to broadcast.

``Producer`` blocks, ``AsyncProducer`` does not. Both are safe to share between threads, and good on
both sides of a fork: one that is made when a server preloads serves each of its processes, which
opens connections of its own. An ``AsyncProducer`` belongs to no event loop. Neither asks Redis
anything before its first call, so a server starts while Redis is away.

A Redis that stalls costs each call its timeout, and nobody else anything: no call holds a lock that
another one waits for longer than its own timeout.
"""

from producers.producer.awaited import AsyncProducer
from producers.producer.blocking import Producer
from producers.producer.place import confine

__all__ = ["AsyncProducer", "Producer", "confine"]
