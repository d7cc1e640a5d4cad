"""A primary whose replica lags behind, at one address that leads to whoever is the primary."""

import contextlib
import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from producers.local import link
from producers.local.link import Link
from producers.local.nodes import Node, await_true, follows, node

LAG_S = 0.3


class Pair:
    """A primary, its replica, and their address, as a managed Redis gives one."""

    def __init__(self, primary: Node, replica: Node, address: Link, password: str) -> None:
        self.primary = primary
        self.replica = replica
        self.address = address
        self._password = password

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@127.0.0.1:{self.address.port}"

    @property
    def between(self) -> Link:
        """What the replica is streamed comes this way."""
        way = self.primary.link
        assert way is not None
        return way

    def lag(self, seconds: float) -> None:
        """Let the replica be so far behind."""
        self.between.lag(seconds)

    def fail_over(self) -> None:
        """Kill the primary (kill -9); the replica takes over with what it has."""
        self.primary.server.kill()
        self.replica.ask("REPLICAOF", "NO", "ONE")
        self.address.lead_to(self.replica.server.port)

    def comes_back(self) -> None:
        """Start the killed one, as the replica of the other."""
        self.primary.server.start()
        self.primary.ask("REPLICAOF", "127.0.0.1", self.replica.port)
        self.in_step(self.primary, self.replica)

    @staticmethod
    def in_step(replica: Node, primary: Node) -> None:
        await_true(lambda: follows(replica) == primary.port, "the replica follows")


@contextlib.contextmanager
def pair(folder: Path) -> Iterator[Pair]:
    password = secrets.token_urlsafe(24)
    lines = (f"primaryauth {password}", "repl-diskless-sync-delay 0", "shutdown-timeout 0")
    with ExitStack() as stack:

        def one(name: str, *more: str) -> Any:
            made = node(folder / name, password, (*lines, *more), behind_link=True)
            return stack.enter_context(made)

        primary = one("primary")
        replica = one("replica", f"replicaof 127.0.0.1 {primary.port}")
        address = stack.enter_context(link.opened(primary.server.port))
        made = Pair(primary, replica, address, password)
        made.in_step(replica, primary)
        yield made
