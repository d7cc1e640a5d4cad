"""Outcomes as they lie in Redis: ``delivered``, ``refused 43101``, ``failed 43101 receipt``."""

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
        word, *rest = value.split(" ")
        by = rest.pop() if rest and rest[-1] in {"receipt", "operator"} else "answer"
        return cls(Outcome(word), int(rest[0]) if rest else 0, by)
