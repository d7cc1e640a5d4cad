"""A trip: questions that go to Redis together, and whose answers are awaited together.

However far Redis is, it costs one round trip (on a cluster: to each node at once), where questions
one after the other cost one each. They are no transaction: each is answered for itself, in order.

`in_order` is one where that is right: what comes later must not be done unless what came before is.
On one server that is one transaction, and one trip: a server that refuses some of it (full, a
replica) refuses all. On several it is a trip for each stage.

`Shared` is one for an event loop, whose calls find each other.
"""

import asyncio
from collections.abc import Iterable
from typing import Any, Final

from redis.exceptions import ClusterCrossSlotError, NoScriptError

from producers.store import Client
from producers.store.connection import is_cluster
from producers.store.lanes import reach
from producers.store.lanes.fence import is_refusal
from producers.store.scripts import Call, Value

Question = Call | tuple[Value, ...]
"""A script's call, or a command."""


class Trip:
    """Collects questions, and asks them once. Used by one thread."""

    def __init__(self, client: Client, *, atomic: bool = False) -> None:
        self._pipeline = client.pipeline(transaction=atomic)
        self._asked: list[Question] = []

    def __len__(self) -> int:
        return len(self._asked)

    def ask(self, question: Question) -> int:
        """Add a question; returns the place of its answer."""
        if isinstance(question, Call):
            question.into(self._pipeline)
        else:
            self._pipeline.execute_command(*question)
        self._asked.append(question)
        return len(self._asked) - 1

    def go(self) -> list[Any]:
        """Return the answers in their places; where Redis refused one, the error stands there.

        Raises:
            redis.RedisError: nobody knows which of them were done.
        """
        if not self._asked:
            return []
        answers: list[Any] = self._pipeline.execute(raise_on_error=False)
        for place, (question, answer) in enumerate(zip(self._asked, answers, strict=True)):
            if isinstance(question, Call) and isinstance(answer, NoScriptError):
                answers[place] = question.run()  # which loads it: a server that was restarted
        return answers

    def answers(self, *, lenient: bool = False) -> list[Any]:
        """As `go`; raises the first error that an answer is.

        Args:
            lenient: the refusal of a lane that was divided is no error, but stands in its place.
        """
        return _checked(self.go(), lenient=lenient)


def is_done(answer: object) -> bool:
    """Say whether a lenient answer is one, and no lane's refusal."""
    return not isinstance(answer, Exception)


def in_order(
    client: Client, *stages: Iterable[Question], firm: int | None = None
) -> list[list[Any]]:
    """Run stages, none before the one before it is done; return the answers of each.

    Whoever calls it may have to repeat it: each question changes nothing the second time.

    Args:
        client: Redis.
        *stages: what is asked.
        firm: so many stages are done whole, or nothing of those after them; in those, where a
            lane was divided, its refusal stands in the place of the answer. Default: all.

    Raises:
        redis.RedisError: nobody knows how far it came; stages that were done are in order.
    """
    every = [list(stage) for stage in stages]
    firm = len(every) if firm is None else firm
    if not (hasattr(client, "nodes") or reach.is_split(client)):
        try:
            return _at_once(client, every, firm)
        except ClusterCrossSlotError as error:  # nothing was done
            reach.learn(client, error)
    return [_all_of(client, stage, lenient=at >= firm) for at, stage in enumerate(every)]


def _at_once(client: Client, stages: list[list[Question]], firm: int) -> list[list[Any]]:
    """Run all as one transaction, in which a lane that refuses one call does not stop the others.

    So those after the firm stages name a key of each call in these too, and are refused with them.
    """
    before = [one.keys[0] for stage in stages[:firm] for one in stage if isinstance(one, Call)]
    trip = Trip(client, atomic=True)
    for at, stage in enumerate(stages):
        for one in stage:
            if at >= firm and isinstance(one, Call):
                trip.ask(one._replace(keys=(*one.keys, *before)))
            else:
                trip.ask(one)
    found = trip.go()
    answers, done = [], 0
    for at, stage in enumerate(stages):
        answers.append(_checked(found[done : done + len(stage)], lenient=at >= firm))
        done += len(stage)
    return answers


def _all_of(client: Client, questions: list[Question], *, lenient: bool) -> list[Any]:
    trip = Trip(client)
    for question in questions:
        trip.ask(question)
    return trip.answers(lenient=lenient)


def _checked(answers: list[Any], *, lenient: bool) -> list[Any]:
    for answer in answers:
        if isinstance(answer, Exception) and not (lenient and is_refusal(answer)):
            raise answer
    return answers


_TOGETHER: Final = 64
"""Calls in one trip; a reply holds up those behind it."""


class Shared:
    """Calls that tasks of one event loop make in the same moment share a trip.

    Each is answered for itself, as if it had been made alone. On a cluster, where a node that
    stands still would hold up the others' answers, and where replicas are waited for, which is once
    for each call, each is made alone.

    Args:
        client: Redis, for this event loop.
        replicas: how many these calls wait for.
    """

    def __init__(self, client: Client, replicas: int = 0) -> None:
        self._client = client
        self._alone = is_cluster(client) or replicas > 0
        self._waiting: list[tuple[Call, asyncio.Future[Any]]] = []
        self._under_way: set[asyncio.Task[None]] = set()

    async def run(self, call: Call) -> Any:
        """Make a call.

        Raises:
            redis.RedisError: whatever running it raises; nothing is repeated.
        """
        if self._alone:
            return await call.run()
        loop = asyncio.get_running_loop()
        answer = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._leave)  # whoever wakes in this moment comes along
        self._waiting.append((call, answer))
        return await answer

    async def close(self) -> None:
        """Give up what is under way; nobody knows whether it ran."""
        for trip in self._under_way:
            trip.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    def _leave(self) -> None:
        waiting, self._waiting = self._waiting, []
        for at in range(0, len(waiting), _TOGETHER):
            trip = asyncio.ensure_future(self._go(waiting[at : at + _TOGETHER]))
            self._under_way.add(trip)
            trip.add_done_callback(self._under_way.discard)

    async def _go(self, asked: list[tuple[Call, asyncio.Future[Any]]]) -> None:
        pipeline = self._client.pipeline(transaction=False)
        for call, _ in asked:
            call.into(pipeline)
        found: list[Any]
        try:
            found = await pipeline.execute(raise_on_error=False)
        except Exception as error:  # noqa: BLE001  (theirs to judge, each for itself)
            found = [error] * len(asked)
        for (call, answer), reply in zip(asked, found, strict=True):
            told = reply
            if isinstance(reply, NoScriptError):  # a server that was restarted: this loads it
                try:
                    told = await call.run()
                except Exception as error:  # noqa: BLE001
                    told = error
            if answer.done():  # nobody waits any more
                continue
            if isinstance(told, Exception):
                answer.set_exception(told)
            else:
                answer.set_result(told)
