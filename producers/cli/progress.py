"""Progress: a bar on a terminal, plain lines in a pipe, at most one a second; both on stderr."""

import sys
import time
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from producers.cli.session import say

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

_EVERY_S: Final = 1.0
_RECENT_S: Final = 5.0
"""The rate is that of the last five seconds, so that a pause shows."""


class Progress:
    """How far something is.

    Args:
        label: what is being done.
        total: how much there is; None when nobody knows.
        unit: what is counted, for instance ``lines``.
    """

    def __init__(self, label: str, total: float | None, unit: str = "") -> None:
        self._label = label
        self._total = total
        self._unit = unit
        self._recent: deque[tuple[float, float]] = deque()
        self._said_at = -_EVERY_S
        self._bar: Bar | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as RichProgress

            self._bar = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[line]}"),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task(self._label, total=self._total, line="")
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(
        self,
        done: float,
        note: str = "",
        *,
        total: float | None = None,
        counted: str | None = None,
        last: bool = False,
    ) -> None:
        """Show how far it is.

        Args:
            done: in the measure of the total.
            note: what else is worth a look.
            total: a better total.
            counted: the count in words; default: ``done/total unit``.
            last: show it even within the same second.
        """
        self._total = total if total is not None else self._total
        line = self._line(done, note, counted)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=self._total, line=line)
        elif last or time.monotonic() - self._said_at >= _EVERY_S:
            self._said_at = time.monotonic()
            say(f"{self._label}: {line}")

    def note(self, sentence: str) -> None:
        """Say something that stays on the screen."""
        if self._bar is not None:
            self._bar.console.print(sentence, highlight=False, markup=False)
        else:
            say(sentence)

    def _line(self, done: float, note: str, counted: str | None) -> str:
        now = time.monotonic()
        self._recent.append((now, done))
        while len(self._recent) > 2 and now - self._recent[0][0] > _RECENT_S:
            self._recent.popleft()
        (then, before) = self._recent[0]
        rate = (done - before) / (now - then) if now > then else 0.0
        if counted is None:
            of = "" if self._total is None else f"/{self._total:,.0f}"
            counted = f"{done:,.0f}{of} {self._unit}".rstrip() + f", {rate:,.0f}/s"
        parts = [counted, note]
        if self._total is not None and 0 < done < self._total and rate > 0:
            parts.append(f"ETA {_clock((self._total - done) / rate)}")
        return ", ".join(part for part in parts if part)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
