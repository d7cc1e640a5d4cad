"""How much a run of the benchmarks does."""

from enum import StrEnum


class Scale(StrEnum):
    """FULL: about 20 minutes in all. QUICK: about 4. TINY: shows that it runs, measures nothing."""

    FULL = "full"
    QUICK = "quick"
    TINY = "tiny"
