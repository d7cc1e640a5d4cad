"""The keeper: the level-triggered duties of a lane, each second, by whichever worker holds it.

No lost message or killed process can leave a broadcast behind: every duty looks at what is and
brings it forward, and doing one twice changes nothing. Jobs and wake-ups only make it sooner.
"""

from typing import Final

from producers import keys, logs, scripts
from producers.broadcasts import Broadcasts
from producers.errors import IllegalMoveError, NotFoundError
from producers.events import DutyFailed, PermitsExpired
from producers.settings import Settings
from producers.split import Splitter
from producers.store import Client
from producers.words import ENDED, State
from workers.copies import Copies

LEASE_MS: Final = 3000
_PROMOTED: Final = 1000
"""Delayed messages promoted by one script run."""

_REASONS: Final = {
    "abort": "WeChat refuses this message for everybody",
    "pause": "refusals in a row: check the appid, the audience and the template",
}
_OVER_BUDGET: Final = "over the error budget: too many of the last answers failed"

_SPLIT: Final = {"done", "mail"}
"""Of a lane's copy: all that it will have so far is queued."""

_MET: Final = ("template_errors", "refusals", "unknowns")
"""What a canary has met, in a lane's copy."""

_ORPHAN_MS: Final = 3_600_000
"""An id that was listed and whose home never came is forgotten after an hour."""


