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
import tempfile
import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, Final, NamedTuple, Self, TypeVar

import orjson

from producers import logs
from producers.broadcasts import Broadcasts
from producers.errors import InvalidInputError, StoreUnavailableError
from producers.logs.events import LanesChanged, LanesChanging, StoreUnreachable
from producers.relaning.carrying import Bearer, check_rights, cut_off
from producers.relaning.counting import Recounter
from producers.relaning.dividing import DIVIDED, WHOLE, Divider
from producers.relaning.places import Division, Place
from producers.settings import Layout, Settings
from producers.settings.layout import FIELDS
from producers.store import Client, connect, is_cluster, keys
from producers.store.lanes.fence import OutlivedError, ServerChangedError, Turn
from producers.store.lanes.layout import NUMBERED
from producers.store.retry import LOST, pause_s
from producers.store.scripts import new_token
from producers.words import ENDED

_RUNNER: Final = "relaner"
"""Field of `keys.DEPLOYMENT`: which run changes the lanes; the last one that began."""
_DRAIN_S: Final = 10.0
"""What is in flight is waited for so long: a POST takes at most 6.5 s."""
_COPIED: Final = "copied"
"""What `keys.shut` holds from when all of a lane was copied on: it may be opened, not copied anew,
for the new lanes may have gone on, though the node that was told of it has forgotten that."""
_READERS_S: Final = 3.0
"""Who only reads has looked anew after so long: it does so each second (`fence`)."""
_TWICE: Final = 200_000
"""So many keys may lie where they were and where they are, when another lane is begun."""
_LOOK_S: Final = 0.05
_PAGE: Final = 1000
"""Keys of one look."""
_MOST: Final = 1024
_TRIES: Final = 15
"""So often it is tried to go on with a lane, where Redis is away: for half a minute, or so."""
_OVERTAKEN: Final = "another `wxbroadcast lanes` began later, and goes on with it: look at that one"
_WAITS: Final = ("- ", "aside ")
"""How an entry of `keys.flight` begins that is in no worker's hands."""

T = TypeVar("T")
Progress = Callable[[str, int], None]
"""Called with what is being done, and how much of it was."""


