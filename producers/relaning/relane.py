"""Relaning: more lanes for a deployment that lives, one lane after the other.

Each lane is divided into new ones, whose numbers no lane ever had (`settings.layout`):

1. It is announced: workers take nothing more from the lane, and settle what they have of it.
2. When nothing of it is in their hands, or 10 s later, it is shut: every script is refused there
   (`fence`), and it stays as it is, and can be read.
3. What a cancelled broadcast leaves in it is counted, as the keeper would.
4. All its keys are looked at once, and what they hold is copied to where it belongs (`dividing`).
5. The new lanes are counted, from what lies in them.
6. They are opened, by one command; whoever meets the old one learns of them.
7. What lay in the old one is taken away, when all that only read have looked anew.

The other lanes go on. Killed anywhere, it is run again with the same number, and goes on with the
lane that was on its way: it alone stands still until then. Whoever runs it last takes over at once,
and closes all older connections; of an earlier run that lives still each new one asks whose turn it
is (`fence.Turn`), and so does each step: it ends. The number is a multiple of the lanes that there
are. While slots of a cluster are resharded it waits.
"""

import contextlib
import time
from typing import Final

from producers import logs
from producers.errors import InvalidInputError, StoreUnavailableError
from producers.logs.events import LanesChanged, LanesChanging, StoreUnreachable
from producers.relaning.carrying import Bearer, check_rights, cut_off
from producers.relaning.change import Change
from producers.relaning.dividing import DIVIDED, WHOLE
from producers.relaning.leaving import COPIED, Leavings, Names
from producers.relaning.looking import Looks, Progress
from producers.relaning.moving import Mover, Relaned
from producers.relaning.places import Division
from producers.settings import Layout, Settings
from producers.settings.layout import FIELDS
from producers.store import Client, connect, is_cluster, keys
from producers.store.lanes.fence import OutlivedError
from producers.store.retry import LOST, pause_s

_TWICE: Final = 200_000
"""So many keys may lie where they were and where they are, when another lane is begun."""
_MOST: Final = 1024
_TRIES: Final = 15
"""So often it is tried to go on with a lane, where Redis is away: for half a minute, or so."""


