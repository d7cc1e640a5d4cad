"""Draws: some users of a stream of them, each as likely as any other, in bounded memory."""

import random
from typing import Final

MOST: Final = 50_000
"""Up to so many users are all there."""


class Draw:
    """Takes users one by one, and keeps as many as there is room for (Vitter's algorithm R).

    Source: J. S. Vitter, Random sampling with a reservoir, ACM TOMS 11 (1985), algorithm R.

    Attributes:
        of: how many came.
        drawn: those who were kept.
    """

    def __init__(self, most: int = MOST) -> None:
        self.of = 0
        self.drawn: list[str] = []
        self._most = most

    def take(self, openid: str) -> None:
        """One more came."""
        self.of += 1
        if len(self.drawn) < self._most:
            self.drawn.append(openid)
            return
        place = random.randrange(self.of)  # noqa: S311 - no secret
        if place < self._most:
            self.drawn[place] = openid
