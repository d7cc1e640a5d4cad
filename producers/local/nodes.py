"""Nodes: the servers of which a cluster, or a primary with its sentinels, is made.

Each is an embedded Valkey with a directory of its own, and may stand behind a link: then all others
know it by the link's port, so that it can be cut off, and its replicas be held back.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from producers.errors import StoreUnavailableError
from producers.local import embedded, link
from producers.local.embedded import Role, Server
from producers.local.link import Link
from producers.local.ports import HOST, free_port

NOBODY: Final = 0
_HEALTHY_S: Final = 60.0
_EVERY_S: Final = 0.05
_ASK_S: Final = 2.0


class Node:
    """One server of several.

    Args:
        server: its process.
        link: before it, or None.
        password: of all nodes.

    Attributes:
        port: the one by which all others know it.
    """

    def __init__(self, server: Server, link: Link | None, password: str) -> None:
        import redis  # noqa: PLC0415 - the command line's --help reads this module
        from redis.backoff import NoBackoff  # noqa: PLC0415 - as above
        from redis.retry import Retry  # noqa: PLC0415 - as above

        self.server = server
        self.link = link
        self.port = link.port if link is not None else server.port
        self._client: Any = redis.Redis(
            host=HOST,
            port=server.port,
            password=password,
            socket_timeout=_ASK_S,
            decode_responses=True,
            retry=Retry(NoBackoff(), 1),  # the first one finds out that it was started again
        )

    def __repr__(self) -> str:
        return f"Node({self.port})"

    @property
    def address(self) -> str:
        """Host and port by which it is known."""
        return f"{HOST}:{self.port}"

    @property
    def client(self) -> Any:
        """A client that leads to it alone, past its link."""
        return self._client

    def ask(self, *command: str | int) -> Any:
        """Run an administrator's command on it.

        Raises:
            redis.RedisError: it does not answer, or refuses.
        """
        return self._client.execute_command(*command)

    def close(self) -> None:
        """Close the client's connections."""
        self._client.close()


class Nodes:
    """Several of them, to be struck and started again.

    Attributes:
        nodes: all that hold data.
    """

    def __init__(self, nodes: Iterable[Node]) -> None:
        self.nodes = list(nodes)

    @property
    def servers(self) -> list[Server]:
        """All processes."""
        return [node.server for node in self.nodes]

    @property
    def running(self) -> list[Node]:
        """Those that can be asked."""
        return [node for node in self.nodes if node.server.answers]

    def is_healthy(self) -> bool:
        """Say whether all that run agree, and nothing is missing."""
        raise NotImplementedError

    def await_healthy(self) -> None:
        """Wait until `is_healthy`.

        Raises:
            StoreUnavailableError: it takes longer.
        """
        await_true(self.is_healthy, "the nodes agree and nothing is missing", _HEALTHY_S)

    def stop_all(self) -> None:
        """Stop every node gracefully, all at once, as a planned stop does."""
        _at_once(Server.stop, self.servers)

    def kill_all(self) -> None:
        """Kill every node (kill -9)."""
        for server in self.servers:
            server.kill()

    def start_all(self) -> None:
        """Start those that do not run."""
        _at_once(Server.start, [server for server in self.servers if not server.running])


def follows(node: Node) -> int:
    """Return the port of the primary whose data a replica has by now; of a primary its own.

    `NOBODY`: it has not got them yet.
    """
    info = node.client.info("replication")
    if info["role"] == "master":
        return node.port
    return int(info["master_port"]) if info["master_link_status"] == "up" else NOBODY


def await_true(holds: Callable[[], bool], what: str, seconds: float = _HEALTHY_S) -> None:
    """Wait until something is so; a node that does not answer does not say so.

    Raises:
        StoreUnavailableError: it takes longer.
    """
    import redis  # noqa: PLC0415 - as `Node`'s

    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(redis.RedisError):
            if holds():
                return
        if time.monotonic() > deadline:
            raise StoreUnavailableError(f"not within {seconds:g} s: {what}")
        time.sleep(_EVERY_S)


@contextlib.contextmanager
def node(
    data_dir: Path,
    password: str,
    lines: Iterable[str],
    *,
    announced: Callable[[int], Iterable[str]] = lambda _: (),
    fsync: str = "everysec",
    behind_link: bool = False,
    options: tuple[str, ...] = (),
) -> Iterator[Node]:
    """Run one node, and stop it at the end.

    Args:
        data_dir: its own.
        password: of all nodes.
        lines: of its configuration.
        announced: given the port by which the others are to know it, returns more of them.
        fsync: ``everysec`` or ``always``.
        behind_link: whether it stands behind a link.
        options: of its command line.
    """
    port = free_port()
    with ExitStack() as stack:
        before = stack.enter_context(link.opened(port)) if behind_link else None
        known = announced(before.port if before is not None else port)
        role = Role(port, password, (*lines, *known), options)
        one = Node(stack.enter_context(embedded.server(data_dir, fsync, role)), before, password)
        stack.callback(one.close)
        yield one


def _at_once(what: Callable[[Server], None], servers: list[Server]) -> None:
    if servers:
        with ThreadPoolExecutor(len(servers)) as threads:
            list(threads.map(what, servers))
