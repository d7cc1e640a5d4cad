"""Errands: what an edge asks for, done at once on one of a few threads.

Each is something that the keeper would do within a second or so; a failed one is left to it, and so
is, quietly, what meets a lane that is being divided.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from producers import logs
from producers.logs.events import DutyFailed
from workers.lanes.divided import is_divided

_THREADS: Final = 4


class Errands:
    """Runs errands, the same one once at a time; may be asked from any thread."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="duty")
        self._known: set[tuple[str, ...]] = set()
        self._closed = False

    def run(self, key: tuple[str, ...], errand: Callable[[], object]) -> None:
        """Run an errand, unless the same one is already waiting or running.

        Args:
            key: what it does, and to what.
            errand: does it.
        """
        if key in self._known or self._closed:
            return
        self._known.add(key)

        def run() -> None:
            try:
                errand()
            except Exception as error:  # noqa: BLE001  (the keeper repeats it)
                if not is_divided(error):
                    logs.emit(DutyFailed(key[0], -1, type(error).__name__))
            finally:
                self._known.discard(key)

        self._pool.submit(run)

    def close(self) -> None:
        """Begin nothing more; what runs is not waited for."""
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)
