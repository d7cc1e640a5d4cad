"""What is logged; and more lanes, while somebody is at work."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from producers import store
from producers.logs import lines as log_lines
from producers.relaning import leaving as leaving_module
from producers.relaning import moving as moving_module
from producers.relaning.relane import Relaner
from producers.settings import Layout, Settings
from producers.store import keys


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    """Give the events that are logged."""
    log_lines._state.clear()
    with capture_logs() as captured:
        yield captured


class Division:
    """A change to more lanes, step by step; whoever has other settings learns of it by itself.

    `announce` and `shut` are the first steps of the first lane that is divided, and what a killed
    run leaves; `end` runs the whole change, from wherever it is.
    """

    def __init__(self, settings: Settings, times: int) -> None:
        self._settings = settings.model_copy()
        self._times = times

    def announce(self) -> int:
        """Announce that a lane is being divided; return it."""
        now = self._settings.layout
        layout = Layout(now.buckets, now.counts, self._times * now.count, shut=True)
        with unfenced(self._settings) as client:
            fields = {name: value for name, value in layout.written().items() if value}
            client.hset(keys.DEPLOYMENT, mapping=fields)
        assert layout.shut is not None
        return layout.shut

    def shut(self) -> int:
        """Announce it, and refuse every script there; return the lane."""
        lane = self.announce()
        self.refuse(lane)
        return lane

    def refuse(self, lane: int) -> None:
        """Refuse every script in a lane."""
        with unfenced(self._settings) as client:
            client.set(keys.shut(lane), "1")

    def end(self) -> None:
        """Divide all lanes."""
        with unfenced(self._settings) as client:
            Relaner(client, self._settings).run(self._times * self._settings.layout.count)


@contextlib.contextmanager
def unfenced(settings: Settings) -> Iterator[Any]:
    """Give a client that no lane refuses."""
    client = store.connect(settings, role="cli", fenced=False)
    try:
        yield client
    finally:
        client.close()
        client.connection_pool.disconnect()


@pytest.fixture
def division(
    client: Any,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> Division:
    """Give a change to twice as many lanes; it waits for nobody."""
    monkeypatch.setattr(moving_module, "_DRAIN_S", 0.0)
    monkeypatch.setattr(leaving_module, "_READERS_S", 0.0)
    return Division(settings, 2)
