"""A cluster's client for an event loop; see `cluster.client`, of which it says only what differs.

Used by one loop. A pipeline has its parts for the nodes under way at the same time.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import redis
import redis.asyncio
from redis.asyncio.client import Pipeline
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    NoScriptError,
    ResponseError,
)

from producers.store import trouble
from producers.store.cluster.nodes import ASK_S, HOPS, LOST, NOT_NOW, Command, Known, made_for
from producers.store.cluster.silence import LOOK_S
from producers.store.cluster.slots import MovingError, slot_of, whole, with_guard
from producers.store.lanes.fence import Fence, Turn
from producers.store.patience import Place, lend
from producers.store.primary import fleet_to


class LoopPools(redis.asyncio.BlockingConnectionPool):
    """As `Pools`."""

    def __init__(self, url: str, made_of: dict[str, Any]) -> None:
        self._url = url
        self._made_of = made_of
        self._nodes: dict[Place, Any] = {}
        super().__init__(fleet=fleet_to(url), **made_of)

    def node(self, place: Place) -> Any:
        """Return the client of a node."""
        found = self._nodes.get(place)
        if found is None:
            made_of = made_for(place, self._url, self._made_of, self.connection_kwargs)
            pool = redis.asyncio.BlockingConnectionPool(**made_of)
            found = self._nodes[place] = redis.asyncio.Redis.from_pool(pool)
        return found

    async def keep(self, places: Iterable[Place]) -> None:
        """Close the connections to nodes that are not of the cluster any more."""
        for place in self._nodes.keys() - set(places):
            await self._nodes.pop(place).aclose()

    async def disconnect(self, *_: Any, **__: Any) -> None:
        """Close all connections to all nodes."""
        for node in list(self._nodes.values()):
            await node.connection_pool.disconnect()


class LoopCluster(redis.asyncio.Redis):
    """See the module. It connects when first used."""

    def __init__(self, pools: LoopPools, seeds: Sequence[Place]) -> None:
        super().__init__(connection_pool=pools)
        self.auto_close_connection_pool = True
        self._pools = pools
        self._known = Known(seeds)
        self._fence: Fence | Turn | None = pools.connection_kwargs.get("fence")
        self._reading: asyncio.Task[None] | None = None

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Run a command where its first key lies."""
        return await self._run(self.guarded(args), options)

    def guarded(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return a command as it is sent."""
        return with_guard(args, Fence.mark if self._fence is None else self._fence.mark)

    async def _run(self, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        slot = slot_of(args)
        for _ in range(HOPS):
            place = await self._awake(await self._place_of(slot))
            node = self._pools.node(place)
            try:
                return await node.execute_command(*args, **options)
            except NoScriptError:
                await node.execute_command("SCRIPT LOAD", self._known.text(args[1]))
            except MovedError as error:
                self._known.slots.move(error.slot_id, (error.host or place[0], error.port))
            except AskError as error:
                return await self._ask((error.host or place[0], error.port), args, options)
            except NOT_NOW as error:
                if isinstance(error, ClusterDownError):
                    self._known.slots.doubt(place)
                raise MovingError(str(error)) from error
            except LOST as error:
                self._known.note_lost(place, error)
                raise
        raise MovingError("the slot moves faster than it is followed")

    async def _ask(self, place: Place, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        node = self._pools.node(await self._awake(place))
        pool = node.connection_pool
        connection = await lend(pool)
        try:
            for _ in range(2):
                await connection.send_command("ASKING")
                await connection.read_response()
                try:
                    await connection.send_command(*args)
                    return await node.parse_response(connection, args[0], **options)
                except NoScriptError:
                    await connection.send_command("SCRIPT LOAD", self._known.text(args[1]))
                    await connection.read_response()
        except (AskError, *NOT_NOW) as error:
            raise MovingError(str(error)) from error
        except LOST as error:
            await connection.disconnect()
            self._known.note_lost(place, error)
            raise
        except asyncio.CancelledError:
            await connection.disconnect()
            raise
        finally:
            await pool.release(connection)
        raise MovingError("the node forgets scripts")

    def register_script(self, script: Any) -> Any:
        """Register a script; each node is given it when it lacks it."""
        text = whole(script)
        registered = super().register_script(text)
        self._known.texts[registered.sha] = text
        return registered

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Any:  # noqa: ARG002
        """Return a pipeline; one that is a transaction has all its keys in one slot."""
        return _LoopPipeline(self, transaction)

    async def several(self, stack: Sequence[Command], *, transaction: bool) -> list[Any]:
        """Run commands, a pipeline for each node; return their answers, errors among them."""
        slots = [slot_of(args) for args, _ in stack]
        first = next((slot for slot in slots if slot is not None), None)
        parts: dict[Place, list[int]] = {}
        for number, slot in enumerate(slots):
            place = await self._place_of(first if slot is None else slot)
            parts.setdefault(place, []).append(number)
        answers: list[Any] = [None] * len(stack)

        async def run(place: Place, numbers: list[int]) -> None:
            pipeline = self._pools.node(place).pipeline(transaction=transaction)
            pipeline.command_stack = [stack[number] for number in numbers]
            try:
                await self._awake(place)
                found = await pipeline.execute(raise_on_error=False)
            except LOST as error:
                self._known.note_lost(place, error)
                if transaction:
                    raise
                found = [error] * len(numbers)
            except (AskError, *NOT_NOW) as error:  # of a transaction, which did nothing
                if isinstance(error, MovedError):
                    self._known.slots.move(error.slot_id, (error.host or place[0], error.port))
                raise MovingError(str(error)) from error
            for number, answer in zip(numbers, found, strict=True):
                answers[number] = answer

        results = await asyncio.gather(
            *(run(place, numbers) for place, numbers in parts.items()), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return [
            await self._followed(one, answer) for one, answer in zip(stack, answers, strict=True)
        ]

    async def _followed(self, command: Command, answer: Any) -> Any:
        if isinstance(answer, NOT_NOW):
            return MovingError(str(answer))
        if not isinstance(answer, (AskError, NoScriptError)):
            return answer
        args, options = command
        try:
            return await self._run(args, options)
        except (ResponseError, *LOST) as error:
            return error

    async def nodes(self) -> dict[Place, Any]:
        """Return the client of each node that serves slots, by its place."""
        await self._place_of(None)
        return {place: self._pools.node(place) for place in self._known.slots.primaries()}

    async def _awake(self, place: Place) -> Place:
        while self._known.silence.is_asked(place):  # noqa: ASYNC110  (a thread asks)
            await asyncio.sleep(LOOK_S)
        return self._known.checked(place)

    async def _place_of(self, slot: int | None) -> Place:
        if self._known.slots.is_due(slot):
            if self._reading is None or self._reading.done():
                self._reading = asyncio.create_task(self._read_map())
                await asyncio.shield(self._reading)
            elif not self._known.slots.known:
                await asyncio.shield(self._reading)
        return self._known.slots.place(slot)

    async def _read_map(self) -> None:
        slots = self._known.slots
        slots.begin()
        error: redis.RedisError | None = None
        for place in self._known.to_ask():
            try:
                async with asyncio.timeout(ASK_S):
                    reply = await self._pools.node(place).execute_command("CLUSTER SLOTS")
            except (redis.RedisError, TimeoutError) as failed:
                if isinstance(failed, redis.RedisError):
                    if trouble.lasts(failed) or isinstance(failed, ResponseError):
                        raise
                    error = failed
                else:
                    error = redis.TimeoutError("no answer to CLUSTER SLOTS")
                slots.doubt(place)
            else:
                slots.learn(reply, place)
                await self._pools.keep(slots.to_ask())
                return
        if error is not None and not slots.known:
            raise error


class _LoopPipeline(Pipeline):
    """Collects commands as redis-py's does; see `LoopCluster.several`."""

    def __init__(self, cluster: LoopCluster, transaction: bool) -> None:
        super().__init__(cluster.connection_pool, cluster.response_callbacks, transaction, None)
        self._cluster = cluster

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Run what was collected; return the answers in its order."""
        guarded = self._cluster.guarded
        stack: list[Any] = [(guarded(args), options) for args, options in self.command_stack]
        await self.reset()  # type: ignore[no-untyped-call]
        if not stack:
            return []
        answers = await self._cluster.several(stack, transaction=self.is_transaction)
        if raise_on_error:
            for answer in answers:
                if isinstance(answer, Exception):
                    raise answer
        return answers
