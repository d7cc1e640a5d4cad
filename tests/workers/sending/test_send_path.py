"""The send path of one worker: whether it still has anything to do."""

from types import SimpleNamespace
from typing import Any

from workers.sending.send_path import SendPath


class HandsFilledMeanwhile:
    """Hands into which the pump takes what it has claimed, just after somebody has looked."""

    def __init__(self, pump: Any) -> None:
        self._pump = pump
        self._held = 0

    @property
    def held(self) -> int:
        seen, self._held = self._held, 3
        self._pump.unknown = False
        return seen


def test_claims_that_come_in_hand_while_it_looks_are_seen() -> None:
    """Else a drain would end, and leave a message behind that was never posted, as if it were."""
    path = object.__new__(SendPath)
    path.pump = SimpleNamespace(unknown=True)  # type: ignore[assignment]
    path._hands = HandsFilledMeanwhile(path.pump)  # type: ignore[assignment]
    assert path.is_busy
    path.pump.unknown = False
    path._hands.held  # noqa: B018
    assert path.is_busy
