"""The WeChat client: one POST per send, the calls for tokens, and whether WeChat is in reach.

One aiohttp session per process. The access_token travels in the query string only, as WeChat wants
it, and never reaches a log.
"""

import time
from typing import Any, Final

import aiohttp
import orjson
from yarl import URL

from producers.outward import NEVER_SENT, Outward, named
from producers.settings import Settings
from workers.wechat.reply import Fate, Reply, parse

_MOST: Final = 65_536
"""Bytes of a reply that are read; WeChat's are about a hundred."""

_HEADERS: Final = {"Content-Type": "application/json"}


class WeChat:
    """Sends, over one pooled session; belongs to one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._bases = {alias: settings.wechat_base(alias) for alias in settings.apps}
        self._urls: dict[tuple[str, str], tuple[str, URL, dict[str, Any]]] = {}
        self._outward = Outward(settings)
        self._session = aiohttp.ClientSession(
            # POSTs are bounded by shares (`sender`): a limit here would let one app's POSTs, or the
            # fetching of its token, wait for another's
            connector=self._outward.connector(limit=0, keepalive_timeout=10, ttl_dns_cache=60),
            timeout=aiohttp.ClientTimeout(
                total=settings.post_timeout.total_seconds(),
                connect=settings.connect_timeout.total_seconds(),  # names and the pool too
                sock_connect=settings.connect_timeout.total_seconds(),
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=_HEADERS,
        )

    async def reaches(self, app: str) -> bool:
        """Say whether a new connection to an app's WeChat comes up; nothing is sent to anybody.

        By a HEAD of the base URL, and so with the same names, addresses and certificates as a send.
        What comes over the connection does not matter, nor whether anything does.
        """
        return await self._head(app) is not Fate.UNSENT

    async def answers(self, app: str) -> bool:
        """Say whether an app's WeChat answers a HEAD of its base URL, whatever it answers."""
        return await self._head(app) is Fate.ANSWERED

    async def _head(self, app: str) -> Fate:
        connector, url = self._outward.connector(force_close=True), URL(self.base(app))
        try:
            async with (
                aiohttp.ClientSession(
                    connector=connector, timeout=self._session.timeout, headers=_HEADERS
                ) as session,
                session.head(url, allow_redirects=False, **self._outward.way(url)),
            ):
                return Fate.ANSWERED
        except aiohttp.ClientResponseError:  # a body after a HEAD is an answer too
            return Fate.ANSWERED
        except NEVER_SENT:
            return Fate.UNSENT
        except Exception:  # noqa: BLE001  (a connection came up)
            return Fate.UNANSWERED

    async def close(self) -> None:
        """Close the session and its connections."""
        await self._session.close()

    async def send(self, app: str, access_token: str, path: str, body: bytes) -> Reply:
        """POST one message; never raises for what the network or WeChat does.

        Args:
            app: whose message.
            access_token: the app's.
            path: which API, such as `envelope.SUBSCRIBE_SEND`.
            body: JSON.
        """
        started = time.monotonic()
        url, way = self._url(app, path, access_token)
        try:
            async with self._session.post(url, data=body, allow_redirects=False, **way) as response:
                raw = await _read(response.content)
            return parse(response.status, raw, _ms_since(started))
        except NEVER_SENT as error:
            return Reply(Fate.UNSENT, 0, named(error), "", "", _ms_since(started))
        except Exception as error:  # noqa: BLE001  (whatever broke, it may have been posted)
            return Reply(Fate.UNANSWERED, 0, type(error).__name__, "", "", _ms_since(started))

    async def call(
        self, method: str, url: str, *, json: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Make a call that is not a send (tokens), and return its JSON object.

        Raises:
            aiohttp.ClientError, TimeoutError, OSError: no answer.
            ValueError: the answer is not a JSON object.
        """
        data, whole = None if json is None else orjson.dumps(json), URL(url, encoded=True)
        async with self._session.request(
            method, whole, data=data, allow_redirects=False, **self._outward.way(whole)
        ) as response:
            answer = orjson.loads(await _read(response.content))
        if not isinstance(answer, dict):
            raise ValueError("the answer is not a JSON object")  # noqa: TRY004
        return answer

    async def ask(
        self,
        app: str,
        access_token: str,
        path: str,
        *,
        json: dict[str, Any] | None = None,
        most_bytes: int = _MOST,
    ) -> dict[str, Any] | None:
        """Make a call with a token that is not a send: a GET, or a POST of some JSON.

        Args:
            app: whose.
            access_token: the app's.
            path: of the call.
            json: the body of a POST.
            most_bytes: of the answer.

        Returns:
            The JSON object, or None where the answer is longer.

        Raises:
            aiohttp.ClientError, TimeoutError, OSError: no answer, or an HTTP error.
            ValueError: the answer is not a JSON object.
        """
        method, data = ("GET", None) if json is None else ("POST", orjson.dumps(json))
        url = URL(self._bases[app] + path).with_query({"access_token": access_token})
        async with self._session.request(
            method, url, data=data, allow_redirects=False, **self._outward.way(url)
        ) as response:
            if response.status != 200:
                raise ValueError(f"HTTP {response.status}")
            raw = await _read(response.content, most_bytes + 1)
        if len(raw) > most_bytes:
            return None
        answer = orjson.loads(raw)
        if not isinstance(answer, dict):
            raise ValueError("the answer is not a JSON object")  # noqa: TRY004
        return answer

    def base(self, app: str) -> str:
        """Return an app's base URL, without a trailing slash."""
        return self._bases[app]

    def follow(self, app: str) -> None:
        """An app came, or its settings have changed; from any thread."""
        self._bases[app] = self._settings.wechat_base(app)
        self._forget_urls(app)

    def forget(self, app: str) -> None:
        """An app left, and nothing of it is out any more; from any thread."""
        self._bases.pop(app, None)
        self._forget_urls(app)

    def _forget_urls(self, app: str) -> None:
        for known in [one for one in list(self._urls) if one[0] == app]:
            self._urls.pop(known, None)

    def _url(self, app: str, path: str, access_token: str) -> tuple[URL, dict[str, Any]]:
        known = self._urls.get((app, path))
        if known is None or known[0] != access_token:
            url = URL(self.base(app) + path).with_query({"access_token": access_token})
            known = self._urls[app, path] = (access_token, url, self._outward.way(url))
        return known[1:]


async def _read(content: aiohttp.StreamReader, most: int = _MOST) -> bytes:
    """Read a reply, up to a limit."""
    raw = await content.read(most)
    while not content.at_eof() and len(raw) < most:
        more = await content.read(most - len(raw))
        if not more:
            break
        raw += more
    return raw


def _ms_since(started: float) -> float:
    return round((time.monotonic() - started) * 1000, 3)
