"""The address of Redis: one server, a primary that sentinels name, or a cluster, by its URL.

===========================================  =======================================================
``redis://host:6379/0``                      one server; ``rediss://`` over TLS; ``unix://``
``redis+sentinel://h1,h2,h3/mymaster/0``     the primary ``mymaster``, as the sentinels name it
``redis+cluster://h1,h2``                    a Redis or Valkey Cluster; any of its nodes will do
===========================================  =======================================================

``rediss+sentinel://`` and ``rediss+cluster://`` speak TLS, to the sentinels too. User and password
stand before the first host; what redis-py reads of a URL's query it reads of each of these. The
sentinels' own user and password are ``?sentinel_username=`` and ``?sentinel_password=``.
"""

from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.parse import unquote, urlsplit

import redis.connection

Kind = Literal["single", "sentinel", "cluster"]

_KINDS: Final[dict[str, Kind]] = {"": "single", "sentinel": "sentinel", "cluster": "cluster"}
_PORTS: Final[dict[Kind, int]] = {"single": 6379, "sentinel": 26_379, "cluster": 6379}

SCHEMES: Final = (
    "redis://",
    "rediss://",
    "unix://",
    "redis+sentinel://",
    "rediss+sentinel://",
    "redis+cluster://",
    "rediss+cluster://",
)

_ENCODE: Final = "a password with / ? # @ or : is to be percent-encoded"


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """A URL, taken apart.

    Attributes:
        kind: what is there.
        way: ``redis``, ``rediss`` or ``unix``: how a connection is made.
        hosts: of the sentinels, or of some nodes of the cluster; or of the server.
        service: what the sentinels call the primary.
        options: of a connection, as redis-py names them; without host and port where the URL names
            several.
        sentinel: user and password of the sentinels, likewise.
    """

    kind: Kind
    way: str
    hosts: tuple[tuple[str, int], ...]
    service: str
    options: dict[str, Any]
    sentinel: dict[str, Any]


def parsed(url: str) -> RedisUrl:
    """Take a URL apart.

    Raises:
        ValueError: it is none; its text holds nothing of the URL.
    """
    if not url.startswith(SCHEMES):
        raise ValueError(f"must start with {', '.join(SCHEMES[:-1])} or {SCHEMES[-1]}")
    scheme, _, rest = url.partition("://")
    way, _, kind_name = scheme.partition("+")
    kind = _KINDS[kind_name]
    place, _, query = rest.partition("#")[0].partition("?")
    if kind == "single":
        path = place.partition("/")[2]
        if way != "unix" and ((path and not path.isdigit()) or "@" in query):
            # a / or ? of a password ends its host: the rest would be taken for a path
            raise ValueError(
                "after the host only a database number may come, such as redis://host:6379/0; "
                f"{_ENCODE}"
            )
        options = _options(url)
        host = str(options.get("host", "localhost")), int(options.get("port", _PORTS[kind]))
        return RedisUrl(kind, way, (host,), "", options, {})
    return _of_several(kind, way, place, query)


def _of_several(kind: Kind, way: str, place: str, query: str) -> RedisUrl:
    netloc, _, path = place.partition("/")
    user, at, hosts = netloc.rpartition("@")
    service, _, database = path.partition("/") if kind == "sentinel" else ("", "", path)
    example = (
        "redis+sentinel://host1:26379,host2:26379/mymaster/0"
        if kind == "sentinel"
        else "redis+cluster://host1:6379,host2:6379"
    )
    if "@" in query or "@" in path or (database and not database.isdigit()):
        raise ValueError(f"not as {example}; {_ENCODE}")
    if kind == "sentinel" and not service:
        raise ValueError(f"the name of the primary is missing, such as {example}")
    if kind == "cluster" and database.lstrip("0"):
        raise ValueError("a cluster has one database, 0: leave the number out")
    found = tuple(_host(one, _PORTS[kind], example) for one in hosts.split(","))
    asked = f"?{query}" if query else ""
    options = _options(f"{way}://{user}{at}host/{database}{asked}")
    sentinel = {
        name.partition("_")[2]: options.pop(name)
        for name in ("sentinel_username", "sentinel_password")
        if name in options
    }
    if kind == "cluster":
        options.pop("db", None)
    del options["host"]
    return RedisUrl(kind, way, found, unquote(service), options, sentinel)


def _host(text: str, port: int, example: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, given = parts.hostname, parts.port
    except ValueError:
        host, given = None, None
    if not host:
        raise ValueError(f"a host is missing or wrong: name them as {example}; {_ENCODE}")
    return unquote(host), port if given is None else given


def _options(url: str) -> dict[str, Any]:
    """Return what redis-py reads of a URL that names one server."""
    try:
        options: dict[str, Any] = redis.connection.parse_url(url)  # type: ignore[no-untyped-call]
    except ValueError:
        # its text may hold the password
        raise ValueError("not a Redis URL, such as redis://host:6379/0") from None
    connection = options.pop("connection_class", redis.connection.Connection)
    checked = {name: value for name, value in options.items() if name not in _NOT_OF_CONNECTIONS}
    try:
        connection(**checked)  # connects to nothing
    except TypeError as error:
        unknown = str(error).rpartition("argument ")[2] or "one"
        raise ValueError(f"the URL has an unknown parameter: {unknown}") from None
    return options


_NOT_OF_CONNECTIONS: Final = ("max_connections", "sentinel_username", "sentinel_password")
