"""Vitals: parts of the process that nobody else would miss, looked at from a thread that lives.

The event loop and the pump run on Dramatiq's threads. A worker without one of them holds claims
that nobody serves.
"""

from collections.abc import Callable, Mapping


class Vitals:
    """Tells of a part that is gone.

    Args:
        parts: name → says why it is gone, or '' while it is there.
        ended: called with the name and why.
    """

    name = "look at itself"

    def __init__(
        self, parts: Mapping[str, Callable[[], str]], ended: Callable[[str, str], None]
    ) -> None:
        self._parts = parts
        self._ended = ended

    def due(self, now: float) -> bool:  # noqa: ARG002
        """Say whether a part is gone."""
        return any(why() for why in self._parts.values())

    def run(self) -> None:
        """Tell of those that are."""
        for part, why in self._parts.items():
            if said := why():
                self._ended(part, said)
