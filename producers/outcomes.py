"""A recorded outcome, as it lies in Redis: ``delivered``, ``refused 43101``, ``failed receipt``."""

from dataclasses import dataclass
from typing import Self

from producers.words import Outcome


@dataclass(frozen=True, slots=True)
class Recorded:
    """The final word on one recipient.

    Attributes:
        outcome: the word.
        errcode: WeChat's code; 0 when none belongs to it.
        settled_by: ``answer`` (or no permit was there), ``receipt`` or ``operator``.
    """

    outcome: Outcome
    errcode: int
    settled_by: str

    @classmethod
    def read(cls, value: str) -> Self:
        """Read what settle.lua, receipt.lua or resolve.lua wrote."""
        word, _, rest = value.partition(" ")
        if rest in {"receipt", "operator"}:
            return cls(Outcome(word), 0, rest)
        return cls(Outcome(word), int(rest or 0), "answer")
