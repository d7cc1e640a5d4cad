"""A cluster's client for threads: each command goes to the node of its key's slot.

To its callers it is a `redis.Redis`; to each node leads one of redis-py's own, with a bounded pool.
redis-py's `RedisCluster` is not used: when one node fails, or a slot has moved, it closes the
connections to all of them, what is under way included; it repeats and sleeps beyond the deadline of
a call; what it raises is no `RedisError`; and its pipelines know no scripts.

*A call* follows its slot: MOVED and ASK say where to. Nothing is repeated beyond that: while a slot
is on its way in pieces (TRYAGAIN), or served by nobody (CLUSTERDOWN), the call has done nothing and
raises `MovingError`, which callers repeat as a lost answer, with the same token.

*A node that is silent* (`silence`), or gone, is asked nothing until it gives a sign of life. Whose
answer was lost is noted on the error (`trouble.at_node`).

*A pipeline* becomes one for each node (`pipelines`). Several keys of one command may lie anywhere,
for MGET, DEL, UNLINK and EXISTS; of a script they lie in one slot. What concerns no key (TIME,
PUBLISH) goes to any node.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import redis
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    NoScriptError,
    ResponseError,
)

from producers.store.cluster.nodes import HOPS, LOST, NOT_NOW, Nodes, Pools
from producers.store.cluster.pipelines import ClusterPipeline, Pipelines
from producers.store.cluster.silence import SilentError
from producers.store.cluster.slots import (
    MovingError,
    slot_of,
    slot_of_key,
    whole,
    with_guard,
)
from producers.store.lanes.fence import Fence, Turn
from producers.store.patience import Place, lend


class Cluster(redis.Redis):
    """See the module. It connects when first used."""

    def __init__(self, pools: Pools, seeds: Sequence[Place]) -> None:
        super().__init__(connection_pool=pools)
        self.auto_close_connection_pool = True
        self._nodes = Nodes(pools, seeds)
        self._fence: Fence | Turn | None = pools.connection_kwargs.get("fence")

    # -- one command ----------------------------------------------------------------------------

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Run a command where its first key lies; as `redis.Redis`."""
        return self._run(self.guarded(args), options)

    def guarded(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return a command as it is sent, for who sends it past the client too."""
        return with_guard(args, Fence.mark if self._fence is None else self._fence.mark)

    def _run(self, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        slot = slot_of(args)
        for _ in range(HOPS):
            place = self._nodes.awake(self._nodes.place_of(slot))
            try:
                return self._exchanged(place, args, options)
            except NoScriptError:
                self._nodes.load(self._nodes.node(place), args[1])
            except MovedError as error:
                self._nodes.slots.move(error.slot_id, (error.host or place[0], error.port))
            except AskError as error:
                return self._ask((error.host or place[0], error.port), args, options)
            except NOT_NOW as error:
                if isinstance(error, ClusterDownError):
                    self._nodes.slots.doubt(place)
                raise MovingError(str(error)) from error
            except LOST as error:
                self._nodes.note_lost(place, error)
                raise
        raise MovingError("the slot moves faster than it is followed")

    def _exchanged(self, place: Place, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Run a command on a node, which is waited for no longer than it is there to answer."""
        node = self._nodes.node(place)
        connection = lend(node.connection_pool)
        try:
            connection.send_command(*args)
            self._nodes.await_first(place, connection)
            return node.parse_response(connection, args[0], **options)
        except ResponseError:
            raise
        except BaseException:
            connection.disconnect()
            raise
        finally:
            node.connection_pool.release(connection)

    def _ask(self, place: Place, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Run a command once where its slot is moving to (ASK)."""
        node = self._nodes.node(self._nodes.awake(place))
        pool = node.connection_pool
        connection = lend(pool)
        try:
            for _ in range(2):
                connection.send_command("ASKING")
                connection.read_response()
                try:
                    connection.send_command(*args)
                    return node.parse_response(connection, args[0], **options)
                except NoScriptError:
                    connection.send_command("SCRIPT LOAD", self._nodes.text(args[1]))
                    connection.read_response()
        except (AskError, *NOT_NOW) as error:
            raise MovingError(str(error)) from error
        except LOST as error:
            connection.disconnect()
            self._nodes.note_lost(place, error)
            raise
        finally:
            pool.release(connection)
        raise MovingError("the node forgets scripts")

    # -- scripts --------------------------------------------------------------------------------

    def register_script(self, script: Any) -> Any:
        """Register a script; each node is given it when it lacks it."""
        text = whole(script)
        registered = super().register_script(text)
        self._nodes.texts[registered.sha] = text
        return registered

    # -- several commands -----------------------------------------------------------------------

    @property
    def _pipelines(self) -> Pipelines:
        return Pipelines(self._nodes, self._run)  # kept, it would keep the client

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Any:  # noqa: ARG002
        """Return a pipeline; one that is a transaction has all its keys in one slot."""
        return ClusterPipeline(self, self._pipelines, self.guarded, transaction=transaction)

    def mget(self, keys: Any, *args: Any) -> Any:
        """As `redis.Redis`, wherever the keys lie."""
        names = [keys, *args] if isinstance(keys, (str, bytes)) else [*keys, *args]
        return self._each("GET", names)

    def delete(self, *names: Any) -> Any:
        """As `redis.Redis`, wherever the keys lie."""
        return sum(self._each("DEL", names))

    def unlink(self, *names: Any) -> Any:
        """As `redis.Redis`, wherever the keys lie."""
        return sum(self._each("UNLINK", names))

    def exists(self, *names: Any) -> Any:
        """As `redis.Redis`, wherever the keys lie."""
        return sum(self._each("EXISTS", names))

    def _each(self, command: str, names: Sequence[Any]) -> list[Any]:
        if len(names) == 1:
            return [self.execute_command(command, names[0])]
        answers = self._pipelines.several([((command, name), {}) for name in names])
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    # -- nodes ----------------------------------------------------------------------------------

    def nodes(self) -> dict[Place, Any]:
        """Return the client of each node that serves slots, by its place."""
        self._nodes.place_of(None)
        return {place: self._nodes.node(place) for place in self._nodes.slots.primaries()}

    def place_of(self, key: str) -> Place:
        """Return who serves a key just now."""
        return self._nodes.place_of(slot_of_key(key))

    def told_place_of(self, key: str) -> Place | None:
        """Return who served a key when the map was read last, None if it never was; asks nobody."""
        try:
            return self._nodes.slots.place(slot_of_key(key)) if self._nodes.slots.known else None
        except MovingError:
            return None

    def id_of(self, place: Place) -> str:
        """Return the id of a node that serves slots, as the cluster knows it."""
        return self._nodes.slots.ids.get(place, "")

    def time_at(self, key: str) -> Any:
        """Return the clock of who serves a key just now; as ``time``."""
        place = self._nodes.awake(self.place_of(key))
        try:
            return self._exchanged(place, ("TIME",), {})
        except LOST as error:
            self._nodes.note_lost(place, error)
            raise

    def doubt(self, place: Place) -> None:
        """Have the map read anew: a node did not answer who asked it past this client."""
        self._nodes.slots.doubt(place)
        self._nodes.silence.suspect(place)

    def is_silent(self, place: Place) -> bool:
        """Say whether a node gives no sign of life, so that nothing is asked of it."""
        return place in self._nodes.silence

    def find_silent(self) -> list[Place]:
        """Ask every node for a sign of life, all at once; return who gives none within a second."""
        for places in (self._nodes.slots.to_ask(), self.nodes()):  # those of the URL may be away
            for place in places:
                self._nodes.silence.suspect(place)
            for place in places:
                self._nodes.silence.await_verdict(place)
        return [place for place in self.nodes() if self.is_silent(place)]

    def silent(self) -> list[SilentError]:
        """Return, of each node that is known to be silent, what a call to it would raise."""
        return [
            self._nodes.silence.refusal(place) for place in self.nodes() if self.is_silent(place)
        ]

    def replicated(self) -> set[str]:
        """Return ``host:port`` of the nodes that serve slots and have a replica."""
        self._nodes.place_of(None)
        return {f"{host}:{port}" for host, port in self._nodes.slots.replicated}

    def pool_of(self, key: str) -> Any:
        """Return the pool to whoever serves a key just now, and is not silent."""
        return self._nodes.node(self._nodes.awake(self.place_of(key))).connection_pool

    def await_answer(self, connection: Any) -> None:
        """Wait on a connection of `pool_of` for an answer, no longer than its node is there.

        Raises:
            redis.TimeoutError: it is silent, or was waited for as long as may be.
        """
        place = (connection.host, connection.port)
        try:
            self._nodes.await_first(place, connection)
        except LOST as error:
            self._nodes.note_lost(place, error)
            raise

    def pubsub(self, **kwargs: Any) -> Any:
        """Return a subscriber at any one node: what is published at one is heard at all.

        Another one each time, by lot: who makes a new one where the last was cut finds who lives.
        """
        self._nodes.place_of(None)
        return self._nodes.node(self._nodes.slots.drawn()).pubsub(**kwargs)

    def scan_iter(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Yield the keys of all nodes."""
        for node in self.nodes().values():
            yield from node.scan_iter(*args, **kwargs)

    def keys(self, pattern: Any = "*", **kwargs: Any) -> Any:
        """Return the keys of all nodes; for tests: it holds each of them for long."""
        return [key for node in self.nodes().values() for key in node.keys(pattern, **kwargs)]

    def dbsize(self, **kwargs: Any) -> Any:
        """Return how many keys there are, of all nodes."""
        return sum(node.dbsize(**kwargs) for node in self.nodes().values())

    def flushall(self, *args: Any, **kwargs: Any) -> Any:
        """Empty all nodes."""
        emptied = [node.flushall(*args, **kwargs) for node in self.nodes().values()]
        return all(emptied)
