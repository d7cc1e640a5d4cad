"""Carrying: copy keys to other names, on one server or from node to node of a cluster.

On a cluster the two names lie in different slots: the key is dumped, and restored where it belongs.
"""

import contextlib
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final, NamedTuple

import redis

from producers.store import Client, is_cluster, keys, lend, sentinels_of
from producers.store.primary import NotDoneError

_PAGE: Final = 500
"""Keys that are copied in one trip."""
_NOBODY: Final = 2**62
"""No connection has such an id."""
_WAIT_MS: Final = 1000
"""So long replicas are waited for."""


class Copying(NamedTuple):
    """From which name to which."""

    source: str
    target: str


class Bearer:
    """Carries keys.

    Args:
        client: Redis; no lane refuses it.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._across = is_cluster(client)

    def copy(self, copyings: Iterable[Copying]) -> None:
        """Give keys other names too; what is not there (any more) is none of them.

        Raises:
            redis.RedisError: Redis did not answer; do it again.
        """
        left = iter(copyings)
        while page := list(islice(left, _PAGE)):
            if self._across:
                self._restore(page)
            else:
                self._copy(page)

    def _copy(self, page: list[Copying]) -> None:
        """Copy past redis-py's pipeline, which takes longer than Redis for each of them."""
        pool = self._client.connection_pool
        connection = lend(pool)
        try:
            commands = [("COPY", one.source, one.target, "REPLACE") for one in page]
            connection.send_packed_command(connection.pack_commands(commands))
            errors = [error for _ in commands if (error := _error_of(connection)) is not None]
        except BaseException:
            connection.disconnect()
            raise
        finally:
            pool.release(connection)
        if errors:
            raise errors[0]

    def _restore(self, page: list[Copying]) -> None:
        asked = self._client.pipeline(transaction=False)
        for one in page:
            asked.dump(one.source)
            asked.pexpiretime(one.source)
        answers = asked.execute()
        put = self._client.pipeline(transaction=False)
        for one, value, ends_at_ms in zip(page, answers[::2], answers[1::2], strict=True):
            if value is not None:
                at_ms = max(0, int(ends_at_ms))
                put.restore(one.target, at_ms, value, replace=True, absttl=at_ms > 0)
        put.execute()

    def drop(self, names: Iterable[str]) -> None:
        """Take keys of one lane away; raises as `copy`."""
        left = iter(names)
        while page := list(islice(left, _PAGE)):
            self._client.unlink(*page)

    def await_replicas(self) -> None:
        """Wait until a replica of each server that a replica may follow has all that was written.

        So that who dies now takes along nothing that is taken away elsewhere, or was announced.
        Used by the one thread that writes, whose connection to each node is always the same.

        Raises:
            NotDoneError: none has it in time.
        """
        for where, server in self._followed():
            if not server.execute_command("WAIT", 1, _WAIT_MS):
                raise NotDoneError(f"no replica of {where} acknowledges what it has")

    def await_disks(self) -> None:
        """Have nodes of a cluster without a replica write down what they were given.

        They forget each for itself, where the power fails. One that writes nothing down, or has
        no ``WAITAOF`` (Redis 7.2), is not waited for; raises as `copy`.
        """
        if not self._across:
            return
        replicated = self._client.replicated()
        for (host, port), node in self._client.nodes().items():
            if f"{host}:{port}" not in replicated:
                with contextlib.suppress(redis.ResponseError):
                    node.execute_command("WAITAOF", 1, 0, _WAIT_MS)

    def _followed(self) -> Iterator[tuple[str, Any]]:
        if self._across:
            replicated = self._client.replicated()
            for (host, port), node in self._client.nodes().items():
                if f"{host}:{port}" in replicated:
                    yield f"{host}:{port}", node
            return
        named = sentinels_of(self._client) is not None
        if named and self._client.info("replication").get("connected_slaves"):
            yield "the primary", self._client


def _error_of(connection: Any) -> redis.ResponseError | None:
    try:
        connection.read_response()
    except redis.ResponseError as error:
        return error
    return None


def check_rights(client: Client) -> None:
    """Try what a user of few rights may not run, and what would end a change half-way.

    Raises:
        redis.NoPermissionError: its text names the command.
        redis.RedisError: Redis did not answer.
    """
    across = is_cluster(client)
    nodes: list[Any] = list(client.nodes().values()) if across else [client]
    for node in nodes:
        node.client_list()
        node.client_kill_filter(_id=str(_NOBODY))
        if across:
            node.execute_command("CLUSTER NODES")
    if across:
        client.dump(keys.DEPLOYMENT)
        try:
            client.restore(keys.DEPLOYMENT, 0, b"")  # it is there, and stays as it is
        except redis.exceptions.NoPermissionError:
            raise
        except redis.ResponseError:
            pass


def cut_off(client: Client, roles: Iterable[str] = ("",)) -> None:
    """Close other connections of the deployment, to each node: who connects anew learns of lanes.

    Args:
        client: Redis.
        roles: those of these (`connection.Role`) alone, and those that have no name of ours; ''
            is all.

    Raises:
        redis.RedisError: Redis did not answer.
    """
    begins = tuple(f"wxbroadcast-{role}" for role in roles)
    nodes: list[Any] = list(client.nodes().values()) if is_cluster(client) else [client]
    for node in nodes:
        mine, clients = str(node.client_id()), node.client_list()
        [(db, name)] = [(one["db"], one["name"]) for one in clients if one["id"] == mine]
        for one in clients:
            ours = one["name"].startswith(begins) or (
                one["name"] == name and not name.startswith("wxbroadcast-")
            )
            if ours and one["db"] == db and one["id"] != mine:
                try:
                    node.client_kill_filter(_id=one["id"])
                except redis.ResponseError as error:
                    if "No such client" not in str(error):
                        raise
