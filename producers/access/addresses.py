"""Addresses of clients: what their header forms mean, and what of one a client cannot change."""

import ipaddress
import re
from typing import Final

_BRACKETED: Final = re.compile(r"\[([^\[\]]*)\](?::[0-9]{1,5})?")
"""An IPv6 address as a URL has it, with a port or without."""
_WITH_PORT: Final = re.compile(r"([0-9.]+):[0-9]{1,5}")
"""An IPv4 address with a port, as some balancers write it."""
_LONGEST: Final = 100


def plain(text: str) -> str:
    """Return the address that a text means, without port, brackets and zone; '' if it means none.

    Args:
        text: such as ``203.0.113.9``, ``203.0.113.9:4711``, ``2001:db8::1``, ``[2001:db8::1]:443``
            or ``fe80::1%eth0``.
    """
    text = text.strip().strip('"')
    if len(text) > _LONGEST:
        return ""
    found = _BRACKETED.fullmatch(text) or _WITH_PORT.fullmatch(text)
    try:
        address = ipaddress.ip_address((found[1] if found else text).partition("%")[0])
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


def network(address: str) -> str:
    """Return what one client cannot change of its address: all of IPv4, the /64 of IPv6.

    What is no address stays what it is.
    """
    known = plain(address)
    if ":" not in known:
        return known or address
    return str(ipaddress.IPv6Network((known, 64), strict=False))
