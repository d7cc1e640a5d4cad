"""The roster: which workers are alive, and which apps they know.

It answers why a broadcast that runs does not move. A look costs two trips to Redis.
"""

from dataclasses import dataclass
from typing import Any, Final

from producers import keys
from producers.retry import repeat_all
from producers.store import Client

_ALIVE_MS: Final = 5000
"""A worker beats each second; one that was silent for so long is not counted on."""


@dataclass(frozen=True, slots=True)
class Roster:
    """Who works at one moment.

    Attributes:
        workers: how many are alive.
        apps: the apps that they know; None when one of them has not said.
    """

    workers: int
    apps: frozenset[str] | None

    def knows(self, app: str) -> bool:
        """Say whether some worker may send for an app."""
        return self.workers > 0 and (self.apps is None or app in self.apps)

    def hinders(self, app: str) -> str:
        """Return why nothing of an app is sent, and what to do; '' when workers are there."""
        if not self.workers:
            return "no worker alive: start `wxbroadcast up`, or the worker line of the Procfile"
        if not self.knows(app):
            known = ", ".join(sorted(self.apps or ()))
            return f"no worker knows app {app} (they know {known}): see their WXB_APPS"
        return ""


def look(client: Client) -> Roster:
    """Return who works now.

    Raises:
        StoreUnavailableError: Redis did not answer.
    """

    def ask(pipeline: Any) -> None:
        pipeline.time()
        pipeline.zrange(keys.WORKERS, 0, -1, withscores=True)

    (seconds, micros), beats = repeat_all("looking for workers", client, ask)
    now_ms = seconds * 1000 + micros // 1000
    alive = [worker for worker, beat_ms in beats if now_ms - beat_ms < _ALIVE_MS]

    def ask_apps(pipeline: Any) -> None:
        for worker in alive:
            pipeline.get(keys.worker_apps(worker))

    said = repeat_all("asking workers for their apps", client, ask_apps) if alive else []
    apps = {app for text in said if text is not None for app in text.split()}
    return Roster(len(alive), None if None in said else frozenset(apps))
