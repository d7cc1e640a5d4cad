"""The watch: what a worker must know, read from Redis each second.

Wake-ups over pub/sub say the same sooner. Nothing depends on them: a worker that hears none obeys a
stop, goes on, and finds work and rates within about a second.

It reads: which apps have something in a ring, one set per lane; the state of the broadcasts of the
claims that may not be posted yet; and the rates of the apps that are held back. So what it costs
grows with the lanes and with what is being sent, and not with the apps or the broadcasts.
"""

import time
from collections.abc import Mapping

from producers.broadcasts.rates import Rates
from producers.settings import Settings
from producers.store import Client, keys
from producers.words import State
from workers.sending.gate import Gate
from workers.sending.stops import Stops
from workers.sending.turns import Turns


class Watch:
    """Looks for one worker; used by one thread at a time."""

    def __init__(
        self,
        client: Client,
        settings: Settings,
        turns: Turns,
        stops: Stops,
        gates: Mapping[str, Gate],
    ) -> None:
        self._client = client
        self._lanes = settings.lanes
        self._turns = turns
        self._stops = stops
        self._gates = gates
        self._rates = Rates(client, settings)

    def look(self) -> bool:
        """Look once.

        Returns:
            Whether there may be something to take.

        Raises:
            redis.RedisError, StoreUnavailableError: Redis did not answer; look again.
        """
        places = self._stops.places()
        pipeline = self._client.pipeline(transaction=False)
        for lane in range(self._lanes):
            pipeline.smembers(keys.busy(lane))
        for broadcast, lane in places:
            pipeline.hmget(keys.lane_broadcast(lane, broadcast), ["state", "verdict", "drop"])
        asked_at = time.monotonic()
        answers = pipeline.execute()
        for (broadcast, _), (state, verdict, drop) in zip(
            places, answers[self._lanes :], strict=True
        ):
            if state != State.RUNNING or verdict or drop:
                self._stops.stop(broadcast, asked_at)
        found = False
        for lane, apps in enumerate(answers[: self._lanes]):
            for app in apps:
                if app in self._gates:
                    found = True
                    self._turns.wake(app, lane)
        self._follow_rates()
        return found

    def _follow_rates(self) -> None:
        """Learn the rates of the apps that are held back: the others learn theirs as they send."""
        now = time.monotonic()
        held_back = [app for app in self._turns.apps(now) if self._gates[app].next_at > now]
        if not held_back:
            return
        for app, rate in self._rates.all(held_back).items():
            self._gates[app].set_rate(rate)
