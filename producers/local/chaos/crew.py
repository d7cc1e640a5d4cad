"""The crew: everything of a run that can be struck, and what each fault needs of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from producers.broadcasts import Broadcasts
from producers.local.chaos.door import Door
from producers.local.chaos.figures import Figures
from producers.local.chaos.schedule import Fault
from producers.local.chaos.shards import Links, Shards
from producers.local.chaos.watch import Watch
from producers.local.embedded import Server
from producers.local.link import Link
from producers.local.supervisor import Supervisor
from producers.sandbox.control.client import SandboxClient

Later = tuple[float, Callable[[], object]]
"""In how many seconds, what."""


@dataclass
class Crew:
    """Everything that can be struck.

    Attributes:
        server, link, units, wechat, broadcasts: the parts.
        watch: told of every dead or stopped worker.
        broadcast: the id of the one that is sent.
        struck: fault → how often so far.
        paused: pauses that are not resumed yet.
        door: the service and its phones, if there are hostile ones.
        figures: of the workers, if they are compared.
        lost: share of Redis's replies that are lost.
        rules: what goes wrong at WeChat.
        lanes: how many there are.
    """

    server: Server | Shards
    link: Link | Links
    units: Supervisor
    wechat: SandboxClient
    broadcasts: Broadcasts
    watch: Watch
    broadcast: str = ""
    struck: dict[Fault, int] = field(default_factory=dict)
    paused: int = 0
    door: Door | None = None
    figures: Figures | None = None
    lost: float = 0.0
    rules: list[dict[str, Any]] = field(default_factory=list)
    lanes: int = 1

    def unit(self, number: int) -> str:
        """Return a unit's name by its number."""
        return self.units.units[number]
