"""Estimates: what was seen of an audience, bucket by bucket, as numbers for the whole of it."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from producers.planning.expiry import HOUR_MS

HORIZONS: Final = (timedelta(), timedelta(hours=1), timedelta(days=1), timedelta(days=7))
"""How far a forecast looks."""
_CERTAIN: Final = 1.96
"""Standard errors within which 95 of 100 estimates lie."""


@dataclass
class Seen:
    """What was seen of an audience, bucket by bucket.

    Attributes:
        members: of each bucket.
        suppressed: of each bucket, members who are sent nothing.
        kept: of each bucket, members whose last uses are left to single messages.
        capped: of each bucket, members who had enough of the purpose today.
        users: of each bucket, users reachable at each horizon.
        uses: of each bucket, uses to be had now.
        hours: of each bucket, epoch hour → uses.
        of: buckets that there are.
        horizons: how many are looked at.
    """

    members: list[int] = field(default_factory=list)
    suppressed: list[int] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    capped: list[int] = field(default_factory=list)
    users: list[list[int]] = field(default_factory=list)
    uses: list[int] = field(default_factory=list)
    hours: list[dict[int, int]] = field(default_factory=list)
    of: int = 0
    horizons: int = len(HORIZONS)


@dataclass
class Made:
    """An answer on its way.

    Attributes:
        method: as the forecast's.
        users, low, high: at each horizon.
        uses: to be had now.
        hours: epoch hour → uses.
        suppressed: members who are sent nothing.
        kept: members whose last uses are left to single messages.
        capped: members who had enough of the purpose today.
        errors: standard errors of `users`; 0 unless sampled.
        sampled: members looked at.
        seen: the sample, for the error of what ends; None unless sampled.
        audience: members of the audience.
    """

    method: str
    users: list[float]
    low: list[float]
    high: list[float]
    uses: float
    hours: dict[int, float]
    suppressed: float = 0.0
    kept: float = 0.0
    capped: float = 0.0
    errors: list[float] = field(default_factory=list)
    sampled: int = 0
    seen: Seen | None = None
    audience: int = 0

    def __post_init__(self) -> None:
        self.errors = self.errors or [0.0] * len(self.users)

    def ending_error(self, until_ms: int) -> float:
        """Return the standard error of the uses that end until a moment."""
        if self.seen is None:
            return 0.0
        hour = until_ms // HOUR_MS
        ending = [sum(uses for at, uses in hours.items() if at < hour) for hours in self.seen.hours]
        return _error(ending, self.seen, self.audience)


def scanned(seen: Seen) -> Made:
    """Add up what was seen of every member."""
    users = [float(sum(column)) for column in zip(*seen.users, strict=True)]
    users = users or [0.0] * seen.horizons
    hours: Counter[int] = Counter()
    for one in seen.hours:
        hours.update(one)
    by_hour = {hour: float(uses) for hour, uses in hours.items()}
    return Made(
        "scan",
        users,
        users,
        users,
        float(sum(seen.uses)),
        by_hour,
        suppressed=float(sum(seen.suppressed)),
        kept=float(sum(seen.kept)),
        capped=float(sum(seen.capped)),
    )


def estimated(seen: Seen, members: int) -> Made:
    """Scale a sample of buckets up to the audience: a ratio estimate, by members."""
    made = scanned(seen)
    looked_at = sum(seen.members)
    if len(seen.members) >= seen.of or not looked_at:
        return made  # every bucket was drawn
    scale = members / looked_at
    made.method, made.sampled, made.seen, made.audience = "sample", looked_at, seen, members
    made.errors = [_error(column, seen, members) for column in zip(*seen.users, strict=True)]
    made.suppressed *= scale
    made.kept *= scale
    made.capped *= scale
    made.users = [users * scale for users in made.users]
    made.low = [
        users - _CERTAIN * error for users, error in zip(made.users, made.errors, strict=True)
    ]
    made.high = [
        users + _CERTAIN * error for users, error in zip(made.users, made.errors, strict=True)
    ]
    made.uses *= scale
    made.hours = {hour: uses * scale for hour, uses in made.hours.items()}
    return made


def drawn(seen: Seen, users: int) -> Made:
    """Scale a sample of users, drawn one by one, up to all of them.

    Source: W. G. Cochran, Sampling Techniques, 3rd ed., 3.2 (the variance of a proportion).
    """
    made = scanned(seen)
    looked_at = sum(seen.members)
    if not looked_at:
        return made
    scale, shares = users / looked_at, [one / looked_at for one in made.users]
    made.method, made.sampled, made.audience = "sample", looked_at, users
    left = (1 - looked_at / users) / looked_at
    made.errors = [users * math.sqrt(share * (1 - share) * left) for share in shares]
    made.users = [one * scale for one in made.users]
    made.low = [n - _CERTAIN * error for n, error in zip(made.users, made.errors, strict=True)]
    made.high = [n + _CERTAIN * error for n, error in zip(made.users, made.errors, strict=True)]
    made.suppressed *= scale
    made.kept *= scale
    made.capped *= scale
    made.uses *= scale
    made.hours = {hour: uses * scale for hour, uses in made.hours.items()}
    return made


def _error(values: Sequence[int], seen: Seen, members: int) -> float:
    """Return the standard error of a ratio estimate from whole buckets drawn by lot.

    Source: W. G. Cochran, Sampling Techniques, 3rd ed., 6.3 (the ratio estimate's variance).
    """
    drawn = len(values)
    looked_at = sum(seen.members)
    if drawn < 2 or not looked_at:
        return float(members)
    ratio = sum(values) / looked_at
    spread = sum(
        (value - ratio * size) ** 2 for value, size in zip(values, seen.members, strict=True)
    ) / (drawn - 1)
    per_bucket = looked_at / drawn
    return members / per_bucket * math.sqrt(spread / drawn * (1 - drawn / seen.of))
