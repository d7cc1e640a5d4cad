"""Carrying: bring keys to other names, on one server or from node to node of a cluster.

On one server a key is renamed. On a cluster the two names lie in different slots: the key is dumped
and put where it belongs, where there are replicas they have it, and then it goes where it was: who
is killed in between leaves two that are equal, and the next run does it again.
"""

from collections.abc import Iterable
from itertools import islice
from typing import Any, Final, NamedTuple

import redis

from producers.store import Client, is_cluster, lend

_PAGE: Final = 500
"""Keys that are carried from node to node in one trip."""
_WAIT_MS: Final = 1000
"""So long replicas are waited for."""


class Renaming(NamedTuple):
    """From which name to which."""

    source: str
    target: str


class Bearer:
    """Carries keys.

    Args:
        client: Redis; not fenced.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._across = is_cluster(client)

    def move(self, renamings: Iterable[Renaming]) -> None:
        """Bring keys to other names; what is not there (any more) is none of them.

        Raises:
            redis.RedisError: Redis did not answer; do it again.
        """
        if self._across:
            self._put(renamings, drop=True)
        else:
            self._rename([("RENAME", *one) for one in renamings])

    def _rename(self, commands: list[tuple[str, ...]]) -> None:
        """Send them past redis-py's pipeline, which takes longer than Redis for each of them."""
        if not commands:
            return
        pool = self._client.connection_pool
        connection = lend(pool)
        try:
            connection.send_packed_command(connection.pack_commands(commands))
            errors = [error for _ in commands if (error := _error_of(connection)) is not None]
        except BaseException:
            connection.disconnect()
            raise
        finally:
            pool.release(connection)
        for error in errors:
            if "no such key" not in str(error):
                raise error

    def copy(self, renamings: Iterable[Renaming]) -> None:
        """Give keys other names too; raises as `move`."""
        if self._across:
            self._put(renamings, drop=False)
            return
        pipeline = self._client.pipeline(transaction=False)
        for one in renamings:
            pipeline.copy(one.source, one.target, replace=True)
        pipeline.execute()

    def _put(self, renamings: Iterable[Renaming], *, drop: bool) -> None:
        left = iter(renamings)
        while page := list(islice(left, _PAGE)):
            asked = self._client.pipeline(transaction=False)
            for one in page:
                asked.dump(one.source)
                asked.pexpiretime(one.source)
            answers = asked.execute()
            found = [
                (one, value, max(0, int(at_ms)))
                for one, value, at_ms in zip(page, answers[::2], answers[1::2], strict=True)
                if value is not None
            ]
            put = self._client.pipeline(transaction=False)
            for one, value, at_ms in found:
                put.restore(one.target, at_ms, value, replace=True, absttl=at_ms > 0)
            put.execute()
            self.await_replicas()
            if drop:
                gone = self._client.pipeline(transaction=False)
                for names in _by_slot(one.source for one, _, _ in found):
                    gone.unlink(*names)
                gone.execute()

    def await_replicas(self) -> None:
        """On a cluster, wait until a replica of each node that has one has all that was written.

        So that a node which dies now takes along nothing that another one has given away. Used by
        the one thread that writes, whose connection to each node is always the same.

        Raises:
            redis.TimeoutError: they do not answer.
        """
        if not self._across:
            return
        replicated = self._client.replicated()
        for (host, port), node in self._client.nodes().items():
            if f"{host}:{port}" in replicated and not node.execute_command("WAIT", 1, _WAIT_MS):
                raise redis.TimeoutError(f"no replica of {host}:{port} acknowledges what it has")


def _by_slot(names: Iterable[str]) -> Iterable[list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(name.partition("}")[0], []).append(name)
    return found.values()


def _error_of(connection: Any) -> redis.ResponseError | None:
    try:
        connection.read_response()
    except redis.ResponseError as error:
        return error
    return None


def cut_off(client: Client) -> None:
    """Close every other connection of the deployment, to each node: who connects anew is told.

    Raises:
        redis.RedisError: Redis did not answer.
    """
    nodes: list[Any] = list(client.nodes().values()) if is_cluster(client) else [client]
    for node in nodes:
        mine, clients = str(node.client_id()), node.client_list()
        [(db, name)] = [(one["db"], one["name"]) for one in clients if one["id"] == mine]
        for one in clients:
            ours = one["name"].startswith("wxbroadcast-") or one["name"] == name
            if ours and one["db"] == db and one["id"] != mine:
                try:
                    node.client_kill_filter(_id=one["id"])
                except redis.ResponseError as error:
                    if "No such client" not in str(error):
                        raise
