"""What a command shows of a run that takes a while, and where it keeps the run's log lines."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from producers.broadcasts.status import Status
    from producers.cli.interrupts import Interrupts
    from producers.cli.progress import Progress


class ShownWatcher:
    """Shows a run on stderr, and lets signals end it."""

    def __init__(self, name: str, bar: "Progress", interrupts: "Interrupts") -> None:
        self._name = name
        self._bar = bar
        self._interrupts = interrupts

    def say(self, sentence: str) -> None:
        """Say what happens now, on a line that stays."""
        self._bar.note(f"{self._name}: {sentence}")

    def show(self, status: "Status") -> None:
        """Show how far the broadcast is."""
        from producers.cli.statuses import show

        show(self._bar, status)

    def wait(self, seconds: float) -> None:
        """Wait; a signal ends it."""
        self._interrupts.wait(seconds)


def kept(logs: Path | None) -> Path | None:
    """Return where logs are kept, absolute and writable."""
    from producers.errors import InvalidInputError

    if logs is None:
        return None
    try:
        logs.open("ab").close()
    except OSError as error:
        raise InvalidInputError([f"cannot write {logs}: {error.strerror}"]) from error
    return logs.resolve()
