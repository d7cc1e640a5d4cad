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

*A pipeline* becomes one for each node, all written before the first answer is read. What a node
lost or refused stands in the place of each of its answers; the others have theirs. Several keys of
one command may lie anywhere, for MGET, DEL, UNLINK and EXISTS; of a script they lie in one slot.
What concerns no key (TIME, PUBLISH) goes to any node; in a pipeline, to the node of its first key.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import redis
from redis.client import Pipeline
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    NoScriptError,
    ResponseError,
    TryAgainError,
)

from producers.store.cluster.nodes import LOST, Nodes, Pools
from producers.store.cluster.silence import SilentError
from producers.store.cluster.slots import (
    MovingError,
    slot_of,
    slot_of_key,
    whole,
    with_guard,
)
from producers.store.lanes.fence import (
    QUESTION,
    Fence,
    FencedError,
    Turn,
    is_refusal,
    refused,
)
from producers.store.patience import Place, lend

HOPS: Final = 5
"""Redirections that one call follows."""

NOT_NOW: Final = (TryAgainError, ClusterDownError)

Command = tuple[tuple[Any, ...], dict[str, Any]]


class Cluster(redis.Redis):
    """See the module. It connects when first used."""

    def __init__(self, pools: Pools, seeds: Sequence[Place]) -> None:
        super().__init__(connection_pool=pools)
        self.auto_close_connection_pool = True
        self._nodes = Nodes(pools, seeds)
        self._fence: Fence | Turn | None = pools.connection_kwargs.get("fence")
        self._texts: dict[str, str] = {}

    # -- one command ----------------------------------------------------------------------------

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Run a command where its first key lies; as `redis.Redis`."""
        return self._run(self.guarded(args), options)

    def guarded(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return a command as it is sent, for who sends it past the client too."""
        return with_guard(args, "" if self._fence is None else self._fence.mark)

    def _run(self, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        slot = slot_of(args)
        for _ in range(HOPS):
            place = self._nodes.awake(self._nodes.place_of(slot))
            try:
                return self._exchanged(place, args, options)
            except NoScriptError:
                self._load(self._nodes.node(place), args[1])
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
            except ResponseError as error:
                if is_refusal(error):
                    raise self.refused() from error
                raise
        raise MovingError("the slot moves faster than it is followed")

    def refused(self) -> FencedError:
        """Return what to raise for a script that its lane has refused; it says what to do."""
        try:
            answer = self._run(QUESTION, {})
            if self._fence is not None:
                self._fence.check(answer)
        except FencedError as error:
            return error
        except redis.RedisError:
            pass
        return refused()

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
                    connection.send_command("SCRIPT LOAD", self._text(args[1]))
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
        self._texts[registered.sha] = text
        return registered

    def _text(self, sha: str) -> str:
        try:
            return self._texts[sha]
        except KeyError:
            raise NoScriptError("NOSCRIPT of a script that was not registered here") from None

    def _load(self, node: Any, sha: str) -> None:
        node.execute_command("SCRIPT LOAD", self._text(sha))

    # -- several commands -----------------------------------------------------------------------

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Any:  # noqa: ARG002
        """Return a pipeline; one that is a transaction has all its keys in one slot."""
        return _Pipeline(self, transaction)

    def several(self, stack: Sequence[Command]) -> list[Any]:
        """Run commands, a pipeline for each node; return their answers, errors among them.

        Raises:
            MovingError: a slot is served by nobody; nothing was done.
        """
        slots = [slot_of(args) for args, _ in stack]
        first = next((slot for slot in slots if slot is not None), None)
        parts: dict[Place, list[int]] = {}
        for number, slot in enumerate(slots):
            place = self._nodes.place_of(first if slot is None else slot)
            parts.setdefault(place, []).append(number)
        answers: list[Any] = [None] * len(stack)
        for place, found in self._answers({p: [stack[n] for n in ns] for p, ns in parts.items()}):
            for number, answer in zip(parts[place], found, strict=True):
                answers[number] = answer
        return [self._followed(one, answer) for one, answer in zip(stack, answers, strict=True)]

    def _answers(self, parts: dict[Place, list[Command]]) -> Iterator[tuple[Place, list[Any]]]:
        """Ask each node its part, then yield the answers of each."""
        sent: dict[Place, tuple[Any, set[str]]] = {}
        try:
            for place in sorted(parts):  # in one order: no two callers wait for each other
                try:
                    sent[place] = self._send(self._nodes.awake(place), parts[place])
                except LOST as error:
                    self._nodes.note_lost(place, error)
                    yield place, [error] * len(parts[place])
            for place in list(sent):
                try:
                    found = self._receive(place, *sent.pop(place), parts[place])
                except LOST as error:
                    self._nodes.note_lost(place, error)
                    found = [error] * len(parts[place])
                yield place, found
        finally:
            for place, (connection, _) in sent.items():
                connection.disconnect()
                self._nodes.node(place).connection_pool.release(connection)

    def _send(self, place: Place, commands: Sequence[Command]) -> tuple[Any, set[str]]:
        pool = self._nodes.node(place).connection_pool
        loaded = self._nodes.loaded.setdefault(place, set())
        used = {args[1] for args, _ in commands if args[0] == "EVALSHA"}
        loading = {sha for sha in used - loaded if sha in self._texts}
        texts = [("SCRIPT LOAD", self._texts[sha]) for sha in loading]
        connection = lend(pool)
        try:
            packed = connection.pack_commands([*texts, *(args for args, _ in commands)])
            connection.send_packed_command(packed)
        except BaseException:
            connection.disconnect()
            pool.release(connection)
            raise
        return connection, loading

    def _receive(
        self, place: Place, connection: Any, loading: set[str], commands: Sequence[Command]
    ) -> list[Any]:
        node = self._nodes.node(place)
        answers: list[Any] = []
        try:
            connection.rearm()
            self._nodes.await_first(place, connection)
            for _ in loading:
                connection.read_response()
            self._nodes.loaded.setdefault(place, set()).update(loading)
            for args, options in commands:
                try:
                    answers.append(node.parse_response(connection, args[0], **options))
                except ResponseError as error:
                    answers.append(error)
        except BaseException:
            connection.disconnect()
            raise
        finally:
            node.connection_pool.release(connection)
        return answers

    def _followed(self, command: Command, answer: Any) -> Any:
        """Return an answer; where it says that the slot or the script is elsewhere, the other's."""
        if isinstance(answer, NOT_NOW):
            return MovingError(str(answer))
        if isinstance(answer, ResponseError) and is_refusal(answer):
            return self.refused()
        if not isinstance(answer, (AskError, NoScriptError)):
            return answer
        args, options = command
        if isinstance(answer, NoScriptError):
            self._nodes.loaded.clear()
        try:
            return self._run(args, options)
        except (ResponseError, *LOST) as error:
            return error

    def atomically(self, stack: Sequence[Command], *, raise_on_error: bool) -> list[Any]:
        """Run commands as one transaction, on the node of their slot."""
        slot = next((found for args, _ in stack if (found := slot_of(args)) is not None), None)
        place, asking = self._nodes.place_of(slot), False
        for _ in range(HOPS):
            node = self._nodes.node(self._nodes.awake(place))
            pipeline = node.pipeline(transaction=True)
            pipeline.command_stack = list(stack)
            try:
                if asking:
                    pipeline.connection = lend(node.connection_pool)
                    pipeline.connection.send_command("ASKING")
                    pipeline.connection.read_response()
                answers: list[Any] = pipeline.execute(raise_on_error)
            except NoScriptError:
                for sha in {args[1] for args, _ in stack if args[0] == "EVALSHA"}:
                    self._load(node, sha)
            except MovedError as error:
                place, asking = (error.host or place[0], error.port), False
                self._nodes.slots.move(error.slot_id, place)
            except AskError as error:
                place, asking = (error.host or place[0], error.port), True
            except NOT_NOW as error:
                raise MovingError(str(error)) from error
            except LOST as error:
                self._nodes.note_lost(place, error)
                raise
            else:
                return answers
        raise MovingError("the slot moves faster than it is followed")

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
        answers = self.several([((command, name), {}) for name in names])
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


class _Pipeline(Pipeline):
    """Collects commands as redis-py's does; see `Cluster.several`."""

    def __init__(self, cluster: Cluster, transaction: bool) -> None:
        super().__init__(cluster.connection_pool, cluster.response_callbacks, transaction, None)
        self._cluster = cluster
        self._atomic = transaction

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Run what was collected; return the answers in its order."""
        stack = [(self._cluster.guarded(args), options) for args, options in self.command_stack]
        self.reset()
        if not stack:
            return []
        if self._atomic:
            try:
                return self._cluster.atomically(stack, raise_on_error=raise_on_error)
            except ResponseError as error:
                if is_refusal(error):
                    raise self._cluster.refused() from error
                raise
        answers = self._cluster.several(stack)
        if raise_on_error:
            for answer in answers:
                if isinstance(answer, Exception):
                    raise answer
        return answers
