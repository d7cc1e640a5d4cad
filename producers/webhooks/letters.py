"""Dead letters: events that were given up, listed, and posted again when somebody says so."""

import re
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple

from producers import logs
from producers.errors import InvalidInputError
from producers.logs.events import WebhooksReplayed
from producers.settings import Settings
from producers.store import Client, keys
from producers.store.retry import repeat_all
from producers.store.scripts import Script
from producers.webhooks.events import Event, id_of, place_of
from producers.webhooks.outbox import DueKeys

MOST: Final = 1000
"""Dead letters on one page, and ids in one call to replay."""

_BATCH: Final = 200
_CURSOR: Final = re.compile(r"([0-9]{1,4})\.([0-9]{1,8})")
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

    def box(self, app: str) -> Box:
        """Return what an app's webhooks have come to; raises as `page`."""
        self._settings.app(app)
        lanes = range(self._settings.lanes)

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
        found = _CURSOR.fullmatch(cursor or "0.0")
        if found is None or int(found[1]) >= self._settings.lanes:
            raise InvalidInputError(["cursor: give the one that the page before ended with"])
        lane, start = int(found[1]), int(found[2])
        letters: list[DeadLetter] = []
        while True:
            wanted = limit - len(letters)
            some = self._read(app, lane, start, wanted)
            letters += some
            start += len(some)
            if len(letters) >= limit and len(some) == wanted:
                return LetterPage(box, letters, f"{lane}.{start}")
            lane, start = lane + 1, 0
            if lane >= self._settings.lanes:
                return LetterPage(box, letters, "")

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
        return [
            _letter(Event.read(app, lane, name, text or ""), int(died_at_ms), tried or "")
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
            replayed = sum(self._replay_all(app, lane) for lane in range(self._settings.lanes))
        else:
            replayed = sum(
                self._replay_in(app, lane, names) for lane, names in self._places(ids).items()
            )
        logs.emit(WebhooksReplayed(app, replayed))
        return replayed

    def _places(self, ids: list[str]) -> dict[int, list[str]]:
        if len(ids) > MOST:
            raise InvalidInputError([f"{len(ids):,} ids: at most {MOST:,} in one call"])
        faults, places = [], dict[int, list[str]]()
        for one in ids:
            place = place_of(one)
            if place is None:
                faults.append(f"{one[:80]!r} is no event's id, such as `webhooks list` shows")
            elif place[0] < self._settings.lanes:
                places.setdefault(place[0], []).append(place[1])
        if faults:
            raise InvalidInputError(faults)
        return places

    def _replay_all(self, app: str, lane: int) -> int:
        dead = keys.hook_dead(lane, app)
        (there,) = repeat_all("counting dead letters", self._client, lambda one: one.zcard(dead))
        replayed = 0
        for _ in range(0, there, _BATCH):  # those that die meanwhile are not replayed without end
            (names,) = repeat_all(
                "reading dead letters", self._client, lambda one: one.zrange(dead, 0, _BATCH - 1)
            )
            replayed += self._replay_in(app, lane, names)
        return replayed

    def _replay_in(self, app: str, lane: int, names: list[str]) -> int:
        args = ReplayArgs(keys.lane_prefix(lane), app)
        due = DueKeys(keys.hooks_due(lane))
        return sum(
            int(self._replay.repeated("replaying", due, args, names[start : start + _BATCH]))
            for start in range(0, len(names), _BATCH)
        )


def _letter(event: Event, died_at_ms: int, tried: str) -> DeadLetter:
    attempts, _, why = tried.partition(" ")
    return DeadLetter(
        id=id_of(event.lane, event.name),
        type=event.type,
        broadcast=event.broadcast,
        at_ms=event.at_ms,
        died_at_ms=died_at_ms,
        attempts=_number(attempts),
        why=why,
    )


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0
