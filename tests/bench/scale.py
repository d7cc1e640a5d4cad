"""How much a run of the benchmarks does."""

from enum import StrEnum


class Scale(StrEnum):
    """FULL: under 10 minutes in all. QUICK: under 2. TINY: shows that it runs, measures nothing."""

    FULL = "full"
    QUICK = "quick"
    TINY = "tiny"
