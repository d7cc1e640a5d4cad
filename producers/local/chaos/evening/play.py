"""The play: what operators, backends and the clock do in an evening, and when.

Everything is asked for with a key, or looks first at what is so: what Redis did not answer to is
asked for again. It happens on one thread, in the order of its time.
"""

import contextlib
import heapq
import itertools
import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import redis

from producers.broadcasts.status import Status
from producers.errors import (
    IllegalMoveError,
    NotFoundError,
    StoreUnavailableError,
    UnknownAppError,
)
from producers.local.chaos import faults
from producers.local.chaos.crew import Crew, Later
from producers.local.chaos.evening import users
from producers.local.chaos.evening.door import ServiceDoor
from producers.local.chaos.evening.programme import (
    CAFE,
    CHANNELS,
    CLUB,
    MESSAGES,
    NEWS,
    PURPOSE,
    SHOP,
    Act,
    Evening,
    openid_of,
    page_of,
    template_of,
)
from producers.local.chaos.schedule import Strike
from producers.local.parts import Watcher
from producers.producer import Producer
from producers.words import ENDED, Channel, State

_LOOK_S: Final = 0.25
_SUM_S: Final = 1.0
_AGAIN_S: Final = 0.5
_SERIES: Final = "evening"
_STILL_S: Final = 75.0
"""An evening in which nothing is settled for so long, once the window is open, is stuck."""

_ROWS: Final = {"thing1": "{name}，连续签到 {days} 天"}
DATA: Final = {
    Channel.TEMPLATE: {"keyword1": "每日签到"},
    Channel.SUBSCRIBE: {"thing1": "每日签到"},
}


def row_of(user: int) -> dict[str, str]:
    """Return the row of a user."""
    return {"openid": openid_of(SHOP, user), "name": f"客{user}", "days": str(user % 90 + 1)}


def text_of(user: int) -> str:
    """Return what the row's message says."""
    row = row_of(user)
    return f"{row['name']}，连续签到 {row['days']} 天"


