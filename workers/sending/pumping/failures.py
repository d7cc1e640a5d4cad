"""Failures: an error that nobody foresaw costs its own app a second, and the other apps nothing."""

import time
from collections.abc import Mapping
from typing import Final

import redis

from producers import logs
from producers.logs.events import AppFailed
from producers.store.primary import NotDoneError
from workers.limits.gate import Gate

FAILED_S: Final = 1.0

NOT_ASKED: Final = (NotDoneError, redis.OutOfMemoryError)
"""With these Redis has done nothing, and holds nothing that must be asked for again."""


def put_off(gates: Mapping[str, Gate], app: str, during: str, error: Exception) -> None:
    """Let an app wait, and tell why.

    Args:
        gates: app → what is known of its limits.
        app: whose; one that has left the settings is not told of.
        during: what was being done, in words.
        error: what came of it.
    """
    gate = gates.get(app)
    if gate is None:
        return
    hold(gate)
    logs.emit(AppFailed(app, during, f"{type(error).__name__}: {error}"[:200]))


def hold(gate: Gate) -> None:
    """Let an app wait."""
    gate.not_before = max(gate.not_before, time.monotonic() + FAILED_S)
