"""What the tests of the send path share: a lossy way to Redis, a small shop, and a pump on it.

Everything here is real but the way: `Way` is a TCP proxy between a client and Valkey that loses a
request or a reply when told to, as a network does.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import redis
from pydantic import SecretStr

from producers import store
from producers.broadcasts import Broadcasts
from producers.broadcasts.spec import Spec
from producers.permits.collect import Collector
from producers.settings import Settings
from producers.store import keys
from workers.duties.peers import Peers
from workers.limits.gate import Gate
from workers.limits.limiter import Limiter
from workers.sending.claim import Claim
from workers.sending.hands import Hands
from workers.sending.memory import calendar_of
from workers.sending.pumping.intake import Intake
from workers.sending.pumping.pump import Pump
from workers.sending.pumping.reserver import Reserver
from workers.sending.stops import Stops
from workers.sending.take import Taker
from workers.sending.turns import Turns
from workers.wechat.client import WeChat
from workers.wechat.tokens import TokenKeeper

OUTSIDE_TOKEN = "outside:token"
APP = {"token_source": "redis", "token_key": OUTSIDE_TOKEN}
"""An app whose token lies in Redis, so that a pump needs no WeChat."""


class Way:
    """A TCP proxy to Valkey that loses what it is told to.

    `lose` concerns the next requests that hold a word. ``request``: it never arrives, and the
    connection ends. ``reply``: it is carried out, and the connection ends without its answer.
    ``silence``: it is carried out, and nothing comes back, until the client gives up.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._server = (parts.hostname or "127.0.0.1", parts.port or 6379)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._mutex = threading.Lock()
        self._word = b""
        self._how = ""
        self._times = 0
        self.lost = 0
        self._begin(self._accept)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"

    def lose(self, word: str, how: str = "reply", times: int = 1) -> None:
        with self._mutex:
            self._word, self._how, self._times = word.encode(), how, times

    def close(self) -> None:
        _end(self._listener)
        self._threads[0].join(5)  # nobody comes any more
        with self._mutex:
            open_ones = [self._listener, *self._sockets]
        for one in open_ones:
            _end(one)
        for thread in self._threads:
            thread.join(5)
        for one in open_ones:
            one.close()

    def _begin(self, work: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._mutex:
                self._sockets.add(client)
            try:
                server = socket.create_connection(self._server)
            except OSError:
                _end(client)
                continue
            with self._mutex:
                self._sockets.add(server)
            losing = threading.Event()
            self._begin(self._carry_requests, client, server, losing)
            self._begin(self._carry_replies, client, server, losing)

    def _carry_requests(
        self, client: socket.socket, server: socket.socket, losing: threading.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while chunk := client.recv(1 << 20):
                if self._concerned(chunk):
                    if self._how == "request":
                        self._count()
                        break
                    losing.set()
                server.sendall(chunk)
        self._part(client, server)

    def _carry_replies(
        self, client: socket.socket, server: socket.socket, losing: threading.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while chunk := server.recv(1 << 20):
                if losing.is_set() and not chunk.startswith(b"-NOSCRIPT"):
                    self._count()
                    if self._how == "silence":
                        losing.clear()
                        continue
                    break
                losing.clear()
                client.sendall(chunk)
        self._part(client, server)

    def _concerned(self, chunk: bytes) -> bool:
        with self._mutex:
            return self._times > 0 and self._word in chunk

    def _count(self) -> None:
        with self._mutex:
            self._times -= 1
            self.lost += 1

    def _part(self, *both: socket.socket) -> None:
        for one in both:
            _end(one)


def _end(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def way_to(settings: Settings) -> Iterator[Way]:
    """Give a way to the settings' Valkey."""
    way = Way(settings.redis_url.get_secret_value())
    try:
        yield way
    finally:
        way.close()


def by(settings: Settings, way: Way, timeout_s: float = 5.0) -> Settings:
    """Return settings that reach Redis by this way."""
    return settings.model_copy(
        update={"redis_url": SecretStr(way.url), "redis_timeout": timedelta(seconds=timeout_s)}
    )


@contextlib.contextmanager
def connected(settings: Settings) -> Iterator["redis.Redis"]:
    """Give a client, closed at the end."""
    client = store.connect(settings)
    try:
        yield client
    finally:
        client.close()
        client.connection_pool.disconnect()


@contextlib.asynccontextmanager
async def connected_async(settings: Settings) -> AsyncIterator[Any]:
    """Give a client of the running loop, closed at the end."""
    client = store.connect_async(settings)
    try:
        yield client
    finally:
        await client.aclose()
        await client.connection_pool.disconnect()


async def soon(
    holds: Callable[[], Any], that: str, *, within_s: float = 10.0, every_s: float = 0.01
) -> Any:
    """Wait until something holds, without stopping the loop; as the `eventually` fixture."""
    deadline = asyncio.get_running_loop().time() + within_s
    while not (value := holds()):
        assert asyncio.get_running_loop().time() < deadline, f"never came true: {that}"
        await asyncio.sleep(every_s)
    return value


class Stall:
    """A shop with permits and broadcasts, and how they stand in lane 0 to lanes - 1."""

    def __init__(self, client: "redis.Redis", settings: Settings) -> None:
        self.client = client
        self.settings = settings
        self.broadcasts = Broadcasts(client, settings)
        self._collector = Collector(client, settings)

    def form_ids(self, users: int, each: int = 1) -> None:
        """Collect form_ids f0x0, f0x1 and so on, of users o0, o1 and so on."""
        self.collect(
            {"openid": f"o{user}", "formIds": [f"f{user}x{n}" for n in range(each)]}
            for user in range(users)
        )

    def subscriptions(self, users: int, template: str = "T") -> None:
        """Collect one accept of each of users o0, o1 and so on."""
        self.collect(
            {"openid": f"o{user}", "subscriptions": {template: "accept"}} for user in range(users)
        )

    def collect(self, uploads: Any) -> None:
        report = self._collector.collect("shop", uploads)
        assert not report.refused, report.as_dict()

    def broadcast(self, channel: str = "template", **more: Any) -> str:
        """Create a broadcast to everybody."""
        data = {"keyword1": "早安"} if channel == "template" else {"thing1": "早安"}
        spec = Spec.checked(
            app="shop", channel=channel, template_id="T", audience="all", data=data, **more
        )
        return self.broadcasts.create(spec).id

    def flight(self, broadcast: str) -> dict[str, list[str]]:
        """Return openid → worker, fence, member, expires_at_ms, since_ms, tries, resumed."""
        return {
            item.partition(":")[2]: value.split(" ")
            for lane in self.settings.layout.lanes
            for item, value in self.client.hgetall(keys.flight(lane, broadcast)).items()
        }

    def outcomes(self, broadcast: str) -> dict[str, str]:
        """Return openid → outcome, with its errcode if it has one."""
        found: dict[str, str] = {}
        for bucket in range(self.settings.buckets):
            lane = self.settings.layout.of_number(bucket)
            found |= self.client.hgetall(keys.outcomes(lane, broadcast, bucket))
        return found

    def queue(self, broadcast: str) -> list[str]:
        """Return the openids that wait, the next one first."""
        return [
            item.partition(":")[2]
            for lane in self.settings.layout.lanes
            for item in self.client.lrange(keys.queue(lane, broadcast), 0, -1)
        ]

    def ledger(self) -> dict[str, int]:
        """Return collected, spent and void uses, and those available."""
        sums = {"collected": 0, "spent": 0, "void": 0, "expired": 0, "available": 0}
        for lane in self.settings.layout.lanes:
            for name, uses in self.client.hgetall(keys.ledger(lane, "shop")).items():
                sums[name.split(":")[0]] += int(uses)
            for name, uses in self.client.hgetall(keys.stock(lane, "shop")).items():
                sums["available"] += int(uses) if name[:2] in {"f:", "p:", "s:"} else 0
        return {name: uses for name, uses in sums.items() if uses}


@dataclass
class PumpBench:
    """A pump, and all that it told."""

    pump: Pump
    intake: Intake
    reserver: Reserver
    lanes: int
    keeper: TokenKeeper
    hands: Hands
    gate: Gate
    turns: Turns
    handed_back: list[Claim] = field(default_factory=list)
    low: list[tuple[str, int]] = field(default_factory=list)
    complete: list[str] = field(default_factory=list)

    async def next_batch(self, seconds: float = 5.0) -> list[Claim]:
        """Pump on a thread, as Dramatiq's consumer does, after a look at the lanes."""
        for lane in range(self.lanes):
            self.turns.wake("shop", lane)
        batch = await asyncio.to_thread(self.pump.next_batch, seconds)
        return [claim for claim, _ in batch or ()]


@contextlib.asynccontextmanager
async def pumping(
    settings: Settings,
    *,
    worker: str = "w1",
    workers: int = 1,
    in_flight: int = 1000,
    beyond: int = 0,
) -> AsyncIterator[PumpBench]:
    """Give a pump for one worker, with a good token; see `APP`."""
    with connected(settings) as client:
        async with connected_async(settings) as loop_client:
            wechat = WeChat(settings)
            try:
                await loop_client.set(OUTSIDE_TOKEN, "outside-token-1", ex=3600)
                peers = Peers(loop_client, worker)
                await peers.beat()
                keeper = TokenKeeper(
                    loop_client,
                    wechat,
                    "shop",
                    settings,
                    worker,
                    peers.server_time,
                    lambda: True,
                    lambda *_: None,
                )
                await keeper.tick()
                hands = Hands(in_flight, beyond=beyond)
                yield _bench(client, settings, keeper, worker, workers, hands, peers.server_time)
            finally:
                await wechat.close()


def _bench(
    client: "redis.Redis",
    settings: Settings,
    keeper: TokenKeeper,
    worker: str,
    workers: int,
    hands: Hands,
    server_time: Callable[[], float],
) -> PumpBench:
    broadcasts = Broadcasts(client, settings)
    gate = Gate(settings.apps["shop"].rate_per_second, calendar=calendar_of("shop", settings))
    handed_back: list[Claim] = []
    low: list[tuple[str, int]] = []
    complete: list[str] = []
    turns = Turns()
    gates = {"shop": gate}
    intake = Intake(
        settings,
        client,
        Taker(client, settings, worker, broadcasts.ttl_ms),
        gates,
        {"shop": keeper},
        hands,
        lambda: workers,
        handed_back.extend,
        lambda broadcast, lane: low.append((broadcast, lane)),
        complete.append,
        turns,
        Stops(),
        lambda _: 1000,
        server_time,
    )
    reserver = Reserver(
        settings,
        client,
        Limiter(client, worker),
        broadcasts,
        gates,
        handed_back.extend,
        lambda _: 0.0,
        server_time,
    )
    pump = Pump(client, gates, hands, intake, reserver)
    return PumpBench(
        pump,
        intake,
        reserver,
        settings.lanes,
        keeper,
        hands,
        gate,
        turns,
        handed_back,
        low,
        complete,
    )
