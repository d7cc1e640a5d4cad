"""Dead letters: events that were given up, listed, and posted again when somebody says so."""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any, Final, NamedTuple

from producers import logs
from producers.errors import InvalidInputError
from producers.logs.events import WebhooksReplayed
from producers.settings import Layout, Settings
from producers.store import Client, keys
from producers.store.lanes.following import by_lane, each_lane, steady
from producers.store.retry import repeat_all
from producers.store.scripts import Script
from producers.webhooks.events import Event, place_of
from producers.webhooks.outbox import DueKeys

MOST: Final = 1000
"""Dead letters on one page, and ids in one call to replay."""

_BATCH: Final = 200
_CURSOR: Final = re.compile(r"([0-9]{1,5})\.([0-9]{1,8})")
_DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that was given up.

    Attributes:
        id: its id, as it was posted.
        type: what it tells, such as ``broadcast.finished``.
        broadcast: of which broadcast.
        at_ms: when that happened (server epoch ms).
        died_at_ms: when it was given up.
        attempts: how often it was posted.
        why: what came of the last time.
    """

    id: str
    type: str
    broadcast: str
    at_ms: int
    died_at_ms: int
    attempts: int
    why: str


@dataclass(frozen=True, slots=True)
class Box:
    """What an app's webhooks have come to.

    Attributes:
        waiting: events to be posted.
        dead: dead letters.
        dead_today: of these, given up in the last day.
        dropped: events for which there was no room.
        bytes: what all of them take.
    """

    waiting: int
    dead: int
    dead_today: int
    dropped: int
    bytes: int


@dataclass(frozen=True, slots=True)
class LetterPage:
    """One page of dead letters.

    Attributes:
        box: the sums.
        letters: the oldest first, lane by lane.
        cursor: of the next page; '' when this is the last.
    """

    box: Box
    letters: list[DeadLetter]
    cursor: str

    def as_dict(self) -> dict[str, Any]:
        """Return the page as JSON-ready fields."""
        letters = [asdict(one) for one in self.letters]
        return {"box": asdict(self.box), "letters": letters, "cursor": self.cursor}


class ReplayArgs(NamedTuple):
    """ARGV of outbox_replay.lua; the events follow."""

    prefix: str
    app: str


REPLAY: Final = Script(__package__, "outbox_replay", DueKeys, ReplayArgs, clock=True)


class DeadLetters:
    """The dead letters of every app. Safe to share between threads."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._replay = REPLAY.on(client)

    @steady
    def box(self, app: str) -> Box:
        """Return what an app's webhooks have come to; raises as `page`."""
        self._settings.app(app)
        lanes = self._settings.layout.lanes

        def ask(pipeline: Any) -> None:
            pipeline.time()
            for lane in lanes:
                pipeline.zcard(keys.hook_queue(lane, app))
                pipeline.zcard(keys.hook_dead(lane, app))
                pipeline.hmget(keys.hook_kept(lane, app), "dropped", "bytes")

        (seconds, _), *rows = repeat_all("counting webhooks", self._client, ask)
        since = seconds * 1000 - _DAY_MS

        def count(pipeline: Any) -> None:
            for lane in lanes:
                pipeline.zcount(keys.hook_dead(lane, app), since, "+inf")

        kept = rows[2::3]
        return Box(
            waiting=sum(rows[0::3]),
            dead=sum(rows[1::3]),
            dead_today=sum(repeat_all("counting dead letters", self._client, count)),
            dropped=sum(_number(dropped) for dropped, _ in kept),
            bytes=sum(_number(size) for _, size in kept),
        )

    @steady
    def page(self, app: str, cursor: str = "", limit: int = 100) -> LetterPage:
        """Return one page of an app's dead letters.

        Args:
            app: alias of the app.
            cursor: of the page before; '' for the first.
            limit: how many, 1 to 1,000.

        Raises:
            UnknownAppError: no such app.
            InvalidInputError: the cursor or the limit is none.
            StoreUnavailableError: Redis did not answer.
        """
        box = self.box(app)
        if not 1 <= limit <= MOST:
            raise InvalidInputError([f"limit {limit}: 1 to {MOST:,}"])
        layout = self._settings.layout
        lane, start = self._where(cursor or f"{layout.lanes[0]}.0", layout)
        letters: list[DeadLetter] = []
        while True:
            wanted = limit - len(letters)
            some = self._read(app, lane, start, wanted)
            letters += some
            start += len(some)
            if len(letters) >= limit and len(some) == wanted:
                return LetterPage(box, letters, f"{lane}.{start}")
            following, start = layout.after(lane), 0
            if following is None:
                return LetterPage(box, letters, "")
            lane = following

    @staticmethod
    def _where(cursor: str, layout: Layout) -> tuple[int, int]:
        """Return the lane and the place in it that a cursor names; what was divided is its heir."""
        found = _CURSOR.fullmatch(cursor)
        with contextlib.suppress(ValueError):
            if found is not None:
                return layout.heir(int(found[1])), int(found[2])
        raise InvalidInputError(["cursor: give the one that the page before ended with"])

    def _read(self, app: str, lane: int, start: int, limit: int) -> list[DeadLetter]:
        dead = keys.hook_dead(lane, app)
        (names,) = repeat_all(
            "reading dead letters",
            self._client,
            lambda pipeline: pipeline.zrange(dead, start, start + limit - 1, withscores=True),
        )
        if not names:
            return []

        def ask(pipeline: Any) -> None:
            pipeline.hmget(keys.hook_events(lane, app), [name for name, _ in names])
            pipeline.hmget(keys.hook_tries(lane, app), [name for name, _ in names])

        texts, tries = repeat_all("reading dead letters", self._client, ask)
        number = self._settings.layout.number_of(lane)
        return [
            _letter(Event.read(app, lane, number, name, text or ""), int(died_at_ms), tried or "")
            for (name, died_at_ms), text, tried in zip(names, texts, tries, strict=True)
        ]

    def replay(self, app: str, ids: list[str] | None = None) -> int:
        """Let dead letters be posted again, under the same ids.

        Args:
            app: alias of the app.
            ids: which, at most 1,000; None: all that there are.

        Returns:
            How many there were; one that is none (any more) does not count.

        Raises:
            UnknownAppError: no such app.
            InvalidInputError: an id is none, or there are too many.
            StoreUnavailableError: Redis did not answer; the same call again changes nothing more.
        """
        self._settings.app(app)
        if ids is None:
            replayed = self._replay_all(app)
        else:

            def replay_in(lane: int, numbers: dict[int, list[str]]) -> int:
                return sum(self._replay_in(app, lane, [*chain.from_iterable(numbers.values())]))

            replayed = by_lane(self._client, self._settings, self._numbers(ids), replay_in)
        logs.emit(WebhooksReplayed(app, replayed))
        return replayed

    def _numbers(self, ids: list[str]) -> dict[int, list[str]]:
        """Return events by the number of their lane."""
        if len(ids) > MOST:
            raise InvalidInputError([f"{len(ids):,} ids: at most {MOST:,} in one call"])
        faults, numbers, layout = [], dict[int, list[str]](), self._settings.layout
        for one in ids:
            place = place_of(one)
            if place is None:
                faults.append(f"{one[:80]!r} is no event's id, such as `webhooks list` shows")
                continue
            if place[0] < (layout.towards or layout.count):
                numbers.setdefault(place[0], []).append(place[1])
        if faults:
            raise InvalidInputError(faults)
        return numbers

    def _replay_all(self, app: str) -> int:
        replayed = 0

        def replay(lane: int) -> None:
            nonlocal replayed
            for some in self._replay_lane(app, lane):
                replayed += some

        each_lane(self._client, self._settings, replay)
        return replayed

    def _replay_lane(self, app: str, lane: int) -> Iterator[int]:
        dead = keys.hook_dead(lane, app)
        (there,) = repeat_all("counting dead letters", self._client, lambda one: one.zcard(dead))
        for _ in range(0, there, _BATCH):  # those that die meanwhile are not replayed without end
            (names,) = repeat_all(
                "reading dead letters", self._client, lambda one: one.zrange(dead, 0, _BATCH - 1)
            )
            yield from self._replay_in(app, lane, names)

    def _replay_in(self, app: str, lane: int, names: list[str]) -> Iterator[int]:
        args = ReplayArgs(keys.lane_prefix(lane), app)
        due = DueKeys(keys.hooks_due(lane))
        for start in range(0, len(names), _BATCH):
            yield int(self._replay.repeated("replaying", due, args, names[start : start + _BATCH]))


def _letter(event: Event, died_at_ms: int, tried: str) -> DeadLetter:
    attempts, _, why = tried.partition(" ")
    return DeadLetter(
        id=event.id,
        type=event.type,
        broadcast=event.broadcast,
        at_ms=event.at_ms,
        died_at_ms=died_at_ms,
        attempts=_number(attempts),
        why=why,
    )


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0