@dataclass
class Relaned:
    """What was done, or is to be.

    Attributes:
        before, after: lanes.
        divided: lanes that were divided, of this run.
        keys: that went whole to another lane.
        shared: keys of which each lane got its share.
        broadcasts, audiences, stocks: counted anew, one for each old lane.
        strange: keys that hold what nobody of us put there; they are left where they were.
        standstill_s: for how long nothing was sent or stored in the lane where it took longest.
        took_s: how long all of it took.
        resumed: an earlier run was killed, and this one went on.
    """

    before: int
    after: int
    divided: int = 0
    keys: int = 0
    shared: int = 0
    broadcasts: int = 0
    audiences: int = 0
    stocks: int = 0
    strange: list[str] = field(default_factory=list)
    standstill_s: float = 0.0
    took_s: float = 0.0
    resumed: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready fields."""
        return asdict(self)


@dataclass
class _Counted:
    """What of a lane is to be counted anew; and the slots of those who go first."""

    homes: set[str] = field(default_factory=set)
    broadcasts: set[str] = field(default_factory=set)
    audiences: set[tuple[str, str]] = field(default_factory=set)
    stocks: set[str] = field(default_factory=set)
    slots: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def note(self, place: Place) -> None:
        """Note a key, where it is one of these."""
        rest = place.rest.partition(":")[2]
        if place.kind == "soon":
            broadcast, _, slot = rest.rpartition(":")
            self.slots[broadcast].add(slot)
        elif place.kind == "home":
            self.homes.add(rest)
        elif place.kind == "lane":
            self.broadcasts.add(rest)
        elif place.kind == "size":
            app, _, name = rest.partition(":")
            self.audiences.add((app, name))
        elif place.kind == "stock":
            self.stocks.add(rest)


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
        self._token = ""
        self._before = 0
        self._began_on: dict[str, str] = {}
        self._shut_at: tuple[int, float] | None = None
        self._ending = False
        self._turn: Turn = client.connection_pool.connection_kwargs["fence"]
        self._bearer = Bearer(client)
        self._left: deque[_Left] = deque()

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
        for page in self._pages(f"{keys.PREFIX}:{{[0-9]*"):
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
        self._token, self._before = new_token(), layout.count
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
            if again and self._ended(lanes):
                return
            self._settings = self._given.model_copy()  # a server may know of fewer lanes by now
            before, resumed = self._checked(lanes)
            self._began_on = self._servers(self._client)
            layout = self._begin(before, lanes)
            self._turn.held = lambda: self._hold_all(apart)
            if resumed:
                cut_off(self._client)  # an earlier run may live still
                self._drop_old(layout)
            self._drop_unborn(layout)
            while layout.divided < layout.count:
                layout = self._divide_next(layout, done)
            self._drop_left(0)
            self._end(layout)
        finally:
            self._turn.held = None
            while self._left:
                self._left.popleft().names.close()
            apart.connection_pool.disconnect()

    def _ended(self, lanes: int) -> bool:
        """Say whether this run ended it, and did not hear so.

        Raises:
            OutlivedError: another run goes on with it, or has ended it.
        """
        runner, count = self._client.hmget(keys.DEPLOYMENT, [_RUNNER, "lanes"])
        is_whole = count == str(lanes)
        if runner not in {None, self._token} or (is_whole and not self._ending):
            raise OutlivedError(_OVERTAKEN)
        return bool(is_whole)

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

    # -- whose turn it is -------------------------------------------------------------------

    def _begin(self, before: Layout, lanes: int) -> Layout:
        """Announce it, and take over from any run that is under way."""
        mine = {"relaning": str(lanes), _RUNNER: self._token, "layout": str(NUMBERED)}
        self._client.hset(keys.DEPLOYMENT, mapping=mine)
        has = self._client.hgetall(keys.DEPLOYMENT)
        if int(has["lanes"]) != before.count:  # another has ended it
            self._client.hdel(keys.DEPLOYMENT, "relaning", _RUNNER)
        self._hold()
        return Layout.read({field: has.get(field) for field in FIELDS})

    def _hold(self, client: Client | None = None) -> None:
        """Check that no other run has taken over.

        Raises:
            OutlivedError: one has, and goes on with it, or has ended it.
            ServerChangedError: Redis has forgotten that lanes are being changed.
        """
        if not self._token:
            return
        runner, count = (client or self._client).hmget(keys.DEPLOYMENT, [_RUNNER, "lanes"])
        if runner is None and count == str(self._before):
            raise ServerChangedError("Redis forgot that lanes are being changed: run it again")
        if runner != self._token:
            raise OutlivedError(_OVERTAKEN)

    def _hold_all(self, client: Client | None = None) -> None:
        """Check that it is its turn, and that the servers are those that it began on.

        Another one may lack what was copied last, and go back to what there was before.

        Raises:
            OutlivedError: another run has taken over.
            ServerChangedError: a server was started anew, or another one has taken over.
        """
        self._hold(client)
        now = self._servers(client or self._client)
        for where, run in self._began_on.items():
            if now.get(where) != run:
                raise ServerChangedError(
                    f"{where} was started anew or replaced, and may lack what was copied: run it"
                    " again, and it goes on"
                )

    @staticmethod
    def _servers(client: Client) -> dict[str, str]:
        """Return the `run_id` of each server that may be written to."""
        across = is_cluster(client)
        nodes = client.nodes() if across else {None: client}
        found = {}
        for place, node in nodes.items():
            if node.info("replication")["role"] == "master":
                where = "Redis" if place is None else "node {}:{}".format(*place)
                found[where] = str(node.info("server")["run_id"])
        return found

    def _write(self, layout: Layout) -> None:
        """Let all know of a layout."""
        self._hold_all()
        fields = layout.written()
        gone = [name for name, value in fields.items() if not value]
        gone += [] if layout.towards else [_RUNNER]
        pipeline = self._client.pipeline(transaction=True)
        pipeline.hset(keys.DEPLOYMENT, mapping={n: v for n, v in fields.items() if v})
        if gone:
            pipeline.hdel(keys.DEPLOYMENT, *gone)
        pipeline.execute()
        if not layout.towards:
            self._turn.held = None
        self._bearer.await_replicas()
        self._client.publish(keys.WAKE, "lanes")  # an edge: they look each second

    def _end(self, layout: Layout) -> None:
        self._ending = True
        self._write(Layout(layout.buckets, [*layout.counts, layout.towards]))

    # -- one lane ---------------------------------------------------------------------------

    def _divide_next(self, layout: Layout, done: Relaned) -> Layout:
        self._drop_left(_TWICE)
        division = Division(layout, layout.divided)
        if self._shut_at is None or self._shut_at[0] != division.lane:
            self._shut_at = division.lane, time.monotonic()
        counts, towards = layout.counts, layout.towards
        self._settings.live_in(layout)
        shut = Layout(layout.buckets, counts, towards, layout.divided, shut=True)
        self._write(shut)
        self._await_flights(division.lane)
        guard = keys.shut(division.lane)
        is_copied = self._client.get(guard) == _COPIED  # and perhaps was opened, which is forgotten
        if not is_copied:
            self._client.set(guard, "1")
            self._bearer.await_replicas()
            self._settle_drops(division.lane)
        with contextlib.ExitStack() as unless_opened:
            names = unless_opened.enter_context(_Names())
            if is_copied:
                for page in self._pages(f"{keys.lane_prefix(division.lane)}*"):
                    names.add([place.name for place in page if place.name != guard])
            else:
                self._divide(division, done, names)
                self._bearer.await_replicas()
                self._bearer.await_disks()
                self._hold_all()
                self._client.set(guard, _COPIED)
                self._bearer.await_replicas()
            opened = Layout(layout.buckets, counts, towards, layout.divided + 1)
            self._write(opened)
            cut_off(self._client, ("producer", "cli"))
            now = time.monotonic()
            self._left.append(_Left(names, now + _READERS_S))
            unless_opened.pop_all()
        done.standstill_s = max(done.standstill_s, round(now - self._shut_at[1], 3))
        done.divided += 1
        self._on_progress("lanes", opened.divided)
        return opened

    def _await_flights(self, lane: int) -> None:
        """Wait until nothing of a lane is in a worker's hands."""
        until = time.monotonic() + _DRAIN_S
        while self._is_flying(lane) and time.monotonic() < until:
            time.sleep(_LOOK_S)

    def _is_flying(self, lane: int) -> bool:
        for broadcast in self._client.smembers(keys.flying(lane)):
            for entry in self._client.hvals(keys.flight(lane, broadcast)):
                if not entry.startswith(_WAITS):
                    return True
        return False

    def _settle_drops(self, lane: int) -> None:
        """Bring a lane what it has not heard of, and count what was dropped there."""
        broadcasts = Broadcasts(self._client, self._settings)
        apps = sorted({*self._settings.apps, *self._client.zrange(keys.APPS, 0, -1)})
        # one that is in no settings any more has its broadcasts too
        pages = self._asked(apps, lambda one, app: one.zrange(keys.active(app), 0, -1))
        ids = [broadcast for page in pages for broadcast in page]
        homes = self._asked(
            ids,
            lambda one, broadcast: one.hmget(
                keys.home(self._settings.layout.home_of(broadcast), broadcast),
                ["state", "drop", "generation"],
            ),
        )
        copies = self._asked(
            ids,
            lambda one, broadcast: one.hmget(
                keys.lane_broadcast(lane, broadcast), ["generation", "sweeping"]
            ),
        )
        for broadcast, (state, drop, generation), (known, sweeping) in zip(
            ids, homes, copies, strict=True
        ):
            is_behind = known != generation or sweeping is not None
            if state is not None and (drop or state in ENDED) and is_behind:
                self._hold()
                broadcasts.bring(broadcast, lane)

    def _asked(self, what: Sequence[T], ask: Callable[[Any, T], object]) -> Iterator[Any]:
        """Yield the answer to a question about each, some in one trip."""
        for start in range(0, len(what), _PAGE):
            pipeline = self._client.pipeline(transaction=False)
            for one in what[start : start + _PAGE]:
                ask(pipeline, one)
            yield from pipeline.execute()

    def _divide(self, division: Division, done: Relaned, names: "_Names") -> None:
        """Copy all of a lane to the new ones, and count it there.

        Args:
            division: into which.
            done: grows.
            names: given those of the lane's keys.
        """
        divider = Divider(self._client, division)
        whole = False
        while not whole:
            before = done.keys, done.shared
            counted = _Counted()
            names.clear()
            served = self._served()
            for page in self._pages(f"{keys.lane_prefix(division.lane)}*"):
                done.keys += divider.copies(page)
                self._on_progress("keys", done.keys)
                for place in page:
                    counted.note(place)
                shared, strange = divider.divide([one for one in page if one.way in DIVIDED])
                done.shared += shared
                done.strange += [name for name in strange if name not in done.strange]
                left = {keys.shut(division.lane), *done.strange}
                names.add([place.name for place in page if place.name not in left])
            whole = served == self._served()  # else a slot has gone where all was seen already
            if not whole:
                done.keys, done.shared = before
        recounter = Recounter(self._client, division)
        self._hold()
        recounter.broadcasts({one: counted.slots[one] for one in counted.broadcasts})
        recounter.homes(counted.homes)
        self._hold()
        recounter.sizes(counted.audiences)
        recounter.stocks(counted.stocks)
        done.broadcasts += len(counted.broadcasts)
        done.audiences += len(counted.audiences)
        done.stocks += len(counted.stocks)

    # -- what is left behind ----------------------------------------------------------------

    def _drop_left(self, most: int) -> None:
        """Take away what lay in lanes that were divided, once nobody reads it any more.

        Args:
            most: so many keys may stay, for now.
        """
        while self._left:
            first = self._left[0]
            wait_s = first.at - time.monotonic()
            if wait_s > 0 and sum(len(one.names) for one in self._left) <= most:
                return
            time.sleep(max(0.0, wait_s))
            self._hold_all()
            self._bearer.drop(first.names)
            self._left.popleft().names.close()

    def _drop_old(self, layout: Layout) -> None:
        """Take away what a run left that was killed: all of lanes that were divided."""
        gone = set(range(layout.first + layout.divided))
        if not gone:
            return
        time.sleep(_READERS_S)
        for page in self._pages(f"{keys.PREFIX}:{{[0-9]*"):
            self._hold()
            for lane in gone & {place.lane for place in page}:
                self._bearer.drop(
                    place.name for place in page if place.lane == lane and place.kind != "shut"
                )

    def _drop_unborn(self, layout: Layout) -> None:
        """Take away what lies in lanes that are not there yet.

        A killed run left it, or, where Redis forgot lanes, a process that still knew of them. What
        was whole, and perhaps went on since, stays (`_COPIED`).
        """
        left = range(layout.divided, layout.count)
        guards = self._asked(left, lambda one, number: one.get(keys.shut(layout.first + number)))
        stay = {*layout.lanes}
        for number, guard in zip(left, guards, strict=True):
            stay.update(layout.children(number) if guard == _COPIED else ())
        for page in self._pages(f"{keys.PREFIX}:{{[0-9]*"):
            for lane in {place.lane for place in page} - stay:
                if lane >= layout.first + layout.count:
                    self._hold()
                    self._bearer.drop(place.name for place in page if place.lane == lane)

    # -- looking ----------------------------------------------------------------------------

    def _pages(self, match: str) -> Iterator[list[Place]]:
        """Yield keys of lanes, some at a time."""
        found = self._client.scan_iter(match=match, count=_PAGE)
        while names := list(islice(found, _PAGE)):
            if self._token:
                self._hold()
            yield [place for name in names if (place := Place.of(name)) and place.way]

    def _served(self) -> list[dict[str, Any]]:
        """Return who serves which slots of a cluster, once none of them is on its way."""
        while is_cluster(self._client):
            nodes = self._client.nodes().values()
            told = [_own(node.execute_command("CLUSTER NODES")) for node in nodes]
            under_way = sum(len(one["migrations"]) for one in told)
            if not under_way:
                return told
            self._on_progress("slots that are resharded", under_way)
            time.sleep(_LOOK_S)
        return []


class _Names:
    """The names of a lane's keys, on the disk: there may be millions."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  (see `close`)
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        self._file.seek(0)
        return map(orjson.loads, self._file)

    def add(self, names: Collection[str]) -> None:
        self._file.writelines(orjson.dumps(name) + b"\n" for name in names)
        self._count += len(names)

    def clear(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._count = 0

    def close(self) -> None:
        self._file.close()


class _Left(NamedTuple):
    """What lies in a lane that was divided; from `at` on (monotonic s) nobody reads it."""

    names: _Names
    at: float


def _own(told: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return what a node says of itself: its id, its slots, and those that are on their way."""
    [own] = [one for one in told.values() if "myself" in one["flags"]]
    return {field: own[field] for field in ("node_id", "slots", "migrations")}
