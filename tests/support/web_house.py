"""The service in a thread of its own, and callers that speak plain HTTP to it."""

import asyncio
import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import uvloop

from producers import store
from producers.access.api_keys import ANY_APP, ApiKeys, Scope
from producers.settings import Settings
from producers.store import keys
from producers.web.server import Place, Service, serving

HOST = "127.0.0.1"
TEMPLATE = "T" * 43
APPS = {
    "shop": {"appid": "wx0000000000000001", "secret": "shop-secret"},
    "cafe": {"appid": "wx0000000000000002", "secret": "cafe-secret"},
}
PERMITS = "/v1/apps/shop/permits"
BROADCASTS = "/v1/apps/shop/broadcasts"


@dataclass
class Got:
    """An answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def kind(self) -> str:
        """The kind of the problem that this is; every error must be one."""
        assert self.headers["content-type"] == "application/problem+json", self
        problem = self.json
        assert problem["status"] == self.status
        assert problem["request_id"] == self.headers.get("x-request-id", "")
        assert set(problem) == {"type", "title", "status", "detail", "request_id", "faults"}
        return str(problem["type"]).removeprefix("/docs#problem-")


class Caller:
    """Somebody who calls the service, with a token or without."""

    def __init__(self, port: int, token: str = "") -> None:
        self.port, self.token = port, token

    def __call__(
        self, method: str, path: str, body: Any = None, media: str = "", **headers: str
    ) -> Got:
        """Send one request on a connection of its own.

        Args:
            method: as it goes out.
            path: as it goes out.
            body: bytes, or an iterator of them (chunked), or anything else as JSON.
            media: content type; default: JSON's if there is a body.
            headers: more of them, ``_`` for ``-``.
        """
        given = {name.replace("_", "-"): text for name, text in headers.items()}
        if self.token:
            given.setdefault("Authorization", f"Bearer {self.token}")
        if body is not None:
            given.setdefault("Content-Type", media or "application/json")
            if not isinstance(body, bytes) and not hasattr(body, "__next__"):
                body = json.dumps(body).encode()
        connection = http.client.HTTPConnection(HOST, self.port, timeout=25)
        with contextlib.closing(connection):
            connection.connect()
            with contextlib.suppress(ConnectionError):  # refused, and told why, before its end
                connection.request(method, path, body, given)
            answer = connection.getresponse()
            read = answer.read()
            named = {name.lower(): text for name, text in answer.getheaders()}
            return Got(answer.status, named, read)

    def get(self, path: str, **headers: str) -> Got:
        return self("GET", path, **headers)

    def post(self, path: str, body: Any = None, media: str = "", **headers: str) -> Got:
        return self("POST", path, body, media, **headers)


class House:
    """A running service, and the store behind it."""

    def __init__(self, service: Service, settings: Settings) -> None:
        self.service, self.settings = service, settings
        self.port = service.port
        self.client = store.connect(settings)
        self.keys = ApiKeys(self.client, settings)
        self.anybody = Caller(self.port)

    def caller(self, *scopes: str, apps: tuple[str, ...] = ("shop",), rate: int = 10_000) -> Caller:
        """Give a caller with a new key; all scopes unless some are named."""
        made = self.keys.create("test", apps, scopes or tuple(Scope), rate)
        return Caller(self.port, made.token)

    def master(self) -> Caller:
        """Give a caller who may do everything everywhere."""
        return self.caller(apps=(ANY_APP,))

    def uses(self, openid: str, app: str = "shop") -> set[str]:
        """Return the permits that are stored of a user."""
        lane, _, _ = keys.place_of(openid, self.settings)
        key = keys.permits(lane, app, openid)
        return set(self.client.zrange(key, 0, -1))

    @contextlib.contextmanager
    def wire(self) -> Iterator["Wire"]:
        """Give a bare connection."""
        with contextlib.closing(Wire(connect(self.port))) as wire:
            yield wire


def connect(port: int) -> socket.socket:
    return socket.create_connection((HOST, port), 20)


class Wire:
    """A bare connection: any bytes go out, and whole answers come in."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._file = connection.makefile("rb")

    def send(self, data: bytes) -> None:
        self._connection.sendall(data)

    def answer(self) -> Got:
        """Read one answer."""
        status = self.line().split(b" ")[1]
        named = {name.lower(): text for name, text in http.client.parse_headers(self._file).items()}
        return Got(int(status), named, self._file.read(int(named["content-length"])))

    def line(self) -> bytes:
        """Read one line."""
        return self._file.readline()

    def is_closed(self) -> bool:
        """Wait until the other side closes; whatever it sent before is dropped."""
        try:
            while self._file.read(65_536):
                pass
        except ConnectionResetError:
            pass
        return True

    def close(self) -> None:
        self._file.close()
        self._connection.close()


@contextlib.contextmanager
def opened(settings: Settings) -> Iterator[House]:
    """Run the service on a free port, as its own process would."""
    up = threading.Event()
    found: list[tuple[Service, asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def run() -> None:
        end = asyncio.Event()
        async with serving(settings, Place(HOST, 0)) as service:
            found.append((service, asyncio.get_running_loop(), end))
            up.set()
            await end.wait()

    def serve() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run())

    thread = threading.Thread(target=serve, name="service")
    thread.start()
    assert up.wait(20), "the service did not start"
    service, loop, end = found[0]
    house = House(service, settings)
    try:
        yield house
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(20)
        house.client.close()
        house.client.connection_pool.disconnect()
        assert not thread.is_alive(), "the service did not end"
