"""Sentinels: where the primary is just now, asked whenever a connection is made, and each second.

All of them are asked at once. One that is cut off from the others goes on naming the primary of
before; so where they differ those count that know of the latest failover (the configuration epoch,
which Sentinel raises with each of them). What this process heard of it once counts against fewer
than most of them. Who does not answer is not asked for a while. While they choose a new primary
nobody is named: that is as a Redis that does not answer, and callers repeat. A connection that
lives on to a server which is no primary any more is left (`primary`).

redis-py's `Sentinel.discover_master` takes the first answer, whatever the others would say.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, Final

import redis
import redis.asyncio

from producers.settings.redis_url import RedisUrl
from producers.store import deadline
from producers.store.patience import PatientPool, Place, lend
from producers.store.primary import Fleet, NobodyNamesError

_ASK_S: Final = 1.0
"""How long one sentinel is waited for."""

_SILENT_S: Final = 10.0
"""Who did not answer is asked again after that, or when nobody else names a primary."""

_CONNECTIONS: Final = 2

_OF_THE_PRIMARY: Final = (
    *("username", "password", "db", "connection_class", "max_connections"),
    "fence",
)

_ASK: Final = "SENTINEL MASTERS"


def _made_of(where: RedisUrl, made_of: dict[str, Any]) -> dict[str, Any]:
    """Return what the pool to a sentinel is made of: as that to the primary, with its own user."""
    shared = {name: value for name, value in made_of.items() if name not in _OF_THE_PRIMARY}
    seconds = min(_ASK_S, float(made_of["socket_timeout"]))
    return {
        **shared,
        **where.sentinel,
        "connection_class": made_of["connection_class"],
        "max_connections": _CONNECTIONS,
        "decode_responses": True,
        "socket_timeout": seconds,
        "socket_connect_timeout": seconds,
    }


class _Asked:
    """What several sentinels say, and which of them are worth asking.

    Args:
        service: what the primary is called.
        hosts: of the sentinels.
    """

    def __init__(self, service: str, hosts: Iterable[Place]) -> None:
        self.service = service
        self._silent_until = dict.fromkeys(hosts, 0.0)
        self._errors: dict[Place, str] = {}
        self._latest = 0

    def in_turn(self) -> list[list[Place]]:
        """Return whom to ask, and whom then if nobody of these names a primary."""
        now = time.monotonic()
        silent = [host for host, until in self._silent_until.items() if until > now]
        first = [host for host in self._silent_until if host not in silent]
        return [hosts for hosts in (first, silent) if hosts]

    def failed(self, host: Place, error: redis.RedisError) -> None:
        """Note that one did not answer; who had no time to wait for it knows nothing of it."""
        self._errors[host] = f"{host[0]}:{host[1]}: {error}"
        left_s = deadline.left_s()
        if left_s is None or left_s > _ASK_S or not isinstance(error, redis.TimeoutError):
            self._silent_until[host] = time.monotonic() + _SILENT_S

    def answered(self, host: Place) -> None:
        """Note that one did."""
        self._silent_until[host] = 0.0
        self._errors.pop(host, None)

    def named_in(self, answers: Iterable[dict[str, Any]]) -> Place | None:
        """Return the primary that is up, as those say who know of the latest failover."""
        states = [answer[self.service] for answer in answers if self.service in answer]
        latest = max((int(state["config-epoch"]) for state in states), default=0)
        if latest < self._latest and 2 * len(states) <= len(self._silent_until):
            return None
        self._latest = latest
        for state in states:
            is_up = state["is_master"] and not state["is_sdown"] and not state["is_odown"]
            if is_up and int(state["config-epoch"]) == latest:
                return str(state["ip"]), int(state["port"])
        return None

    def nobody(self, answers: list[dict[str, Any]]) -> NobodyNamesError:
        """Return the error of who found no primary, with what the sentinels said."""
        if not answers:
            said = ", ".join(self._errors.values())
            return NobodyNamesError(f"no sentinel answers ({said}): {_to_do(said)}")
        if any(self.service in answer for answer in answers):
            said = ", ".join(self._errors.values())
            return NobodyNamesError(
                f"the sentinels that answer take {self.service} for down, or know nothing of the "
                f"latest failover{f' ({said})' if said else ''}: start it, or them"
            )
        names = ", ".join(sorted({name for answer in answers for name in answer})) or "none"
        return NobodyNamesError(f"no sentinel knows {self.service}; take one of: {names}")


@cache
def _asked_of(service: str, hosts: tuple[Place, ...]) -> _Asked:
    """Return what all clients of this process know of the same sentinels."""
    return _Asked(service, hosts)


class Sentinels:
    """Says where the primary is; for any thread.

    Args:
        where: the URL.
        made_of: of the pool to the primary.
    """

    def __init__(self, where: RedisUrl, made_of: dict[str, Any]) -> None:
        own = _made_of(where, made_of)
        self._asked = _asked_of(where.service, tuple(where.hosts))
        self._clients = {
            (host, port): redis.Redis.from_pool(
                PatientPool(**own, fleet=Fleet(), host=host, port=port)  # type: ignore[no-untyped-call]
            )
            for host, port in where.hosts
        }

    @property
    def service(self) -> str:
        """What the primary is called."""
        return self._asked.service

    def __call__(self) -> Place:
        """Return where the primary is.

        Raises:
            NobodyNamesError: no sentinel knows one that is up.
        """
        answers: list[dict[str, Any]] = []
        for hosts in self._asked.in_turn():
            answers += self._answers(hosts)
            if place := self._asked.named_in(answers):
                return place
        raise self._asked.nobody(answers)

    def _answers(self, hosts: list[Place]) -> list[dict[str, Any]]:
        """Ask some of them at once, and wait for their answers."""
        answers = []
        with contextlib.ExitStack() as stack:
            waiting: dict[Place, Any] = {}
            for host in hosts:
                with self._may_fail(host):
                    pool = self._clients[host].connection_pool
                    connection = lend(pool)
                    stack.callback(self._give_back, pool, connection, waiting, host)
                    connection.send_command(*_ASK.split())
                    waiting[host] = connection
            for host, connection in list(waiting.items()):
                with self._may_fail(host):
                    client: Any = self._clients[host]
                    answers.append(client.parse_response(connection, _ASK))
                    del waiting[host]
                    self._asked.answered(host)
        return answers

    @contextlib.contextmanager
    def _may_fail(self, host: Place) -> Iterator[None]:
        try:
            yield
        except redis.RedisError as error:
            self._asked.failed(host, error)

    @staticmethod
    def _give_back(pool: Any, connection: Any, waiting: dict[Place, Any], host: Place) -> None:
        if host in waiting:  # its answer is still to come, and would be taken for the next one's
            connection.disconnect()
        pool.release(connection)

    def each(self) -> dict[str, Any]:
        """Return a client to each sentinel, by its address."""
        return {f"{host}:{port}": client for (host, port), client in self._clients.items()}

    def close(self) -> None:
        """Close the connections to them; the next question opens others."""
        for client in self._clients.values():
            client.connection_pool.disconnect()


class LoopSentinels:
    """As `Sentinels`, for an event loop."""

    def __init__(self, where: RedisUrl, made_of: dict[str, Any]) -> None:
        own = _made_of(where, made_of)
        self._asked = _asked_of(where.service, tuple(where.hosts))
        self._clients = {
            (host, port): redis.asyncio.Redis.from_pool(
                redis.asyncio.BlockingConnectionPool(**own, fleet=Fleet(), host=host, port=port)
            )
            for host, port in where.hosts
        }

    async def __call__(self) -> Place:
        """Return where the primary is; as `Sentinels`."""
        answers: list[dict[str, Any]] = []
        for hosts in self._asked.in_turn():
            said = await asyncio.gather(*(self._answer(host) for host in hosts))
            answers += [one for one in said if one is not None]
            if place := self._asked.named_in(answers):
                return place
        raise self._asked.nobody(answers)

    async def _answer(self, host: Place) -> dict[str, Any] | None:
        try:
            client: Any = self._clients[host]
            answer: dict[str, Any] = await client.sentinel_masters()
        except redis.RedisError as error:
            self._asked.failed(host, error)
            return None
        self._asked.answered(host)
        return answer

    async def aclose(self) -> None:
        """As `Sentinels.close`."""
        for client in self._clients.values():
            await client.connection_pool.disconnect()


def _to_do(said: str) -> str:
    """Return what to do about sentinels that all failed, by what they said."""
    if "unknown command" in said:
        return "these are no sentinels: name theirs, or set redis:// for one server"
    if "username-password" in said or "Authentication" in said or "no permissions" in said:
        return "set what they take: ?sentinel_password=, and sentinel_username"
    if "Timeout connecting" in said:
        return "start them, or name others (redis+sentinel:// where they speak no TLS)"
    if "closed" in said or "reset by peer" in said:
        return "start them, or name others (rediss+sentinel:// where they want TLS)"
    return "start them, or name others"