class Keeper:
    """Looks after lanes; used by one thread at a time."""

    def __init__(
        self, client: Client, settings: Settings, broadcasts: Broadcasts, worker: str
    ) -> None:
        self._client = client
        self._settings = settings
        self._broadcasts = broadcasts
        self._splitter = Splitter(client, settings)
        self._promote = client.register_script(scripts.source("workers", "promote"))
        self._trim = client.register_script(scripts.source("workers", "trim"))
        self._pace = client.register_script(scripts.source("producers", "pace"))
        self._lease = client.register_script(scripts.source("workers", "hold"))
        self._copies = Copies(client)
        self._worker = worker

    def run_once(self) -> None:
        """Do the duties of every lane that this worker holds or can take.

        Never raises: a failed duty is logged, and runs again in a second.
        """
        for lane in range(self._settings.lanes):
            try:
                if self._hold(lane):
                    self._keep(lane)
            except Exception as error:  # noqa: BLE001  (the other lanes go on)
                logs.emit(DutyFailed("hold", lane, type(error).__name__))

    def _hold(self, lane: int) -> bool:
        held = self._lease(keys=[keys.keeper(lane)], args=[self._worker, LEASE_MS])
        return bool(held)

    def _keep(self, lane: int) -> None:
        for app in self._settings.apps:
            expired = self._trim(
                keys=[keys.stock(lane, app), keys.ledger(lane, app)], args=["", ""]
            )
            if expired:
                logs.emit(PermitsExpired(app, lane, expired))
            for broadcast in self._client.zrange(keys.active(app), 0, -1):
                try:
                    self._keep_broadcast(app, broadcast, lane)
                except Exception as error:  # noqa: BLE001  (the other broadcasts go on)
                    logs.emit(DutyFailed("keep", lane, f"{type(error).__name__} ({broadcast})"))

    def _keep_broadcast(self, app: str, broadcast: str, lane: int) -> None:
        """Adopt, promote and split in this lane; at its home, judge, hand over, expire, finish."""
        home_lane = self._broadcasts.home_lane(broadcast)
        home = self._client.hmget(
            keys.home(home_lane, broadcast),
            ["state", "generation", "expires_at_ms", "drop", "canary_lane"],
        )
        state, generation, expires_at_ms, drop, canary_lane = home
        if state is None:
            if lane == home_lane:
                self._forget_orphan(app, broadcast)
            return
        lane_key = keys.lane_broadcast(lane, broadcast)
        mine, verdict, sweeping = self._client.hmget(
            lane_key, ["generation", "verdict", "sweeping"]
        )
        if mine is None or int(mine) < int(generation) or sweeping is not None:
            self._broadcasts.adopt(broadcast)
        elif verdict:
            self.obey(broadcast, verdict)
        self._promote_due(broadcast, lane)
        self._splitter.fill(broadcast, lane)
        if state == State.RUNNING:
            self._pace(keys=[lane_key, keys.pace(lane, broadcast)], args=["", ""])
        if lane != home_lane:
            return
        if state not in ENDED and drop != "late" and int(expires_at_ms) <= self._now_ms():
            self._expire(broadcast)
        self._open(app, broadcast, int(canary_lane))
        if self._broadcasts.finish(broadcast):
            self._client.zrem(keys.active(app), broadcast)

    def obey(self, broadcast: str, verdict: str) -> None:
        """Bring a lane's verdict (``abort 40037``, ``pause 43101``) to the whole broadcast.

        Carriers are paused at the worst, all of the day's together: messages wait for an operator,
        or until they are late, and no further one is posted (post.lua).
        """
        move, _, errcode = verdict.partition(" ")
        reason = _REASONS[move] if int(errcode) else _OVER_BUDGET
        if keys.is_carrier(broadcast):
            move = "pause"
        for one in (broadcast, *self._broadcasts.siblings(broadcast)):
            try:
                self._broadcasts.move(one, move, reason, int(errcode))
            except (IllegalMoveError, NotFoundError):
                continue  # somebody was faster, or the operator was

    def _promote_due(self, broadcast: str, lane: int) -> None:
        self._promote(
            keys=[
                keys.lane_broadcast(lane, broadcast),
                keys.delayed(lane, broadcast),
                keys.queue(lane, broadcast),
            ],
            args=[
                "",
                "",
                broadcast,
                _PROMOTED,
                self._broadcasts.ttl_ms,
                keys.lane_prefix(lane),
            ],
        )

    def _expire(self, broadcast: str) -> None:
        try:
            self._broadcasts.move(broadcast, "expire", "expired")
        except (IllegalMoveError, NotFoundError):
            return

    def _open(self, app: str, broadcast: str, canary_lane: int) -> None:
        """After the first delivery open every lane; move a canary on whose lane is used up.

        It takes along what it met: K errors over all lanes pass the verdict in the last one.
        """
        lanes = range(self._settings.lanes)
        pipeline = self._client.pipeline(transaction=False)
        for lane in lanes:
            pipeline.hmget(
                keys.lane_broadcast(lane, broadcast),
                ["open", "split", "done", "total", "state", *_MET],
            )
        copies = pipeline.execute()
        if any(copy[0] == "1" for copy in copies):
            self.open_lanes(app, broadcast, [lane for lane in lanes if copies[lane][0] == "0"])
            return
        _, split, done, total, state, *met = copies[canary_lane]
        used_up = split in _SPLIT and int(done) >= int(total) and state == "running"
        waiting = [
            lane
            for lane in lanes
            if lane != canary_lane
            and not (copies[lane][1] in _SPLIT and copies[lane][2] == copies[lane][3])
        ]
        if not used_up or not waiting:
            return
        self._copies.give_canary(app, broadcast, canary_lane, 0)
        errors = [int(number or 0) for number in met]
        if not self._copies.give_canary(app, broadcast, waiting[0], self._settings.canary, errors):
            return  # it has not adopted the broadcast yet: again in a second
        self._client.hset(
            keys.home(self._broadcasts.home_lane(broadcast), broadcast),
            "canary_lane",
            str(waiting[0]),
        )

    def open_lanes(self, app: str, broadcast: str, lanes: list[int]) -> None:
        """Let the flood into these lanes: somewhere a message was delivered."""
        for lane in lanes:
            self._copies.open(app, broadcast, lane)

    def _forget_orphan(self, app: str, broadcast: str) -> None:
        listed_at = self._client.zscore(keys.active(app), broadcast)
        if listed_at is not None and self._now_ms() - listed_at > _ORPHAN_MS:
            self._client.zrem(keys.active(app), broadcast)

    def _now_ms(self) -> int:
        seconds, micros = self._client.time()
        return int(seconds) * 1000 + int(micros) // 1000
