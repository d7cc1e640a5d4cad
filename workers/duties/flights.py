"""Looking at what is in flight: what belongs to nobody who lives goes back to work.

A dead peer's messages are recovered when its beat has stood still for a whole lease. Every few
seconds, by level, comes a look for *orphans* and for what this worker has *forgotten*; see
`recover`. What is in hand is known by the lane in which it was taken, and lies in one that this was
divided into since: so it is looked for among the claims of all the lanes that a lane came from.
"""

import time
from collections.abc import Callable, Collection
from typing import Final

import redis

from producers import logs
from producers.errors import StoreUnavailableError
from producers.logs.events import ClaimsForgotten, MessagesRecovered, WorkerBuried
from producers.store.lanes.fence import is_refusal
from workers.duties.epochs import Epochs
from workers.duties.peers import Peers
from workers.duties.recover import Entry, Recoverer, forgotten
from workers.sending.claim import Claim
from workers.sending.hands import Hands

EVERY_S: Final = 3.0

Claims = Callable[[list[Claim]], None]


class Flights:
    """Looks for one worker.

    Args:
        recoverer: reads what is in flight, and takes it back.
        epochs: says since when the server may have forgotten.
        peers: who lives, and what time it is.
        worker: this worker's id.
        hands: what is in hand.
        take_unknown: says of lanes whether a take is under way whose claims are not known yet.
        hand_back: given claims that were surely never posted, from any thread.
        give_up: given those that may have been.
    """

    name = "look at flights"

    def __init__(
        self,
        recoverer: Recoverer,
        epochs: Epochs,
        peers: Peers,
        worker: str,
        hands: Hands,
        take_unknown: Callable[[Collection[int]], bool],
        hand_back: Claims,
        give_up: Claims,
    ) -> None:
        self._recoverer = recoverer
        self._epochs = epochs
        self._peers = peers
        self._worker = worker
        self._hands = hands
        self._take_unknown = take_unknown
        self._hand_back = hand_back
        self._give_up = give_up
        self._next_at = float("-inf")
        self._burying = ""

    def due(self, now: float) -> bool:
        """Say whether it is time."""
        return now >= self._next_at

    def run(self) -> None:
        """Look once.

        Raises:
            redis.RedisError, StoreUnavailableError: Redis did not answer; the next look finds it.
        """
        self._next_at = time.monotonic() + EVERY_S
        self._in_each_place(self._look)

    def _look(self, app: str, broadcast: str, lane: int) -> None:
        entries = self._recoverer.entries(broadcast, lane)
        if not entries:
            return
        now_ms = round(self._peers.server_time() * 1000) - self._recoverer.clocks_apart_ms
        for dead in self._recoverer.orphans(entries, now_ms):
            self._recover_in(app, broadcast, lane, dead)
        taken_in = self._recoverer.layout.ancestors(lane)
        if not self._take_unknown(taken_in):  # else its claims would look like forgotten ones
            lost = forgotten(entries, self._worker, set(self._hands.fences(taken_in)), now_ms)
            self._return(lost, app, broadcast, lane)

    def _in_each_place(self, what: Callable[[str, str, int], None]) -> bool:
        """Do something wherever something is in flight; what one node fails stops no other's.

        Returns:
            Whether that is everywhere: no lane was divided meanwhile, or is being divided.

        Raises:
            redis.RedisError, StoreUnavailableError: of the first place that failed, at the end.
        """
        failed: list[Exception] = []
        whole, layout = True, self._recoverer.layout
        for app, broadcast, lane in self._recoverer.places(failed):
            try:
                what(app, broadcast, lane)
            except (redis.RedisError, StoreUnavailableError) as error:
                if is_refusal(error):
                    whole = False
                    continue
                if not self._recoverer.apart:
                    raise
                failed.append(error)
        if failed:
            raise failed[0]
        return whole and self._recoverer.layout == layout

    def recover(self, peer: str, silent_ms: int) -> None:
        """Take back all that a dead peer had in flight, and have it buried.

        While a lane is being divided it is not buried yet: what it had there comes to light later.

        Raises:
            redis.RedisError, StoreUnavailableError: Redis did not answer; it is not buried yet, and
                so told dead again.
        """
        if self._burying != peer:
            self._burying = peer
            logs.emit(WorkerBuried(self._worker, peer, silent_ms))
        if self._in_each_place(
            lambda app, broadcast, lane: self._recover_in(app, broadcast, lane, peer)
        ):
            self._peers.bury(peer)  # all that it held is back: should this fail, it is tried again
            self._burying = ""

    def _recover_in(self, app: str, broadcast: str, lane: int, dead: str) -> None:
        self._epochs.begin()  # after a restart what seems unmarked may have been posted
        found = self._recoverer.recover(app, broadcast, lane, dead)
        if any(found):
            logs.emit(MessagesRecovered(broadcast, lane, dead, *found))

    def _return(self, lost: list[Entry], app: str, broadcast: str, lane: int) -> None:
        """Give back what lies under this worker's name and not in its hands.

        It was never posted: whatever was posted is in hand until it is settled. Only a Redis that
        was restarted may have forgotten a settle.
        """
        if not lost:
            return
        changed_ms = self._epochs.changed_at_ms
        unsent = [e.claim(app, lane, broadcast) for e in lost if e.since_ms > changed_ms]
        unsure = [e.claim(app, lane, broadcast) for e in lost if e.since_ms <= changed_ms]
        logs.emit(ClaimsForgotten(self._worker, broadcast, lane, len(unsent), len(unsure)))
        self._hand_back(unsent)
        self._give_up(unsure)