class Relaner:
    """Gives a deployment more lanes.

    Args:
        client: Redis, not fenced (`store.connect`); no other of this process may be open.
        settings: its apps; its lanes are read from the deployment.
        on_progress: is told how far it is.
    """

    def __init__(
        self, client: Client, settings: Settings, on_progress: Progress = lambda _what, _n: None
    ) -> None:
        self._client = client
        self._given = settings
        self._settings = settings.model_copy()
        self._on_progress = on_progress
        self._shut_at: tuple[int, float] | None = None
        self._bearer = Bearer(client)
        self._change = Change(client, self._bearer)
        self._looks = Looks(client, self._change.hold, on_progress)
        self._mover = Mover(client, self._change.hold, self._looks, on_progress)
        self._leavings = Leavings(client, self._change, self._looks, self._bearer)

    def plan(self, lanes: int) -> Relaned:
        """Return what `run` would do; nothing is changed.

        Raises:
            InvalidInputError: as `run`.
            redis.RedisError: Redis did not answer.
        """
        layout, resumed = self._checked(lanes)
        found = Relaned(layout.count, lanes, resumed=resumed)
        if layout.count == lanes:
            return found
        old = range(layout.first + layout.divided, layout.first + layout.count)
        found.divided = len(old)
        for page in self._looks.pages(f"{keys.PREFIX}:{{[0-9]*"):
            for place in page:
                if place.lane in old:
                    found.keys += place.way in WHOLE
                    found.shared += place.way in DIVIDED
                    found.broadcasts += place.kind == "lane"
                    found.audiences += place.kind == "size"
                    found.stocks += place.kind == "stock"
        return found

    def run(self, lanes: int) -> Relaned:
        """Divide them; the same again after it was killed goes on.

        Raises:
            InvalidInputError: it is no multiple of what there is, does not divide the buckets, or a
                change to another number is under way; or another run has taken over.
            redis.RedisError: Redis did not answer for half a minute; run it again.
        """
        layout, resumed = self._checked(lanes)
        done = Relaned(layout.count, lanes, resumed=resumed)
        if layout.count == lanes:
            return done
        began = time.monotonic()
        check_rights(self._client)
        logs.emit(LanesChanging(layout.count, lanes, resumed))
        self._change.claim(layout.count)
        try:
            self._insist(lanes, done)
        except OutlivedError as error:
            raise InvalidInputError([str(error)]) from error
        done.took_s = round(time.monotonic() - began, 3)
        logs.emit(LanesChanged(done.before, done.after, done.keys, done.standstill_s))
        return done

    def _insist(self, lanes: int, done: Relaned) -> None:
        """Go on where a server was away, or another has taken over: a lane may stand still."""
        tries, divided = 0, -1
        while True:
            try:
                return self._go(lanes, done, again=tries > 0)
            except (*LOST, StoreUnavailableError) as error:
                tries = 1 if done.divided > divided else tries + 1
                divided = done.divided
                if tries > _TRIES or isinstance(error, OutlivedError):
                    raise
                logs.emit(StoreUnreachable("changing lanes", type(error).__name__, tries))
                time.sleep(pause_s(tries))

    def _go(self, lanes: int, done: Relaned, *, again: bool) -> None:
        """Divide what is not divided; raises as `run`."""
        apart = connect(self._settings, 1, role="cli", fenced=False)
        try:
            if again and self._change.has_ended(lanes):
                return
            self._settings = self._given.model_copy()  # a server may know of fewer lanes by now
            before, resumed = self._checked(lanes)
            layout = self._change.begin(before, lanes)
            self._change.hold_on_connect(apart)
            if resumed:
                cut_off(self._client)  # an earlier run may live still
                self._leavings.drop_old(layout)
            self._leavings.drop_unborn(layout)
            while layout.divided < layout.count:
                layout = self._divide_next(layout, done)
            self._leavings.drop_left(0)
            self._change.end(layout)
        finally:
            self._change.let_go()
            self._leavings.close()
            apart.connection_pool.disconnect()

    def _checked(self, lanes: int) -> tuple[Layout, bool]:
        """Return which lanes there are, and whether such a change is under way."""
        has = self._client.hgetall(keys.DEPLOYMENT)
        if not {"lanes", "buckets"} <= has.keys():
            raise InvalidInputError(["there is no deployment yet: set WXB_LANES before its birth"])
        layout = Layout.read({field: has.get(field) for field in FIELDS})
        if layout.towards and layout.towards != lanes:
            raise InvalidInputError(
                [f"a change to {layout.towards} lanes is under way: finish it first"]
            )
        if not is_cluster(self._client) and self._client.info("cluster").get("cluster_enabled"):
            raise InvalidInputError(
                ["this is a node of a cluster: set WXB_REDIS_URL to redis+cluster://host:port"]
            )
        faults = []
        if not layout.count <= lanes <= _MOST or lanes % layout.count:
            faults.append(
                f"lanes {lanes}: a multiple of the {layout.count} that there are, {_MOST} at most"
            )
        if lanes < 1 or layout.buckets % lanes:
            faults.append(f"lanes {lanes}: they must divide the {layout.buckets} buckets evenly")
        if faults:
            raise InvalidInputError(faults)
        return layout, layout.towards > 0

    def _divide_next(self, layout: Layout, done: Relaned) -> Layout:
        self._leavings.drop_left(_TWICE)
        division = Division(layout, layout.divided)
        if self._shut_at is None or self._shut_at[0] != division.lane:
            self._shut_at = division.lane, time.monotonic()
        counts, towards = layout.counts, layout.towards
        self._settings.live_in(layout)
        shut = Layout(layout.buckets, counts, towards, layout.divided, shut=True)
        self._change.write(shut)
        self._mover.await_flights(division.lane)
        guard = keys.shut(division.lane)
        is_copied = self._client.get(guard) == COPIED  # and perhaps was opened, which is forgotten
        if not is_copied:
            self._client.set(guard, "1")
            self._bearer.await_replicas()
            self._mover.settle_drops(self._settings, division.lane)
        with contextlib.ExitStack() as unless_opened:
            names = unless_opened.enter_context(Names())
            if is_copied:
                for page in self._looks.pages(f"{keys.lane_prefix(division.lane)}*"):
                    names.add([place.name for place in page if place.name != guard])
            else:
                self._mover.divide(division, done, names)
                self._bearer.await_replicas()
                self._bearer.await_disks()
                self._change.hold_all()
                self._client.set(guard, COPIED)
                self._bearer.await_replicas()
            opened = Layout(layout.buckets, counts, towards, layout.divided + 1)
            self._change.write(opened)
            cut_off(self._client, ("producer", "cli"))
            stood_s = time.monotonic() - self._shut_at[1]
            self._leavings.add(names)
            unless_opened.pop_all()
        done.standstill_s = max(done.standstill_s, round(stood_s, 3))
        done.divided += 1
        self._on_progress("lanes", opened.divided)
        return opened
