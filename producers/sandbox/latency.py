"""How long the sandbox takes to answer."""

import math
import random

from pydantic import BaseModel, ConfigDict, Field


class Tail(BaseModel):
    """A share of the answers that takes a fixed time instead."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    percent: float = Field(ge=0, le=100)
    ms: float = Field(ge=0)


class Latency(BaseModel):
    """A distribution of answer times; all zero means at once.

    An answer takes ``fixed_ms`` plus a lognormal time, unless one of the tails takes it.

    Attributes:
        fixed_ms: milliseconds that every answer takes (default 0).
        median_ms: median of the lognormal part (default 0: none).
        sigma: spread of the lognormal part; 0.5 puts its 99th percentile at 3.2 medians
            (default 0).
        tails: shares with a time of their own, tried in order (default none).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    fixed_ms: float = Field(default=0, ge=0)
    median_ms: float = Field(default=0, ge=0)
    sigma: float = Field(default=0, ge=0)
    tails: tuple[Tail, ...] = ()

    def draw_ms(self, rng: random.Random) -> float:
        """Draw one answer's time in milliseconds."""
        if self.tails:
            percentile = rng.random() * 100
            for tail in self.tails:
                if percentile < tail.percent:
                    return tail.ms
                percentile -= tail.percent
        if self.median_ms:
            return self.fixed_ms + rng.lognormvariate(math.log(self.median_ms), self.sigma)
        return self.fixed_ms
