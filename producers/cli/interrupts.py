"""Interrupts: Ctrl-C and SIGTERM for commands that have processes to stop.

The handler only takes note; the command looks at points where it can stop cleanly. So no signal,
however often it comes, lands between starting a process and remembering it. It may land within the
wait for it: what the handler touches takes no lock that the wait may hold, as a `threading.Event`
would (Python docs, `queue.SimpleQueue`: its put is reentrant).
"""

import contextlib
import signal
from queue import Empty, SimpleQueue
from types import FrameType, TracebackType
from typing import Any, Final, Self

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """Somebody wants the command to end; like KeyboardInterrupt it is no error.

    Attributes:
        number: by which signal.
    """

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number.name)
        self.number = number

    @property
    def exit_code(self) -> int:
        """What a shell expects: 128 and the signal."""
        return 128 + self.number


class Interrupts:
    """While it is entered, signals are noted instead of obeyed.

    After one was noted the process is about to end, with that signal's exit code; further ones
    are ignored until then.
    """

    def __init__(self) -> None:
        self._noted: SimpleQueue[None] = SimpleQueue()
        self._number: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before if self._number is None else signal.SIG_IGN)

    def wait(self, seconds: float) -> None:
        """Wait, or just look (0).

        Raises:
            Interrupted: a signal came.
        """
        if self._number is None:
            with contextlib.suppress(Empty):
                self._noted.get(timeout=max(0.0, seconds))
        if self._number is not None:
            raise Interrupted(self._number)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self._number is None:
            self._number = signal.Signals(number)
            self._noted.put(None)
