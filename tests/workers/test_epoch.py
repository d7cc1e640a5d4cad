"""Epochs: a server of another run is met once, whoever meets it first."""

import threading
from typing import Any

import redis

from producers import keys
from producers.broadcasts import Broadcasts
from workers.epoch import _FENCES, Epochs


def test_threads_that_meet_a_change_at_once_begin_one_epoch(
    client: "redis.Redis", settings: Any
) -> None:
    epochs = Epochs(client, settings, Broadcasts(client, settings))
    epochs.begin()
    for expected in range(1, 11):
        client.set(keys.SERVER, f"an earlier run {expected}")
        together = threading.Barrier(8)

        def meet(together: threading.Barrier = together) -> None:
            together.wait()
            epochs.begin()

        threads = [threading.Thread(target=meet) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert int(client.get(keys.fence(0)) or 0) == expected * _FENCES
