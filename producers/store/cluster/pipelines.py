"""Pipelines of a cluster: one for each node, all written before the first answer is read.

What a node lost or refused stands in the place of each of its answers; the others have theirs. One
that is a transaction has all its keys in one slot, and runs where that is. What concerns no key
goes to the node of the first key.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import redis
from redis.client import Pipeline
from redis.exceptions import (
    AskError,
    ClusterCrossSlotError,
    MovedError,
    NoScriptError,
    ResponseError,
)

from producers.store.cluster.nodes import HOPS, LOST, NOT_NOW, Command, Nodes
from producers.store.cluster.slots import MovingError, slot_of
from producers.store.patience import Place, lend


class Pipelines:
    """Runs those of one client.

    Args:
        nodes: where they run.
        run: runs one command, wherever its slot has gone.
    """

    def __init__(
        self,
        nodes: Nodes,
        run: Callable[[tuple[Any, ...], dict[str, Any]], Any],
    ) -> None:
        self._nodes = nodes
        self._run = run

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
        loading = {sha for sha in used - loaded if sha in self._nodes.texts}
        texts = [("SCRIPT LOAD", self._nodes.texts[sha]) for sha in loading]
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
        slot = _one_slot(stack)
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
                    self._nodes.load(node, sha)
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


def _one_slot(stack: Sequence[Command]) -> int | None:
    """Return the slot of a transaction, None if it names no key.

    Raises:
        ClusterCrossSlotError: there are several; nothing is done.
    """
    slots = {slot for args, _ in stack if (slot := slot_of(args)) is not None}
    if len(slots) > 1:
        raise ClusterCrossSlotError("a transaction is of one slot")
    return slots.pop() if slots else None


class ClusterPipeline(Pipeline):
    """Collects commands as redis-py's does.

    Args:
        client: whose commands.
        pipelines: runs them.
        guarded: returns a command as it is sent.
        transaction: whether they are one.
    """

    def __init__(
        self,
        client: redis.Redis,
        pipelines: Pipelines,
        guarded: Callable[[tuple[Any, ...]], tuple[Any, ...]],
        *,
        transaction: bool,
    ) -> None:
        super().__init__(client.connection_pool, client.response_callbacks, transaction, None)
        self._pipelines = pipelines
        self._guarded = guarded
        self._atomic = transaction

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Run what was collected; return the answers in its order."""
        stack = [(self._guarded(args), options) for args, options in self.command_stack]
        self.reset()
        if not stack:
            return []
        if self._atomic:
            return self._pipelines.atomically(stack, raise_on_error=raise_on_error)
        answers = self._pipelines.several(stack)
        if raise_on_error:
            for answer in answers:
                if isinstance(answer, Exception):
                    raise answer
        return answers
