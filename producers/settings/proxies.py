"""Proxies: which HTTP proxy calls to WeChat and other services go by."""

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

ENVIRONMENT: Final = "environment"
"""As HTTPS_PROXY and HTTP_PROXY say, or the same in lower case."""

_SCHEMES: Final = ("https", "http")


def proxies(wanted: str) -> Mapping[str, str]:
    """Return the URL of the proxy for each scheme of those that have one.

    Args:
        wanted: a URL, `ENVIRONMENT`, or '' for none.

    Raises:
        ValueError: it is no such URL; its text holds nothing of it.
    """
    if wanted != ENVIRONMENT:
        return dict.fromkeys(_SCHEMES, _checked(wanted, "")) if wanted else {}
    found = getproxies_environment()
    return {
        scheme: _checked(found[scheme], f"{scheme.upper()}_PROXY ")
        for scheme in _SCHEMES
        if found.get(scheme)
    }


def is_excepted(host: str, port: int | None) -> bool:
    """Say whether NO_PROXY names a host, or what it ends with, so that no proxy is asked."""
    return bool(proxy_bypass(f"{host}:{port}"))


def _checked(url: str, where: str) -> str:
    """Return a proxy's URL; without a scheme, as curl takes it, it is http://."""
    whole = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(whole)
        named = parts.scheme == "http" and parts.hostname and parts.port
        if named and parts.path in {"", "/"} and not parts.query and not parts.fragment:
            return whole.rstrip("/")
    except ValueError:
        pass
    raise ValueError(
        f"{where}must be http://host:port or http://user:password@host:port, what is special in "
        f"them percent-encoded; or {ENVIRONMENT!r}"
    )
