"""Service links: what Kubernetes and Docker set of their own accord, and is no setting.

In a pod each Service of the namespace leaves some, named after it: one named ``wxb-web`` leaves
``WXB_WEB_SERVICE_HOST``, ``WXB_WEB_PORT_80_TCP_ADDR`` and, as a setting is named, ``WXB_WEB_PORT``.
They are known by name, or where a setting has that name too, by what only they hold.

Source: Kubernetes docs, "Service: discovering services, environment variables"; Docker's legacy
container links have the same names.
"""

import re
from collections.abc import Mapping
from typing import Final, TypeVar

_NAME: Final = re.compile(
    r".+_SERVICE_(HOST|PORT(_\w+)?)|.+_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?", re.IGNORECASE
)
_PORT: Final = re.compile(r".+_PORT", re.IGNORECASE)
_PLACE: Final = re.compile(r"(tcp|udp|sctp)://\S+:\d{1,5}")

_Value = TypeVar("_Value", str, str | None)


def is_link(name: str, value: str | None) -> bool:
    """Say whether a variable is a service link.

    Args:
        name: in any case.
        value: of ``WXB_WEB_PORT`` for instance ``tcp://10.0.0.1:80``.
    """
    if _NAME.fullmatch(name):
        return True
    return bool(_PORT.fullmatch(name) and _PLACE.fullmatch(value or ""))


def links(variables: Mapping[str, str], prefix: str) -> list[str]:
    """Return the names of those with a prefix (in upper case) that are service links, in order."""
    return sorted(
        name
        for name, value in variables.items()
        if name.upper().startswith(prefix) and is_link(name, value)
    )


def without_links(variables: Mapping[str, _Value]) -> dict[str, _Value]:
    """Return the variables that are none."""
    return {name: value for name, value in variables.items() if not is_link(name, value)}
