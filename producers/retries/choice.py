"""The choice: which recipients of a broadcast a retry is for, by what became of them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Self

from producers.errors import InvalidInputError
from producers.words import Outcome

RETRIABLE: Final = tuple(one for one in Outcome if one is not Outcome.DELIVERED)
"""Outcomes that a retry may be for."""

_MOST_ERRCODES: Final = 100


@dataclass(frozen=True, slots=True)
class Choice:
    """Which recipients.

    Attributes:
        outcomes: theirs is one of these, sorted.
        errcodes: and theirs is one of these codes, sorted; none: any code.
        even_in_doubt: those who perhaps had it are among them.
    """

    outcomes: tuple[str, ...]
    errcodes: tuple[int, ...] = ()
    even_in_doubt: bool = False

    @classmethod
    def checked(
        cls, outcomes: Iterable[str], errcodes: Iterable[int], *, even_in_doubt: bool
    ) -> Self:
        """Build a choice from what a caller gave.

        Raises:
            InvalidInputError: with one sentence for every fault found.
        """
        if isinstance(outcomes, str):
            outcomes = outcomes.split(",")
        wanted = sorted({str(one).strip() for one in outcomes} - {""})
        codes = sorted(set(errcodes))
        faults = [*_word_faults(wanted, even_in_doubt=even_in_doubt)]
        if len(codes) > _MOST_ERRCODES:
            faults.append(f"errcodes: {len(codes)}; accepted: up to {_MOST_ERRCODES}")
        if any(isinstance(code, bool) or not -1 <= code <= 99_999_999 for code in codes):
            faults.append("errcodes: WeChat's are whole numbers; 0: no code belongs to the outcome")
        if faults:
            raise InvalidInputError(faults)
        return cls(tuple(wanted), tuple(codes), even_in_doubt)

    @property
    def text(self) -> str:
        """The choice as a home keeps it, and people read it: ``failed,no_permit 45009,-1``."""
        return " ".join(
            part for part in (",".join(self.outcomes), ",".join(map(str, self.errcodes))) if part
        )


def _word_faults(wanted: list[str], *, even_in_doubt: bool) -> Iterator[str]:
    """Yield what is wrong with outcomes, one sentence each."""
    if not wanted:
        yield f"outcomes: name at least one of {', '.join(RETRIABLE)}"
    for one in wanted:
        if one == Outcome.DELIVERED:
            yield "outcome delivered: nobody is sent the same twice"
        elif one not in RETRIABLE:
            yield f"outcome {one!r}: take some of {', '.join(RETRIABLE)}"
    if Outcome.IN_DOUBT in wanted and not even_in_doubt:
        yield (
            "outcome in_doubt: they perhaps had it; ask for even_in_doubt (--even-in-doubt) too, "
            "if some of them may get it twice"
        )
    if even_in_doubt and Outcome.IN_DOUBT not in wanted:
        yield "even_in_doubt: name in_doubt among the outcomes too"
