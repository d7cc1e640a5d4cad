"""Epochs: what a restarted Redis may have forgotten is treated as in doubt (I3).

Every connection over which a worker takes, settles or beats first compares the server's ``run_id``
with the one that the deployment last ran on. When they differ (a restart, a failover, a restored
backup) the connection is refused, nothing is done, and a new epoch begins: each running broadcast
is marked in every lane as *unsure*, so that from then on an answer to a first attempt that says no
more than "this permit was used" means "perhaps by this very broadcast", in doubt, rather than "take
the next permit" or "refused" (see `sending.verdict`); and fence tokens jump ahead of all that may
have been given out. So is a broadcast that has ended and of which a lane still holds something:
how it came to its end may be forgotten there, and known elsewhere. When more than ten minutes may
be forgotten (an old backup) running broadcasts are paused and wait for ``resume --after-restore``.

How much may be forgotten. A worker that lives through it compares: its last beat that the old run
acknowledged, with the last beat that the new run knows of. A worker that has just started knows
nothing of before; it takes the time from the last beat that Redis knows of until this run of Redis
started, or nothing when the workers had all left by then, with nothing in their hands: a planned
stop pauses nothing, however long it lasts.

What it cannot know: with ``appendfsync everysec`` a crash forgets up to the last two seconds.
Whoever was sent a subscription or prepay_id message in them may be sent another one; a form_id
broadcast reaches nobody twice even then: whose form_id proves used in the 8 days after it is noted
(`doubted.lua`), and sent nothing of what ran.

This is of one server, and of a primary that sentinels name; of a cluster see `nodes`.

If the process dies in the middle, the old run_id still stands, and the next worker does it again.

A lane that is being divided is marked like the others, and after it those that it is divided into:
however far that is, they have the marks once they are open.
"""

import threading
from collections.abc import Collection, Iterable, Iterator
from datetime import timedelta
from typing import Any, Final

import redis

from producers import logs
from producers.broadcasts import Broadcasts
from producers.broadcasts.lifecycle import RESTORED
from producers.broadcasts.spec import MAX_LIFE
from producers.errors import (
    IllegalMoveError,
    LaneDividedError,
    NotFoundError,
    WxbroadcastError,
)
from producers.logs.events import ServerChanged
from producers.series import Series
from producers.settings import Settings, ms
from producers.store import Client, keys, lend
from producers.store.clock import now_ms
from producers.store.lanes.layout import follow
from producers.store.primary import NotDoneError
from producers.words import ENDED, State
from workers.lanes.copies import Copies

GAP_MS: Final = 600_000
_FENCES: Final = 1_000_000
"""More fence tokens than all workers together take in the seconds that may be forgotten."""
_NOTED_MS: Final = ms(MAX_LIFE + timedelta(days=1))
"""How long is noted whose permit proves used: no broadcast of before lives longer."""


_SAMPLE: Final = 3
"""Connections that are made at once, to see whether they lead to one server."""


class SeveralServersError(WxbroadcastError):
    """WXB_REDIS_URL leads to another server with each connection."""

    def __init__(self) -> None:
        super().__init__(
            "WXB_REDIS_URL leads to several servers: connections made at once have different run "
            "ids, so nobody could tell when Redis was restarted; give the address of one primary"
        )


class ServerChangedError(NotDoneError):
    """The connection leads to a server of another run; nothing was asked of it."""


