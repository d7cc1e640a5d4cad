"""Addresses: where a webhook may go: to public ones, and to those that the settings name.

A URL is an app's setting, but a name's address is its owner's choice at any moment, and a redirect
the choice of whoever answers. So that nobody reaches this network's inner services through a
worker, the very address that is connected to is looked at, each time, and no redirect is followed.

Names are looked up on threads of their own, one per name: a name server that hangs for one app
holds up neither the others nor the sending.
"""

import asyncio
import contextlib
import ipaddress
import socket
import threading
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, Final

from aiohttp.abc import AbstractResolver, ResolveResult

Network = IPv4Network | IPv6Network

_NAT64: Final = IPv6Network("64:ff9b::/96")
"""RFC 6052: the last four bytes are an IPv4 address."""


class ForbiddenAddressError(OSError):
    """A webhook leads to an address where none may go."""


def is_allowed(text: str, networks: Sequence[Network] = ()) -> bool:
    """Say whether a webhook may go to an address.

    Args:
        text: the address.
        networks: private ones that it may reach.
    """
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if lies_in(text, networks):
        return True
    meant = _meant(address)
    return meant.is_global and not meant.is_multicast and not meant.is_reserved


def lies_in(text: str, networks: Sequence[Network]) -> bool:
    """Say whether an address, or the one that it carries, lies in one of these networks."""
    address = ipaddress.ip_address(text.partition("%")[0])
    return any(one in network for network in networks for one in (address, _meant(address)))


def _meant(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the IPv4 address that an IPv6 one carries, where it does."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(address.packed[-4:])
    if address.teredo:
        return address.teredo[1]
    return address.ipv4_mapped or address.sixtofour or address


def is_address(host: str) -> bool:
    """Say whether a URL's host is an address, which nobody looks up."""
    with contextlib.suppress(ValueError):
        return bool(ipaddress.ip_address(host.strip("[]").partition("%")[0]))
    return False


class Resolver(AbstractResolver):
    """Looks names up, and gives the allowed ones of their addresses; belongs to one event loop."""

    def __init__(self, networks: Sequence[Network]) -> None:
        self._networks = networks
        self._asked: dict[str, asyncio.Future[list[Any]]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a name.

        Raises:
            ForbiddenAddressError: none of them is allowed.
            OSError: it has none.
        """
        found = await asyncio.shield(self._asked.get(host) or self._ask(host))
        allowed = [
            ResolveResult(
                hostname=host,
                host=place[0],
                port=port,
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, place in found
            if family in {socket.AF_UNSPEC, kind} and is_allowed(str(place[0]), self._networks)
        ]
        if not allowed:
            raise ForbiddenAddressError(f"{len(found)} addresses, none of them allowed")
        return allowed

    def _ask(self, host: str) -> asyncio.Future[list[Any]]:
        loop = asyncio.get_running_loop()
        asked: asyncio.Future[list[Any]] = loop.create_future()
        asked.add_done_callback(lambda _: self._asked.pop(host, None))
        asked.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._asked[host] = asked

        def answer(found: list[Any], error: OSError | None) -> None:
            if asked.done():
                return
            if error is None:
                asked.set_result(found)
            else:
                asked.set_exception(error)

        def look_up() -> None:
            found, error = list[Any](), None
            try:
                found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError) as failed:
                error = failed if isinstance(failed, OSError) else OSError("no name")
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(answer, found, error)

        threading.Thread(target=look_up, name="webhook names", daemon=True).start()
        return asked

    async def close(self) -> None:
        """Wait for nobody: the threads end by themselves."""
