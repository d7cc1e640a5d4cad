"""Login codes: what ``wx.login`` gives a phone, exchanged at WeChat for the openid.

``GET /sns/jscode2session`` also answers a session_key. It is dropped where the reply is read, and
no error carries the reply, the URL (it holds the AppSecret) or the code: what the network raises
is replaced outside of its handler, so that no traceback holds it as a context either.

Sources: WeChat docs, wx.login and code2Session; the errcodes as in wechat-api.md, section 5.
"""

import asyncio
import re
from dataclasses import dataclass
from typing import Final

import aiohttp
import orjson
from yarl import URL

from producers.openid import OPENID
from producers.outward import Outward, named
from producers.settings import Settings

PATH: Final = "/sns/jscode2session"

TIMEOUT_S: Final = 5.0
"""The whole exchange, with its repeat: the phone waits for it."""

_CONNECTIONS: Final = 200
"""As many as the door lets through at once: nobody waits for a connection of another app."""
_MOST: Final = 65_536
"""Bytes of a reply that are read; WeChat's are about a hundred."""
_PAUSE_S: Final = 0.3
_BUSY: Final = -1
_REFUSED: Final = frozenset({40029, 40163, 40226, 41008})
"""Bad or expired, used, of a blocked user, empty: about this code, not about us."""

_RID: Final = re.compile(r"rid:\s*([0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{8})\s*$")


@dataclass(frozen=True, slots=True)
class Exchange:
    """What became of one code.

    Attributes:
        openid: whose it is; empty if it was not said.
        errcode: WeChat's; 0 beside an empty openid: WeChat did not answer, see ``error``.
        rid: WeChat's id of the call, for asking them.
        error: what went wrong on the way, one word.
        repeated: WeChat was busy at first and asked again.
    """

    openid: str = ""
    errcode: int = 0
    rid: str = ""
    error: str = ""
    repeated: bool = False

    @property
    def is_refused(self) -> bool:
        """Whether the code is at fault; after a repeat the first try may have used it up."""
        return self.errcode in _REFUSED and not self.repeated


class LoginCodes:
    """Exchanges codes over one pooled session; belongs to the event loop that opened it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._outward = Outward(settings)
        self._session = aiohttp.ClientSession(
            connector=self._outward.connector(
                limit=_CONNECTIONS, keepalive_timeout=10, ttl_dns_cache=60
            ),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        """Close the session and its connections."""
        await self._session.close()

    async def exchange(self, app: str, code: str) -> Exchange:
        """Ask WeChat whose code this is; never raises for what the network or WeChat does.

        Args:
            app: alias of a known app.
            code: 1-128 visible ASCII characters.
        """
        settings = self._settings.app(app)
        url = URL(self._settings.wechat_base(app) + PATH).with_query(
            appid=settings.appid,
            secret=settings.secret.get_secret_value(),
            js_code=code,
            grant_type="authorization_code",
        )
        try:
            async with asyncio.timeout(TIMEOUT_S):
                found = await self._ask(url)
                if found.errcode == _BUSY:
                    await asyncio.sleep(_PAUSE_S)
                    again = await self._ask(url)
                    found = Exchange(
                        again.openid, again.errcode, again.rid, again.error, repeated=True
                    )
                return found
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return Exchange(error=named(error))

    async def _ask(self, url: URL) -> Exchange:
        async with self._session.get(
            url, allow_redirects=False, **self._outward.way(url)
        ) as response:
            if response.status != 200:
                return Exchange(error=f"HTTP {response.status}")
            raw = b""
            while len(raw) < _MOST and (more := await response.content.read(_MOST - len(raw))):
                raw += more
        return read(raw)


def read(raw: bytes) -> Exchange:
    """Read a reply; of what it says about the session nothing is kept."""
    try:
        answer = orjson.loads(raw)
        errcode = int(answer.get("errcode") or 0)
        openid = answer.get("openid")
        errmsg = str(answer.get("errmsg") or "")
    except (ValueError, AttributeError, TypeError, OverflowError):
        return Exchange(error="not JSON")
    if errcode:
        rid = _RID.search(errmsg)
        return Exchange(errcode=errcode, rid=rid[1] if rid else "")
    if not isinstance(openid, str) or not OPENID.fullmatch(openid):
        return Exchange(error="no openid")
    return Exchange(openid)
