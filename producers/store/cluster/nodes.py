"""The nodes of a cluster: who serves which slot, a pool to each, and who is asked nothing just now.

A node whose answer was lost is *doubted* (`slots`), so that the map is read anew before it is asked
again, and may be *silent* (`silence`): then it is asked nothing until it gives a sign of life.
"""

import os
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final

import redis
from redis.exceptions import ClusterDownError, NoScriptError, ResponseError, TryAgainError

from producers.store import deadline, trouble
from producers.store.cluster.silence import UNEASY_S, Silence
from producers.store.cluster.slots import Slots
from producers.store.patience import PatientPool, Place
from producers.store.primary import NotDoneError, NotPrimaryError, fleet_to

ASK_S: Final = 2.0
"""How long one node is waited for that is asked for the map."""

LOST: Final = (redis.ConnectionError, redis.TimeoutError)

HOPS: Final = 5
"""Redirections that one call follows."""

NOT_NOW: Final = (TryAgainError, ClusterDownError)
"""The slot is on its way, or nobody serves it; nothing was done."""

Command = tuple[tuple[Any, ...], dict[str, Any]]


class Known:
    """What a client knows of its nodes; nothing here speaks to anybody, but `silence`.

    Args:
        seeds: nodes that the URL names.

    Attributes:
        slots: who serves which.
        silence: who does not answer.
        texts: digest → the script, of all that are registered.
        loaded: node → digests of those that it was given.
    """

    def __init__(self, seeds: Sequence[Place]) -> None:
        self.slots = Slots(seeds)
        self.silence = Silence()
        self.texts: dict[str, str] = {}
        self.loaded: dict[Place, set[str]] = {}

    def text(self, sha: str) -> str:
        """Return a script.

        Raises:
            NoScriptError: it was not registered.
        """
        try:
            return self.texts[sha]
        except KeyError:
            raise NoScriptError("NOSCRIPT of a script that was not registered here") from None

    def note_lost(self, place: Place, error: redis.RedisError) -> None:
        """A node did not answer, or could not be reached: note it, on the error too."""
        told = isinstance(error, NotDoneError)
        if trouble.lasts(error) or (told and not isinstance(error, NotPrimaryError)):
            return  # another epoch, a wrong password: the node is where it was
        self.slots.doubt(place)
        self.loaded.pop(place, None)
        trouble.at_node(error, place)
        if not told:
            self.silence.suspect(place)

    def checked(self, place: Place) -> Place:
        """Return a node that may be asked.

        Raises:
            SilentError: it is silent; the map is read before it is asked again.
        """
        if place in self.silence:
            self.slots.doubt(place)
            raise self.silence.refusal(place)
        return place

    def to_ask(self) -> list[Place]:
        """Return whom to ask for the map, in turn: nobody who is silent, unless all are."""
        every = self.slots.to_ask()
        return [place for place in every if place not in self.silence] or every


def made_for(
    place: Place, url: str, made_of: dict[str, Any], together: dict[str, Any]
) -> dict[str, Any]:
    """Return what the pool to one node is made of.

    Args:
        place: the node.
        url: names the deployment.
        made_of: of each node's pool.
        together: of the pool that closes them all, whose guard watches over each of them.
    """
    guard = together.get("redis_connect_func")
    host, port = place
    return {
        **made_of,
        **({} if guard is None else {"redis_connect_func": guard}),
        "host": host,
        "port": port,
        "fleet": fleet_to(f"{url} {host}:{port}"),
    }


class Pools(PatientPool):
    """The pools of all nodes, opened when first used, and closed as one.

    Args:
        url: names the deployment, for what its connections have in common.
        made_of: of each node's pool: its size, its connections; as redis-py names it.
    """

    def __init__(self, url: str, made_of: dict[str, Any]) -> None:
        self._url = url
        self._made_of = made_of
        self._nodes: dict[Place, Any] = {}
        super().__init__(fleet=fleet_to(url), **made_of)  # type: ignore[no-untyped-call]

    def node(self, place: Place) -> Any:
        """Return the client of a node."""
        found = self._nodes.get(place)
        if found is None:
            found = self._nodes.setdefault(place, redis.Redis.from_pool(self._pool_to(place)))
        return found

    def _pool_to(self, place: Place) -> PatientPool:
        return PatientPool(**made_for(place, self._url, self._made_of, self.connection_kwargs))  # type: ignore[no-untyped-call]

    def keep(self, places: Iterable[Place]) -> None:
        """Close the connections to nodes that are not of the cluster any more."""
        for place in self._nodes.keys() - set(places):
            gone = self._nodes.pop(place, None)
            if gone is not None:
                gone.close()

    def disconnect(self, *_: Any, **__: Any) -> None:
        """Close all connections to all nodes."""
        for node in list(self._nodes.values()):
            node.connection_pool.disconnect()


class Nodes(Known):
    """The nodes, for threads.

    Args:
        pools: the ways to them.
        seeds: nodes that the URL names.
    """

    def __init__(self, pools: Pools, seeds: Sequence[Place]) -> None:
        super().__init__(seeds)
        self._pools = pools
        self._reading = threading.Lock()
        self._pid = os.getpid()

    def node(self, place: Place) -> Any:
        """Return the client of a node."""
        return self._pools.node(place)

    def load(self, node: Any, sha: str) -> None:
        """Give a node a script."""
        node.execute_command("SCRIPT LOAD", self.text(sha))

    def awake(self, place: Place) -> Place:
        """As `checked`, once it is known."""
        self.silence.await_verdict(place)
        return self.checked(place)

    def place_of(self, slot: int | None) -> Place:
        """Return who serves a slot; of none, any node.

        Raises:
            MovingError: nobody does.
        """
        if self.slots.is_due(slot):
            self._read_map()
        return self.slots.place(slot)

    def _read_map(self) -> None:
        """Ask one node after the other who serves which slot; one thread at a time.

        The others go on with what they know; while nothing is known they wait.
        """
        if self._pid != os.getpid():  # the lock may be held by a thread that no fork has
            self._reading, self._pid = threading.Lock(), os.getpid()
        slots = self.slots
        if not self._reading.acquire(blocking=not slots.known):
            return
        try:
            slots.begin()
            error: redis.RedisError | None = None
            for place in self.to_ask():
                try:
                    with deadline.within(ASK_S):
                        reply = self._pools.node(place).execute_command("CLUSTER SLOTS")
                except redis.RedisError as failed:
                    if trouble.lasts(failed) or isinstance(failed, ResponseError):
                        raise
                    slots.doubt(place)
                    error = failed
                else:
                    slots.learn(reply, place)
                    self._pools.keep(slots.to_ask())
                    return
            if error is not None and not slots.known:
                raise error
        finally:
            self._reading.release()

    def await_first(self, place: Place, connection: Any) -> None:
        """Wait for the first answer of a node, no longer than it is there to give one.

        Raises:
            redis.TimeoutError: it is silent, or was waited for as long as may be.
        """
        ends = time.monotonic() + connection.timeout_s()
        while not connection.can_read(timeout=max(0.0, min(UNEASY_S, ends - time.monotonic()))):
            if place in self.silence or time.monotonic() >= ends:
                raise redis.TimeoutError("Timeout reading from a node of the cluster")
            self.silence.suspect(place)
