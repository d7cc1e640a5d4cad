"""Posting: one webhook to an app's own service, and what came of it.

What an answer means: 2xx took it; 410 wants none of it, ever; all others, redirects too, and no
answer at all, did not take it now. Of an answer little is read, and nothing is kept.

Where a proxy is set (`producers.outward`) it is asked for a tunnel to an address that was looked up
and allowed here, never to a name, which it would look up itself. What lies in
``WXB_WEBHOOK_NETWORKS`` is reached past it.
"""

import asyncio
import contextlib
import socket
import ssl
import time
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from yarl import URL

from producers.outward import Outward, named
from producers.settings import Settings, signing_keys
from workers.webhooks.addresses import (
    ForbiddenAddressError,
    Resolver,
    is_address,
    is_allowed,
    lies_in,
)
from workers.webhooks.signature import headers

_MOST: Final = 16_384
"""Bytes of an answer that are read, so that its connection is good for the next one; of a longer
answer the connection is closed."""

_GONE: Final = 410
"""Standard Webhooks: the receiver wants no more of it."""

_MOST_PATIENT_S: Final = 3600
"""Retry-After is believed up to so long."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one post.

    Attributes:
        status: HTTP's; 0: there was no answer.
        error: why it was not taken, in a word or two; '' when it was.
        final: it never will be.
        retry_after_s: the least pause that the answer asks for.
        latency_ms: until the answer, or the end of waiting for one.
    """

    status: int
    error: str
    latency_ms: float
    final: bool = False
    retry_after_s: int = 0


class Poster:
    """Posts webhooks, over one session; belongs to one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._networks = settings.webhook_networks
        self._settings = settings
        self._targets: dict[str, tuple[URL, list[bytes]]] = {}
        self._outward = Outward(settings)
        self._resolver = Resolver(self._networks)
        self._timeout_s = settings.webhook_timeout.total_seconds()
        self.follow()
        # how many are out is bounded by app: a limit here would let one wait for another's
        self._session = self._opened(
            keepalive_timeout=15, use_dns_cache=False, resolver=self._resolver
        )
        # of a tunnel to an address it is not known whose certificate was shown: each is used once
        self._tunnels = self._opened(force_close=True)

    def _opened(self, **options: Any) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=self._outward.connector(limit=0, **options),
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers={"Content-Type": "application/json", "User-Agent": "wxbroadcast-webhooks"},
        )

    def follow(self) -> None:
        """Post to where the settings say now."""
        self._targets = {
            alias: (
                URL(app.webhook_url.get_secret_value()),
                signing_keys(app.webhook_secret.get_secret_value()),
            )
            for alias, app in self._settings.apps.items()
            if app.webhook_url is not None and app.webhook_secret is not None
        }

    @property
    def apps(self) -> list[str]:
        """The apps that have a URL."""
        return list(self._targets)

    async def close(self) -> None:
        """Close the sessions and their connections."""
        await self._session.close()
        await self._tunnels.close()

    async def post(self, app: str, event: str, at_s: int, body: bytes) -> Answer:
        """Post one webhook; never raises for what the network or the other side does.

        Args:
            app: whose.
            event: its id.
            at_s: the time now (epoch s), which is signed.
            body: JSON.
        """
        if app not in self._targets:
            return Answer(0, "its app, or the app's URL, left the settings", 0.0)
        url, keys = self._targets[app]
        started = time.monotonic()
        if is_address(url.host or "") and not is_allowed(url.host or "", self._networks):
            return Answer(0, _in_words(ForbiddenAddressError()), 0.0)
        signed = headers(keys, event, at_s, body)
        try:
            session, there, way = await self._route(url)
            async with session.post(
                there,
                data=body,
                headers=signed if there is url else {**signed, "Host": url.raw_authority},
                allow_redirects=False,
                **way,
            ) as response:
                with contextlib.suppress(Exception):  # its status is the answer
                    await _read_some(response)
                status, after = response.status, response.headers.get("Retry-After", "")
        except Exception as error:  # noqa: BLE001  (whatever broke, it was perhaps not taken)
            return Answer(0, _in_words(error), _ms_since(started))
        if 200 <= status < 300:
            return Answer(status, "", _ms_since(started))
        wait_s = min(int(after), _MOST_PATIENT_S) if after.isdecimal() and len(after) < 9 else 0
        return Answer(status, f"HTTP {status}", _ms_since(started), status == _GONE, wait_s)

    async def _route(self, url: URL) -> tuple[aiohttp.ClientSession, URL, dict[str, Any]]:
        """Return by which session, to where, and how a webhook goes; see the module.

        Raises:
            ForbiddenAddressError, OSError, TimeoutError: it goes nowhere.
        """
        way = self._outward.way(url) if url.scheme == "https" else {}
        host = url.host or ""
        if not way:
            return self._session, url, {}
        address = host
        if not is_address(host):
            async with asyncio.timeout(self._timeout_s):
                found = await self._resolver.resolve(host, url.port or 0, socket.AF_UNSPEC)
            address = found[0]["host"]
        if lies_in(address, self._networks):
            return self._session, url, {}
        return self._tunnels, url.with_host(address), {**way, "server_hostname": host}


async def _read_some(response: aiohttp.ClientResponse) -> None:
    left = _MOST
    while left > 0 and (some := await response.content.read(left)):
        left -= len(some)
    if left <= 0:
        response.close()


def _in_words(error: Exception) -> str:
    """Say what broke; never the URL, which may hold a secret."""
    cause = getattr(error, "os_error", None) or error
    if isinstance(cause, ForbiddenAddressError):
        return "forbidden address: see WXB_WEBHOOK_NETWORKS"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(cause, ssl.SSLError):
        return f"TLS: {getattr(cause, 'reason', None) or type(cause).__name__}"
    return named(cause)


def _ms_since(started: float) -> float:
    return round((time.monotonic() - started) * 1000, 3)
