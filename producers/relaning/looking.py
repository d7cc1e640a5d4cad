"""Looking: what lies in lanes, some at a time, and who serves their slots."""

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, TypeVar

from producers.relaning.places import Place
from producers.store import Client, is_cluster

LOOK_S: Final = 0.05
_PAGE: Final = 1000
"""Keys of one look."""

T = TypeVar("T")
Progress = Callable[[str, int], None]
"""Called with what is being done, and how much of it was."""


class Looks:
    """Looks at lanes.

    Args:
        client: Redis, not fenced.
        hold: called before each look; it raises where it is no longer this run's turn.
        on_progress: is told what is waited for.
    """

    def __init__(self, client: Client, hold: Callable[[], None], on_progress: Progress) -> None:
        self._client = client
        self._hold = hold
        self._on_progress = on_progress

    def pages(self, match: str) -> Iterator[list[Place]]:
        """Yield keys of lanes, some at a time."""
        found = self._client.scan_iter(match=match, count=_PAGE)
        while names := list(islice(found, _PAGE)):
            self._hold()
            yield [place for name in names if (place := Place.of(name)) and place.way]

    def asked(self, what: Sequence[T], ask: Callable[[Any, T], object]) -> Iterator[Any]:
        """Yield the answer to a question about each, some in one trip."""
        for start in range(0, len(what), _PAGE):
            pipeline = self._client.pipeline(transaction=False)
            for one in what[start : start + _PAGE]:
                ask(pipeline, one)
            yield from pipeline.execute()

    def served(self) -> list[dict[str, Any]]:
        """Return who serves which slots of a cluster, once none of them is on its way."""
        while is_cluster(self._client):
            nodes = self._client.nodes().values()
            told = [_own(node.execute_command("CLUSTER NODES")) for node in nodes]
            under_way = sum(len(one["migrations"]) for one in told)
            if not under_way:
                return told
            self._on_progress("slots that are resharded", under_way)
            time.sleep(LOOK_S)
        return []


def _own(told: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return what a node says of itself: its id, its slots, and those that are on their way."""
    [own] = [one for one in told.values() if "myself" in one["flags"]]
    return {field: own[field] for field in ("node_id", "slots", "migrations")}
