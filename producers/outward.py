"""Outward: how this machine calls WeChat and other services: whom it trusts, and by which proxy.

Certificates are checked against the system's authorities, which OpenSSL's own ``SSL_CERT_FILE`` and
``SSL_CERT_DIR`` replace, and those of ``WXB_EGRESS_CA_FILE`` beside them.

With ``WXB_EGRESS_PROXY`` https:// goes through a tunnel of the proxy (CONNECT), so that the proxy
sees the host and nothing of the call; http:// is the proxy's to forward. Names of ``NO_PROXY`` are
reached past it. The proxy's password is in no URL that a library could print: it travels as a
header of its own.

Source: RFC 9110, section 9.3.6 (CONNECT); curl's manual for the variables.
"""

import base64
import ssl
from typing import Any, Final

import aiohttp
from yarl import URL

from producers.settings import Settings, is_excepted, proxies

_AUTHORIZATION: Final = "Proxy-Authorization"


class ProxyError(aiohttp.ClientConnectionError):
    """The proxy gave no tunnel, so that nothing was sent; ``status`` is its answer, 0: none."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the proxy answered {status or 'nothing'}")
        self.status = status


NEVER_SENT: Final = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, ProxyError)
"""What a call raises of which no byte has left."""


def named(error: Exception) -> str:
    """Say what broke; never its text, which may hold the URL with what is secret in it."""
    status = error.status if isinstance(error, ProxyError) else 0
    return f"{type(error).__name__} {status}" if status else type(error).__name__


class Outward:
    """See the module.

    Attributes:
        tls: what connections are to be made with; True: as aiohttp makes them.
    """

    def __init__(self, settings: Settings) -> None:
        self.tls: ssl.SSLContext | bool = True
        if settings.egress_ca_file is not None:
            self.tls = ssl.create_default_context()
            self.tls.load_verify_locations(settings.egress_ca_file)
            self.tls.set_alpn_protocols(["http/1.1"])
        found = proxies(settings.egress_proxy.get_secret_value())
        self._proxies = {scheme: URL(text) for scheme, text in found.items()}
        self._ways: dict[tuple[str, str, int | None], dict[str, Any]] = {}

    @property
    def has_proxy(self) -> bool:
        """Whether some calls go by a proxy."""
        return bool(self._proxies)

    def connector(self, **options: Any) -> aiohttp.TCPConnector:
        """Return a connector, for one event loop.

        Args:
            options: aiohttp's.
        """
        kind = _Tunnels if self._proxies else aiohttp.TCPConnector
        return kind(ssl=self.tls, **options)

    def way(self, url: URL) -> dict[str, Any]:
        """Return what aiohttp is to be told of a request to a URL: nothing, or which proxy."""
        if not self._proxies:
            return _DIRECT
        place = (url.scheme, url.host or "", url.port)
        if place not in self._ways:
            self._ways[place] = self._found(url)
        return self._ways[place]

    def _found(self, url: URL) -> dict[str, Any]:
        proxy = self._proxies.get(url.scheme)
        if proxy is None or is_excepted(url.host or "", url.port):
            return _DIRECT
        way: dict[str, Any] = {"proxy": proxy.with_user(None)}
        if proxy.user is not None:
            told = base64.b64encode(f"{proxy.user}:{proxy.password or ''}".encode()).decode()
            # of a tunnel it is the tunnel's own header; else the proxy reads the request's
            kind = "proxy_headers" if url.scheme == "https" else "headers"
            way[kind] = {_AUTHORIZATION: f"Basic {told}"}
        return way


_DIRECT: Final[dict[str, Any]] = {}


class _Tunnels(aiohttp.TCPConnector):
    """Tells what breaks on the way to a connection from what breaks on the connection."""

    async def connect(self, req: aiohttp.ClientRequest, *args: Any, **more: Any) -> Any:
        """Return a connection.

        Raises:
            ProxyError: the proxy refused, or answered nothing that it should.
            aiohttp.ClientConnectorError: as ever.
        """
        try:
            return await super().connect(req, *args, **more)
        except aiohttp.ClientConnectorError:
            raise
        # raised outside of the handlers, or the refusal with its request would be the context
        except aiohttp.ClientResponseError as error:
            status = error.status
        except aiohttp.ClientError:
            if req.proxy is None:
                raise
            status = 0
        raise ProxyError(status)