class Epochs:
    """Watches over which server this is."""

    name = "begin an epoch"

    def __init__(self, client: Client, settings: Settings, broadcasts: Broadcasts) -> None:
        self._client = client
        self._settings = settings
        self._broadcasts = broadcasts
        self._copies = Copies(client)
        self._series = Series(client, settings)
        self._server = ""
        self._acknowledged_ms = 0
        self._first_ms = 0
        self._beginning = threading.Lock()
        self.changed_at_ms = 0
        """When this process saw the server change (server epoch ms); 0 while it has not."""

    def guard(self, client: Client) -> None:
        """Let a client connect only to the server of the current epoch, as this process knows it.

        Its connections raise `ServerChangedError` otherwise, until `begin` has run.
        """

        def check(connection: Any) -> None:
            connection.on_connect()
            connection.send_command("INFO", "server", check_health=False)
            info = connection.read_response()
            connection.send_command("GET", keys.SERVER, check_health=False)
            self._compare(info, connection.read_response())

        client.connection_pool.connection_kwargs["redis_connect_func"] = check

    def guard_async(self, client: Client) -> None:
        """As `guard`, for an event loop's client: even a beat would hide how long all were away."""

        async def check(connection: Any) -> None:
            await connection.on_connect()
            await connection.send_command("INFO", "server", check_health=False)
            info = await connection.read_response()
            await connection.send_command("GET", keys.SERVER, check_health=False)
            self._compare(info, await connection.read_response())

        client.connection_pool.connection_kwargs["redis_connect_func"] = check

    def acknowledged(self, at_ms: int) -> None:
        """Remember that the server acknowledged a beat of this process at that time (its own)."""
        self._acknowledged_ms = at_ms
        self._first_ms = self._first_ms or at_ms

    def due(self, now: float) -> bool:  # noqa: ARG002
        """Say yes: it asks the server which one it is."""
        return True

    def run(self) -> None:
        """As `begin`."""
        self.begin()

    def begin(self) -> None:
        """Begin a new epoch if the server is another one than the deployment last ran on.

        The keeper's thread calls it, and whoever met the change; one of them begins it.

        Raises:
            SeveralServersError: connections made at once lead to different servers.
            redis.RedisError, StoreUnavailableError: Redis did not answer; call it again.
        """
        with self._beginning:
            self._begin()

    def _begin(self) -> None:
        if not self._server:
            self._check_one_server()
        info = self._client.info("server")
        server = info["run_id"]
        last = self._client.get(keys.SERVER)
        if last == server and self._server in {"", server}:
            self._server = server
            return
        if last is not None or self._server not in {"", server}:
            lanes = self._settings.layout.lanes
            # a newcomer to a server that knew of no run wrote down which it is, and began nothing
            begins = last != server or self._client.hget(keys.SEEN, "epoch") != server
            self._mark(info, self._forgotten_ms(info), lanes, begins=begins)
        if self._server:
            self.changed_at_ms = now_ms(self._client)
        self._client.set(keys.SERVER, server)
        self._server = server

    def _check_one_server(self) -> None:
        """Refuse an address behind which each connection may find another server.

        Then nobody could say whether *the* server was restarted.
        """
        pool = self._client.connection_pool
        connections = [lend(pool) for _ in range(_SAMPLE)]
        found = set()
        try:
            for connection in connections:
                connection.send_command("INFO", "server")
                found.add(run_id_in(connection.read_response()))
        finally:
            for connection in connections:
                pool.release(connection)
        if len(found) > 1:
            raise SeveralServersError

    def _mark(
        self, info: dict[str, Any], forgotten_ms: int, lanes: Iterable[int], *, begins: bool
    ) -> None:
        """Let what may be forgotten count as in doubt; pause when it may be too much.

        Args:
            info: of the server, as it answers.
            forgotten_ms: how much of the deployment's life it may not know of.
            lanes: those that it serves.
            begins: whether this process begins the epoch, or only met it.
        """
        paused = forgotten_ms > GAP_MS
        marked = 0
        done = set[int]()
        while begins and (some := self._to_mark(lanes, done)):
            done.update(some)
            for lane in some:
                # tokens may be forgotten that were given out: none may be given out again
                self._client.incrby(keys.fence(lane), _FENCES)
                self._client.set(keys.forgot(lane), info["run_id"], px=_NOTED_MS)
            held, active = self._held(some), {*self._active()}
            self._list_again(held - active)
            for broadcast in held | active:
                self._be_unsure(broadcast, some)
            marked = len(held | active)
        if paused:  # also by who only met it, and alone may know how long the gap was
            for broadcast in self._active():
                self._pause(broadcast)
        if paused:
            self._series.pause_overdue(RESTORED)
        if begins or paused:
            logs.emit(ServerChanged(info["run_id"][:12], forgotten_ms, marked, paused))

    def _active(self) -> Iterator[str]:
        """Yield what has not ended, of each app that there was: it may go on one day."""
        for app in {*self._settings.apps, *self._client.zrange(keys.APPS, 0, -1)}:
            yield from self._client.zrange(keys.active(app), 0, -1)

    def _held(self, lanes: Iterable[int]) -> set[str]:
        """Return of what lanes may send, or want something: they may have forgotten its end."""
        lanes = list(lanes)
        pipeline = self._client.pipeline(transaction=False)
        for lane in lanes:
            pipeline.smembers(keys.busy(lane))
        for lane, apps in zip(lanes, _unbroken(pipeline), strict=True):
            pipeline.zrange(keys.due(lane), 0, -1)
            pipeline.zrange(keys.doing(lane), 0, -1)
            pipeline.smembers(keys.flying(lane))
            for app in apps:
                pipeline.lrange(keys.ring(lane, app), 0, -1)
                pipeline.lrange(keys.priority_ring(lane, app), 0, -1)
        return {one.partition(" ")[0] for some in _unbroken(pipeline) for one in some}

    def _list_again(self, unlisted: Iterable[str]) -> None:
        """List as active what has not ended; that it had, and was not listed, may be forgotten."""
        for broadcast in unlisted:
            home = keys.home(self._broadcasts.home_lane(broadcast), broadcast)
            state, app = self._client.hmget(home, ["state", "app"])
            if app and state not in ENDED:
                self._client.zadd(keys.active(app), {broadcast: now_ms(self._client)}, nx=True)

    def _to_mark(self, lanes: Iterable[int], done: Collection[int]) -> list[int]:
        """Return those of some lanes that are not done: as they are by now, or will be in a moment.

        The one that is being divided comes before its heirs.
        """
        follow(self._client, self._settings)
        layout, some = self._settings.layout, set(lanes)
        there = [*layout.lanes]
        if layout.shut is not None:
            there += layout.children(layout.divided)
        return [
            lane
            for lane in there
            if lane not in done and not some.isdisjoint(layout.ancestors(lane))
        ]

    def _forgotten_ms(self, info: dict[str, Any]) -> int:
        """Return how much of the deployment's life this server may not know of, in ms."""
        seen = self._client.hgetall(keys.SEEN)
        # no beat is known though there was a worker: it forgot the first ones, with all after them
        at_ms = int(seen.get("at_ms", 0)) or self._first_ms
        resting = seen.get("resting") == "1"
        if seen.get("epoch") == info["run_id"]:  # others have beaten since
            at_ms = int(seen["epoch_at_ms"]) or self._first_ms
            resting = seen["epoch_resting"] == "1"
        else:
            kept = {"epoch": info["run_id"], "epoch_at_ms": at_ms, "epoch_resting": int(resting)}
            self._client.hset(keys.SEEN, mapping=kept)
        if self._acknowledged_ms:
            return max(0, self._acknowledged_ms - at_ms)
        if resting or not at_ms:
            return 0
        clock_ms = now_ms(self._client)
        started_ms = clock_ms - int(info["uptime_in_seconds"]) * 1000
        # it was up all the while: a replica that took over
        return max(0, (started_ms if started_ms > at_ms else clock_ms) - at_ms)

    def _be_unsure(self, broadcast: str, lanes: Iterable[int]) -> None:
        try:
            self._broadcasts.adopt(broadcast)  # a lane may have forgotten its copy
        except NotFoundError:
            return
        except LaneDividedError:  # it is the keeper's, once there are its heirs
            pass
        for lane in lanes:
            self._copies.be_unsure(broadcast, lane)

    def _compare(self, info: str, last: str | None) -> None:
        """Raise unless the server is the one of the current epoch."""
        server = run_id_in(info)
        if server != last or self._server not in {"", server}:
            raise ServerChangedError(f"another server run ({server[:12]})")

    def _pause(self, broadcast: str) -> None:
        try:
            status = self._broadcasts.status(broadcast)
            running = status.state is State.RUNNING
            # it may have run in what is forgotten
            if status.state is State.SCHEDULED and status.starts_at_ms <= now_ms(self._client):
                running = self._broadcasts.start(broadcast) is State.RUNNING
            if running:
                self._broadcasts.pause(broadcast, RESTORED)
        except (IllegalMoveError, NotFoundError):
            return


def _unbroken(pipeline: Any) -> list[Collection[str]]:
    """Run a pipeline; return its answers, nothing of a key that somebody wrote into."""
    answers = pipeline.execute(raise_on_error=False)
    for answer in answers:
        if isinstance(answer, Exception) and not isinstance(answer, redis.ResponseError):
            raise answer
    return [() if isinstance(answer, Exception) else answer for answer in answers]


def run_id_in(info: str) -> str:
    """Return the run_id in a server's INFO."""
    lines = (line.partition(":") for line in info.splitlines())
    return next((value for name, _, value in lines if name == "run_id"), "")