class Play:
    """One evening.

    Args:
        evening: the programme.
        producer: what a backend has; it leads to Redis itself.
        crew: what can be struck.
        door: the service.
        file: the apps' file.
        strikes: what goes wrong, and when.
        watcher: may end it.

    Attributes:
        ids: name of a broadcast → its id.
        messages: page of a single message → app and id.
        ended: why it ended; '' while it goes on.
    """

    def __init__(
        self,
        evening: Evening,
        producer: Producer,
        crew: Crew,
        door: ServiceDoor,
        file: Path,
        strikes: tuple[Strike, ...],
        watcher: Watcher,
    ) -> None:
        self._evening = evening
        self._producer = producer
        self._crew = crew
        self._door = door
        self._file = file
        self._watcher = watcher
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self._settled, self._moved_at = -1, time.monotonic()
        self._done = set[str]()
        self.ids: dict[str, str] = {}
        self.messages: dict[str, tuple[str, str]] = {}
        self.ended = ""
        self._write(evening.apps())
        for at_s, action in self._programme():
            self._add(at_s, action)
        for strike in strikes:
            self._add(strike.at_s, partial(faults.strike_now, crew, strike))

    def _programme(self) -> list[tuple[float, Callable[[], object]]]:
        opens_in_s = self._evening.opens_s - time.time()
        create = self._create
        evening: list[tuple[float, Callable[[], object]]] = [
            (0.0, partial(create, "quiet")),
            (0.0, partial(create, "paused", weight=3)),
            (0.0, partial(create, "cancelled", rate=max(1.0, self._evening.rate / 3))),
            (0.2, self._pause),
            (0.2, self._cancel),
            (1.0, self._rows),
            (2.0, partial(create, "aborted")),
            (2.5, self._retry),
            (3.0, partial(create, "offer1", purpose=PURPOSE)),
            (4.0, partial(create, "offer2", purpose=PURPOSE)),
            (max(0.0, opens_in_s - 12), self._begin_series),
            (opens_in_s + 0.5, self._end_series),
            (5.0, self._let_cafe_come),
            (0.0, self._look),
        ]
        evening += (
            (1 + 1.5 * number, partial(self._message, app, number))
            for number in range(MESSAGES)
            for app in (SHOP, CLUB, NEWS)
        )
        return evening

    def run(self) -> None:
        """Play it to its end."""
        while not self.ended:
            at, _, action = self._due[0]
            ahead = at - time.monotonic()
            if ahead > 0:
                self._watcher.wait(min(ahead, 1.0))
                continue
            heapq.heappop(self._due)
            self._act(action)
        if not self._crew.server.running:
            self._crew.server.start()

    def _add(self, in_s: float, action: Callable[[], object]) -> None:
        heapq.heappush(self._due, (time.monotonic() + in_s, next(self._numbers), action))

    def _act(self, action: Callable[[], object]) -> None:
        try:
            later = action()
        except (StoreUnavailableError, redis.RedisError, OSError):
            self._add(_AGAIN_S, action)
            return
        for in_s, follow in later if isinstance(later, list) else ():
            self._add(in_s, follow)

    # -- what is done -----------------------------------------------------------------------

    def _fields(self, act: Act) -> dict[str, Any]:
        channel = CHANNELS[act.app]
        return {
            "app": act.app,
            "channel": channel,
            "template_id": act.template,
            "data": DATA[channel],
            "page": act.page,
        }

    def _create(self, name: str, **more: Any) -> None:
        act = self._evening.acts[name]
        fields = {**self._fields(act), "audience": "all", **more}
        self.ids[name] = self._producer.broadcast(**fields, key=act.key).id
        self._watcher.say(f"{name}: {act.recipients:,} recipients of {act.app}")

    def _rows(self) -> None:
        act = self._evening.acts["rows"]
        rows = [row_of(user) for user in range(self._evening.rows)]
        fields = {**self._fields(act), "data": _ROWS}
        made = self._producer.broadcast(**fields, rows=rows, key=act.key)
        self.ids["rows"] = made.id
        self._watcher.say(f"rows: {len(rows):,} recipients of shop, each with words of its own")

    def _pause(self) -> list[Later]:
        if self._of("paused").settled < self._evening.users // 4:
            return [(_LOOK_S, self._pause)]
        with contextlib.suppress(IllegalMoveError):
            self._producer.pause(self.ids["paused"])
        self._watcher.say("paused: paused for three seconds")
        return [(3.0, self._resume)]

    def _resume(self) -> None:
        with contextlib.suppress(IllegalMoveError):
            self._producer.resume(self.ids["paused"])
        self._done.add("paused")

    def _cancel(self) -> list[Later]:
        if self._of("cancelled").settled < self._evening.users // 5:
            return [(_LOOK_S, self._cancel)]
        with contextlib.suppress(IllegalMoveError):
            self._producer.cancel(self.ids["cancelled"])
        self._watcher.say("cancelled: cancelled")
        return []

    def _retry(self) -> list[Later]:
        status = self._of("aborted")
        if status.state not in ENDED or not status.complete:
            return [(_LOOK_S, self._retry)]
        act = self._evening.acts["retried"]
        made = self._producer.retry(
            self.ids["aborted"],
            "cancelled,failed,bad_data,refused",
            key=act.key,
            template_id=act.template,
            page=act.page,
        )
        self.ids["retried"] = made.id
        self._watcher.say(f"retried: {made.recipients:,} recipients, with a good template")
        return []

    def _begin_series(self) -> None:
        act = self._evening.acts["tick"]
        fields = {**self._fields(act), "audience": "all"}
        self._producer.create_series(_SERIES, "* * * * *", missed="run", **fields)

    def _end_series(self) -> list[Later]:
        try:
            found = self._producer.show_series(SHOP, _SERIES)
        except NotFoundError:  # it was deleted, and the reply was lost
            return []
        if not found.last_broadcast:
            return [(_LOOK_S, self._end_series)]
        self.ids["tick"] = found.last_broadcast
        self._producer.delete_series(SHOP, _SERIES)
        self._watcher.say("tick: the series made its broadcast, and is ended")
        return []

    def _let_cafe_come(self) -> list[Later]:
        self._write(self._evening.later())
        self._watcher.say("cafe: it stands in the apps' file from now on")
        return [(1.0, self._greet)]

    def _greet(self) -> list[Later]:
        try:
            users.collect(
                self._evening, self._producer, self._crew.wechat, self._watcher, later=True
            )
        except UnknownAppError:  # it is not taken up yet
            return [(_LOOK_S, self._greet)]
        return [(0.0, partial(self._message, CAFE, 0))]

    def _message(self, app: str, number: int) -> list[Later]:
        page = page_of(f"message-{app}-{number}")
        channel = CHANNELS[app]
        body = {
            "channel": channel,
            "template_id": template_of(f"MESSAGE-{app}"),
            "openid": openid_of(app, number),
            "data": DATA[channel],
            "page": page,
        }
        status, answer = self._door.call("POST", f"/v1/apps/{app}/messages", body, key=page)
        if status != 201:
            return [(_AGAIN_S, partial(self._message, app, number))]
        self.messages[page] = (app, answer["id"])
        return []

    def _write(self, apps: dict[str, dict[str, object]]) -> None:
        beside = self._file.with_suffix(".new")
        beside.write_text(json.dumps(apps), encoding="utf-8")
        os.replace(beside, self._file)  # noqa: PTH105 - it is what it says

    # -- how far it is ----------------------------------------------------------------------

    def _of(self, name: str) -> Status:
        if name not in self.ids:
            raise StoreUnavailableError("not created yet")
        return self._producer.status(self.ids[name])

    def _look(self) -> list[Later]:
        again: list[Later] = [(_SUM_S, self._look)]
        if not self._crew.server.running:
            self._moved_at = time.monotonic()
            return again
        found = {name: self._producer.status(one) for name, one in self.ids.items()}
        settled = sum(status.settled for status in found.values())
        waiting = time.time() < self._evening.opens_s
        if settled != self._settled or waiting:
            self._settled, self._moved_at = settled, time.monotonic()
        if time.monotonic() - self._moved_at > _STILL_S:
            left = {
                name: f"{one.state} {one.settled}/{one.total} {one.reason}"
                for name, one in found.items()
                if not _is_through(one)
            }
            self.ended = f"nothing was settled for {_STILL_S:.0f} s: {left}"
            return again
        is_whole = set(found) == set(self._evening.acts) and len(self.messages) == (
            3 * MESSAGES + 1
        )
        for name, status in found.items():
            if status.state is State.PAUSED and status.reason and name != "paused":
                self.ended = f"{name} paused: {status.reason} {status.errcode}"
        if is_whole and all(map(_is_through, found.values())) and self._messages_are_through():
            self.ended = "finished"
        return again

    def _messages_are_through(self) -> bool:
        shown = self._producer.message_status
        return all(shown(one).state == "ended" for _, one in self.messages.values())


def _is_through(status: Status) -> bool:
    return status.state in ENDED and status.complete
