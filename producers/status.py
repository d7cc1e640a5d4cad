"""Status: what a broadcast is doing, read from its home and summed over its lanes."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from producers import keys
from producers.errors import NotFoundError
from producers.retry import repeat, repeat_all
from producers.settings import Settings, ms
from producers.spec import MAX_LIFE, Spec
from producers.store import Client
from producers.words import ENDED, Outcome, State


@dataclass(frozen=True, slots=True)
class Status:
    """What a broadcast is doing.

    Attributes:
        id, app, channel, template_id, audience: what it is.
        state: its state.
        total: recipients so far; of an ended one, all of them.
        expected: members of the audience when it was created.
        settled: recipients that have an outcome.
        outcomes: outcome → recipients, without zeros.
        errcodes: WeChat's errcode → answers, without 0.
        queued, delayed, in_flight: messages now; a resumed one counts as queued or delayed too.
        aside: messages that outlived their workers too often and wait for an operator.
        reason, errcode: why it was paused or aborted, or '' and 0.
        created_at_ms, ended_at_ms: server epoch ms; 0 while not ended.
        complete: every recipient has its outcome, and nothing more will change.
    """

    id: str
    app: str
    channel: str
    template_id: str
    audience: str
    state: State
    total: int
    expected: int
    settled: int
    outcomes: dict[str, int]
    errcodes: dict[str, int]
    queued: int
    delayed: int
    in_flight: int
    aside: int
    reason: str
    errcode: int
    created_at_ms: int
    ended_at_ms: int
    complete: bool

    def as_dict(self) -> dict[str, Any]:
        """Return the status as JSON-ready fields."""
        return {name: getattr(self, name) for name in self.__slots__}


class Register:
    """The broadcasts of every app, to be looked at. Safe to share between threads."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings

    def status(self, broadcast: str) -> Status:
        """Return what a broadcast is doing now.

        Raises:
            NotFoundError: no such broadcast, or its retention is over.
        """
        home = self._home(broadcast)
        spec = Spec.from_json(home["spec"])
        lanes = range(self._settings.lanes)

        def fill(pipeline: Any) -> None:
            for lane in lanes:
                pipeline.hgetall(keys.lane_broadcast(lane, broadcast))
                pipeline.llen(keys.queue(lane, broadcast))
                pipeline.zcard(keys.delayed(lane, broadcast))
                pipeline.hlen(keys.flight(lane, broadcast))

        answers = repeat_all("reading the broadcast", self._client, fill)
        copies: list[dict[str, str]] = answers[0::4]
        outcomes: dict[str, int] = {}
        errcodes: dict[str, int] = {}
        for copy in copies:
            for field, count in copy.items():
                if field.startswith("o:"):
                    outcomes[field[2:]] = outcomes.get(field[2:], 0) + int(count)
                elif field.startswith("e:"):
                    errcodes[field[2:]] = errcodes.get(field[2:], 0) + int(count)
        total = sum(int(copy.get("total", 0)) for copy in copies)
        aside = sum(int(copy.get("aside", 0)) for copy in copies)
        settled = sum(int(copy.get("done", 0)) for copy in copies)
        split = all(copy.get("split") == "done" for copy in copies)
        order = {outcome: place for place, outcome in enumerate(Outcome)}
        return Status(
            id=broadcast,
            app=spec.app,
            channel=spec.channel,
            template_id=spec.template_id,
            audience=spec.audience,
            state=State(home["state"]),
            total=total,
            expected=int(home["audience_size"]),
            settled=settled,
            outcomes={
                outcome: outcomes[outcome]
                for outcome in sorted(outcomes, key=lambda name: order[Outcome(name)])
                if outcomes[outcome]
            },
            errcodes=errcodes,
            queued=sum(answers[1::4]),
            delayed=sum(answers[2::4]),
            in_flight=sum(answers[3::4]) - aside,
            aside=aside,
            reason=home.get("reason", ""),
            errcode=int(home.get("errcode") or 0),
            created_at_ms=int(home["created_at_ms"]),
            ended_at_ms=int(home.get("ended_at_ms", 0)),
            complete=split and total == settled,
        )

    def spec(self, broadcast: str) -> Spec:
        """Return what is sent to whom.

        Raises:
            NotFoundError: no such broadcast.
        """
        return Spec.from_json(self._home(broadcast)["spec"])

    def latest(self, app: str, limit: int = 20) -> list[str]:
        """Return the ids of the app's newest broadcasts, the newest first.

        Raises:
            UnknownAppError: no such app.
        """
        self._settings.app(app)
        return list(
            repeat(
                "listing broadcasts",
                lambda: self._client.zrevrange(keys.history(app), 0, limit - 1),
            )
        )

    def watch(self, broadcast: str, every: timedelta = timedelta(seconds=0.5)) -> Iterator[Status]:
        """Yield the status again and again until the broadcast has ended and is complete.

        Raises:
            NotFoundError: no such broadcast.
        """
        while True:
            status = self.status(broadcast)
            yield status
            if status.state in ENDED and status.complete:
                return
            time.sleep(every.total_seconds())

    @property
    def ttl_ms(self) -> int:
        """How long a broadcast's keys live: its life, the retention, a day to spare."""
        return ms(MAX_LIFE + self._settings.retention + timedelta(days=1))

    def home_lane(self, broadcast: str) -> int:
        """Return the lane that is a broadcast's home."""
        return keys.lane_of(broadcast, self._settings.lanes)

    def _home(self, broadcast: str) -> dict[str, str]:
        home: dict[str, str] = repeat(
            "reading the broadcast",
            lambda: self._client.hgetall(keys.home(self.home_lane(broadcast), broadcast)),
        )
        if not home:
            raise NotFoundError(f"no broadcast {broadcast}: it never was, or its retention is over")
        return home
