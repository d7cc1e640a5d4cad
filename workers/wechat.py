r"""The WeChat client: one POST per send, and what its reply says.

One aiohttp session per process. Bodies are UTF-8 without ``\u`` escapes (errcodes 47002 and 40033
exist for those); the access_token travels in the query string only, as WeChat wants it, and never
reaches a log. A business error comes with HTTP 200; the content type says nothing.

Sources: WeChat docs, templateMessage.send (2018) and subscribeMessage.send; the rid tail of errmsg
as seen since August 2020.
"""

import re
import time
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import orjson
from yarl import URL

from producers.redaction import redacted
from producers.settings import Settings
from producers.spec import Spec
from producers.words import Channel
from workers.claim import Claim
from workers.verdict import Fate, Reply

TEMPLATE_SEND: Final = "/cgi-bin/message/wxopen/template/send"
SUBSCRIBE_SEND: Final = "/cgi-bin/message/subscribe/send"

_RID: Final = re.compile(
    r"(?:[,\s]*rid:\s*(?P<rid>[0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{8})?\s*$)|(?:[,\s]*hints?:\s*\[.*\])"
)
_MOST: Final = 65_536
"""Bytes of a reply that are read; WeChat's are about a hundred."""

_HEADERS: Final = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class Envelope:
    """A broadcast's message, ready but for its recipient and permit.

    Attributes:
        path: which API.
        rest: the JSON after the recipient's fields, without the opening brace.
    """

    path: str
    rest: bytes

    @classmethod
    def of(cls, spec: Spec) -> "Envelope":
        """Build the constant part of every message of a broadcast."""
        fields: dict[str, Any] = {"template_id": spec.template_id}
        if spec.page:
            fields["page"] = spec.page
        fields["data"] = {key: {"value": value} for key, value in spec.data.items()}
        if spec.channel is Channel.TEMPLATE:
            if spec.emphasis_keyword:
                fields["emphasis_keyword"] = spec.emphasis_keyword
            return cls(TEMPLATE_SEND, orjson.dumps(fields)[1:])
        fields["miniprogram_state"] = spec.miniprogram_state
        fields["lang"] = spec.lang
        return cls(SUBSCRIBE_SEND, orjson.dumps(fields)[1:])

    def body(self, claim: Claim) -> bytes:
        """Return the JSON body for one recipient."""
        to = orjson.dumps(claim.openid)
        if self.path is SUBSCRIBE_SEND:
            return b'{"touser":%b,%b' % (to, self.rest)
        return b'{"touser":%b,"form_id":%b,%b' % (to, orjson.dumps(claim.permit_id), self.rest)


class WeChat:
    """Sends, over one pooled session; belongs to one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._bases = {alias: settings.wechat_base(alias) for alias in settings.apps}
        self._urls: dict[tuple[str, str], tuple[str, URL]] = {}
        self._session = aiohttp.ClientSession(
            # POSTs are bounded by shares (`sender`): a limit here would let one app's POSTs, or the
            # fetching of its token, wait for another's
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=10, ttl_dns_cache=60),
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
        connector = aiohttp.TCPConnector(force_close=True)
        try:
            async with (
                aiohttp.ClientSession(
                    connector=connector, timeout=self._session.timeout, headers=_HEADERS
                ) as session,
                session.head(URL(self._bases[app]), allow_redirects=False),
            ):
                return Fate.ANSWERED
        except aiohttp.ClientResponseError:  # a body after a HEAD is an answer too
            return Fate.ANSWERED
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            return Fate.UNSENT
        except Exception:  # noqa: BLE001  (a connection came up)
            return Fate.UNANSWERED

    async def close(self) -> None:
        """Close the session and its connections."""
        await self._session.close()

    async def send(self, app: str, access_token: str, envelope: Envelope, claim: Claim) -> Reply:
        """POST one message; never raises for what the network or WeChat does."""
        started = time.monotonic()
        url = self._url(app, envelope.path, access_token)
        try:
            async with self._session.post(
                url, data=envelope.body(claim), allow_redirects=False
            ) as response:
                raw = await _read(response.content)
            return parse(response.status, raw, _ms_since(started))
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            return Reply(Fate.UNSENT, 0, type(error).__name__, "", "", _ms_since(started))
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
        data = None if json is None else orjson.dumps(json)
        async with self._session.request(
            method, URL(url, encoded=True), data=data, allow_redirects=False
        ) as response:
            answer = orjson.loads(await _read(response.content))
        if not isinstance(answer, dict):
            raise ValueError("the answer is not a JSON object")  # noqa: TRY004
        return answer

    def base(self, app: str) -> str:
        """Return an app's base URL, without a trailing slash."""
        return self._bases[app]

    def _url(self, app: str, path: str, access_token: str) -> URL:
        known = self._urls.get((app, path))
        if known is None or known[0] != access_token:
            url = URL(self._bases[app] + path).with_query({"access_token": access_token})
            known = self._urls[app, path] = (access_token, url)
        return known[1]


async def _read(content: aiohttp.StreamReader) -> bytes:
    """Read a reply, up to a limit."""
    raw = await content.read(_MOST)
    while not content.at_eof() and len(raw) < _MOST:
        more = await content.read(_MOST - len(raw))
        if not more:
            break
        raw += more
    return raw


def _ms_since(started: float) -> float:
    return round((time.monotonic() - started) * 1000, 3)


def parse(status: int, raw: bytes, latency_ms: float = 0.0) -> Reply:
    """Return what a reply to a send says.

    Args:
        status: HTTP status; anything but 200 says nothing about the message.
        raw: the body; anything but a JSON object says nothing either.
        latency_ms: how long it took.
    """
    if status != 200:
        return Reply(Fate.UNANSWERED, 0, f"HTTP {status}", "", "", latency_ms)
    try:
        answer = orjson.loads(raw)
        errcode = int(answer.get("errcode") or 0)
        if abs(errcode) >= 2**63:
            raise ValueError("no errcode")  # noqa: TRY301
    except (orjson.JSONDecodeError, AttributeError, TypeError, ValueError, OverflowError):
        return Reply(Fate.UNANSWERED, 0, "not JSON", "", "", latency_ms)
    if errcode == 0:
        return Reply(Fate.ANSWERED, 0, "", "", _msgid(answer.get("msgid")), latency_ms)
    text = str(answer.get("errmsg", ""))
    found = _RID.search(text)
    rid = (found["rid"] or "") if found else ""
    errmsg = redacted(_RID.sub("", text))[:200]
    return Reply(Fate.ANSWERED, errcode, errmsg, rid, "", latency_ms)


def _msgid(value: object) -> str:
    """Return a msgid as digits; it is a 64-bit integer and must never become a float."""
    return str(value) if isinstance(value, int | str) and str(value).isdigit() else ""
