"""Places for streams: so many in all, and of one app no more than its share.

A stream holds a thread for as long as its client takes. The shares of eight apps fit side by side,
so that no app can keep the others from importing, not even several of them together.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Final

from producers.web.http.problem import ProblemError, retry_after

OF_APP: Final = 4
"""Streamed imports and exports of one app at once."""
MOST_APPS: Final = 8
"""Apps whose shares fit side by side."""
_AGAIN_MS: Final = 5000


class Places:
    """Counts streams. Belongs to one event loop.

    Attributes:
        most: how many there may be at once.
    """

    def __init__(self, apps: int) -> None:
        self.most = OF_APP * min(apps, MOST_APPS)
        self._taken: Counter[str] = Counter()

    @property
    def in_use(self) -> int:
        """How many are taken now."""
        return self._taken.total()

    @contextlib.contextmanager
    def taken(self, app: str) -> Iterator[None]:
        """Hold a place within a block.

        Raises:
            ProblemError: busy: the app has its share, or all are taken.
        """
        if self._taken[app] >= OF_APP or self.in_use >= self.most:
            raise ProblemError(
                "busy",
                "too many imports and exports at once",
                headers=retry_after(_AGAIN_MS),
                close=True,
            )
        self._taken[app] += 1
        try:
            yield
        finally:
            self._taken[app] -= 1
