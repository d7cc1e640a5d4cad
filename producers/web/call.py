"""A call: one request on its way through the service."""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar
from uuid import uuid4

from aiohttp import web

from producers.access import addresses
from producers.web.traffic.threads import on_thread

if TYPE_CHECKING:
    from producers.access.api_keys import ApiKey
    from producers.web.services import Services

P = ParamSpec("P")
R = TypeVar("R")

COOKIE: Final = "wxb_session"
"""The console's cookie: a session (see `producers.access.sessions`)."""

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass
class Call:
    """What is known of a request so far.

    Attributes:
        request: aiohttp's.
        services: what handlers work with.
        id: the caller's X-Request-Id, or ours.
        started: monotonic seconds.
        template: the route's path with its braces, '' before it is found.
        path: parts of the path by name, checked.
        key: who asks, if by API key.
        body: the model's value, or the bytes of a raw one.
        query: the model's value.
        bytes_in: of the body, as far as it was read.
        streams: whether the body is to be read line by line.
        actor: for the log: the key's id, ``ticket`` or ''.
    """

    request: web.BaseRequest
    services: "Services"
    id: str = ""
    started: float = field(default_factory=time.monotonic)
    template: str = ""
    path: Mapping[str, str] = field(default_factory=dict)
    key: "ApiKey | None" = None
    body: Any = None
    query: Any = None
    bytes_in: int = 0
    streams: bool = False
    actor: str = ""

    def __post_init__(self) -> None:
        given = self.request.headers.get("X-Request-Id", "")
        self.id = given if _REQUEST_ID.fullmatch(given) else uuid4().hex

    @property
    def app(self) -> str:
        """The app of the path, '' without one."""
        return self.path.get("app", "")

    @property
    def bearer(self) -> str:
        """What came as bearer token, '' without one."""
        scheme, _, token = self.request.headers.get("Authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" else ""

    @property
    def session(self) -> str:
        """What came as the console's cookie, '' without one."""
        for part in self.request.headers.get("Cookie", "").split(";"):
            name, _, value = part.strip().partition("=")
            if name == COOKIE:
                return value
        return ""

    @property
    def changes(self) -> bool:
        """Whether it asks for a change, not only for a look."""
        return self.request.method not in {"GET", "HEAD"}

    @property
    def scope(self) -> tuple[str, ...]:
        """What its Idempotency-Key counts for, of a call whose route is found: what, and whose."""
        return (self.request.method, self.template, *self.path.values(), self.actor)

    @property
    def remote(self) -> str:
        """The client's address, as far as it can be trusted, '' on a socket without addresses.

        Each proxy before us (``web_proxies``) adds the address that it sees to X-Forwarded-For, so
        the one that the first of them saw stands so many places from the right; what is left of it
        the client wrote itself. Where there is none, somebody came past the proxies: the address
        is then the peer's own, so that nobody goes uncounted.
        """
        peer = self.request.remote or ""
        proxies = self.services.settings.web_proxies
        if proxies:
            seen = ",".join(self.request.headers.getall("X-Forwarded-For", ())).split(",")
            told = addresses.plain(seen[-proxies]) if len(seen) >= proxies else ""
            return told or addresses.plain(peer) or peer
        return addresses.plain(peer) or peer

    async def run(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run library code on a thread."""
        return await on_thread(self.services.threads, call, *args, **kwargs)
