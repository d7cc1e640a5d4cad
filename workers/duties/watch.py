"""The watch: what a worker must know, read from Redis each second.

Wake-ups over pub/sub say the same sooner. Nothing depends on them: a worker that hears none obeys a
stop, goes on, and finds work within about a second; rates too (`held_rates`).

It reads which apps have something in a ring, one set per lane, and the state of the broadcasts of
the claims that may not be posted yet, where these lie now. So what it costs grows with the lanes
and with what is being sent, and not with the apps or the broadcasts.
"""

import time
from collections.abc import Callable, Collection

from producers.settings import Settings
from producers.store import Client, keys
from producers.store.lanes.reach import members_or_errors
from producers.words import State
from workers.sending.stops import Stops
from workers.sending.turns import Turns


class Watch:
    """Looks for one worker; used by one thread at a time.

    Args:
        client: Redis.
        settings: which lanes there are.
        turns, stops: told what is found.
        apps: those of this worker; another one may know more.
        wake: called when there may be something to take.
    """

    name = "watch"

    def __init__(
        self,
        client: Client,
        settings: Settings,
        turns: Turns,
        stops: Stops,
        apps: Collection[str],
        wake: Callable[[], None],
    ) -> None:
        self._client = client
        self._settings = settings
        self._turns = turns
        self._stops = stops
        self._apps = apps
        self._wake = wake

    def due(self, now: float) -> bool:  # noqa: ARG002
        """Say yes: it asks Redis whether there is anything."""
        return True

    def run(self) -> None:
        """Look once.

        Raises:
            redis.RedisError, StoreUnavailableError: Redis did not answer; look again.
        """
        lost = self._look_at_claims()
        found = False
        layout = self._settings.layout
        self._turns.follow(layout)
        lanes = [lane for lane in layout.lanes if lane != layout.shut]
        busy = members_or_errors(self._client, [keys.busy(lane) for lane in lanes])
        for lane, apps in zip(lanes, busy, strict=True):
            if isinstance(apps, Exception):
                lost.append(apps)
                continue
            for app in apps:
                if app in self._apps:
                    found = True
                    self._turns.wake(app, lane)
        if found:
            self._wake()
        if lost:  # the lanes of the other nodes were looked at
            raise lost[0]

    def _look_at_claims(self) -> list[Exception]:
        """Stop the claims in hand whose broadcast was stopped; returns what was not read."""
        places = self._places()
        asked_at = time.monotonic()
        lost = list[Exception]()
        if places:
            pipeline = self._client.pipeline(transaction=False)
            for broadcast, lane in places:
                pipeline.hmget(keys.lane_broadcast(lane, broadcast), ["state", "verdict", "drop"])
            answers = pipeline.execute(raise_on_error=False)
            lost += [answer for answer in answers if isinstance(answer, Exception)]
            lanes = self._settings.layout.lanes
            for (broadcast, lane), answer in zip(places, answers, strict=True):
                if isinstance(answer, Exception):
                    continue
                state, verdict, drop = answer
                if state is None and lane not in lanes:
                    continue  # it was divided since it was asked
                if state != State.RUNNING or verdict or drop:
                    self._stops.stop(broadcast, asked_at)
        return lost

    def _places(self) -> list[tuple[str, int]]:
        """Return where there are copies of the broadcasts of claims in hand: broadcast, lane.

        Of a lane that was divided since the claim was made, that of each of its heirs.
        """
        layout = self._settings.layout
        found: dict[tuple[str, int], None] = {}
        for broadcast, lane in self._stops.places():
            if lane in layout.lanes:
                found[broadcast, lane] = None
                continue
            for heir in layout.lanes:
                if lane in layout.ancestors(heir):
                    found[broadcast, heir] = None
        return list(found)
