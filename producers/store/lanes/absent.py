"""The absent: nodes of a cluster that give no sign of life, and the lanes that lie on them.

Who only looks, once, asks for them first: what lies on the others may be told at once, and marked
as a part.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from producers.settings import Settings
from producers.store import keys
from producers.store.connection import Client, is_cluster, silent


@dataclass(frozen=True, slots=True)
class Absent:
    """What cannot be asked.

    Attributes:
        nodes: address → the lanes that lie there.
    """

    nodes: Mapping[str, list[int]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.nodes)

    @property
    def lanes(self) -> frozenset[int]:
        """The lanes of which nothing is known."""
        return frozenset(lane for lanes in self.nodes.values() for lane in lanes)

    def in_words(self) -> list[str]:
        """Return a sentence for each node."""
        return [
            f"node {address} of the cluster does not answer: what lies "
            + (f"in its lanes ({', '.join(map(str, lanes))}) " if lanes else "on it ")
            + "is not known"
            for address, lanes in self.nodes.items()
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready fields."""
        return {"nodes": dict(self.nodes), "lanes": sorted(self.lanes), "unknown": self.in_words()}


def absent(client: Client, settings: Settings) -> Absent:
    """Ask each node of a cluster for a sign of life; elsewhere nothing is absent.

    Raises:
        redis.RedisError: none of them says which nodes there are.
    """
    if not is_cluster(client):
        return Absent()
    places = {lane: client.place_of(keys.lane_prefix(lane)) for lane in settings.layout.lanes}
    return Absent(
        {
            f"{host}:{port}": [lane for lane, place in places.items() if place == (host, port)]
            for host, port in silent(client)
        }
    )
