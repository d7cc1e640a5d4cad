"""The lanes' copies of a broadcast, written from outside their lane.

A lane has a copy once it has adopted the broadcast (`broadcasts.lifecycle`). Nothing here makes
one: a hash with a mark and nothing else would pass for a copy, and never become one.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import redis

from producers.store import Client, keys
from producers.store.clock import now_ms
from producers.store.lanes.fence import is_refusal
from producers.store.scripts import NoArgs, Script, source
from producers.store.trip import Trip


class MarkKeys(NamedTuple):
    """KEYS of mark.lua."""

    lane: str


class OpenKeys(NamedTuple):
    """KEYS of open.lua."""

    lane: str
    queue: str
    stock: str
    ledger: str

    @classmethod
    def of(cls, lane: int, app: str, broadcast: str) -> "OpenKeys":
        """Return those of a broadcast in a lane."""
        return cls(
            keys.lane_broadcast(lane, broadcast),
            keys.queue(lane, broadcast),
            keys.stock(lane, app),
            keys.ledger(lane, app),
        )


class OpenArgs(NamedTuple):
    """ARGV of open.lua; with a canary what it met follows."""

    broadcast: str
    prefix: str
    canary: str


class QuestionKeys(NamedTuple):
    """KEYS of question.lua."""

    lane: str


class QuestionArgs(NamedTuple):
    """ARGV of question.lua."""

    broadcast: str
    prefix: str
    verdict: str
    again_ms: int


QUESTION: Final = Script(__package__, "question", QuestionKeys, QuestionArgs, clock=True)
MARK: Final = Script(__package__, "mark", MarkKeys, NoArgs)
OPEN: Final = Script(__package__, "open", OpenKeys, OpenArgs, clock=True)


class Copies:
    """Writes into lanes' copies; where there is none, it does nothing. Safe to share."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._question = QUESTION.on(client)
        self._mark = MARK.on(client)
        self._open = OPEN.on(client)

    def mark(self, broadcast: str, lane: int, field: str, value: str) -> bool:
        """Write one field.

        Returns:
            Whether there is a copy.

        Raises:
            redis.RedisError: Redis did not answer; repeat it.
        """
        copy = MarkKeys(keys.lane_broadcast(lane, broadcast))
        return bool(self._mark(copy, NoArgs(), (field, value)))

    def be_unsure(self, broadcast: str, lane: int) -> None:
        """Let whatever waits in a lane now count as perhaps sent. Raises as `mark`.

        In a lane too that is being divided: its heirs were copied from it before, or will be, and
        whoever marks it marks them after it.
        """
        at_ms = now_ms(self._client, keys.lane_prefix(lane))
        marks = (("unsure", "1"), ("unsure_at_ms", str(at_ms)))
        try:
            for field, value in marks:
                self.mark(broadcast, lane, field, value)
        except redis.ResponseError as error:
            if not is_refusal(error):
                raise
            text, name = source(MARK.package, MARK.name), keys.lane_broadcast(lane, broadcast)
            for field, value in marks:
                self._client.eval(text, 1, name, field, value)  # which no fence stops

    def question(self, broadcast: str, lane: int, verdict: str, again_ms: int) -> tuple[int, int]:
        """Let a lane take nothing until its broadcast's template is no more in question.

        Args:
            broadcast: whose copy.
            lane: where.
            verdict: what the lane is to say, unless it says something.
            again_ms: when the keeper looks again.

        Returns:
            Since when it is asked, 0: not at all; and the time (epoch ms).

        Raises:
            redis.RedisError: Redis did not answer; repeat it.
        """
        copy = QuestionKeys(keys.lane_broadcast(lane, broadcast))
        args = QuestionArgs(broadcast, keys.lane_prefix(lane), verdict, again_ms)
        since_ms, at_ms = self._question(copy, args)
        return int(since_ms), int(at_ms)

    def open(self, app: str, broadcast: str, lanes: Iterable[int]) -> bool:
        """Let the flood into lanes, in one trip: somewhere a message was delivered.

        Returns:
            Whether each of them has a copy.

        Raises:
            redis.RedisError: Redis did not answer; repeat it.
        """
        trip = Trip(self._client)
        for lane in lanes:
            args = OpenArgs(broadcast, keys.lane_prefix(lane), "")
            trip.ask(self._open.call(OpenKeys.of(lane, app, broadcast), args))
        return all(trip.answers())

    def give_canary(
        self, app: str, broadcast: str, lane: int, canary: int, met: Sequence[int] = (0, 0, 0)
    ) -> bool:
        """Say how many permits may be at risk in a lane before the first delivery. As `mark`.

        Args:
            app: the broadcast's.
            broadcast: whose copy.
            lane: where.
            canary: how many; 0 takes it away.
            met: template errors, refusals and unknown errors that the canary met elsewhere.
        """
        args = OpenArgs(broadcast, keys.lane_prefix(lane), str(canary))
        return bool(self._open(OpenKeys.of(lane, app, broadcast), args, met))
