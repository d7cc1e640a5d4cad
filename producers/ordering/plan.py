"""Plans: whether a broadcast takes so long that permits would end before their turn.

Of the stock it is known how many users' last uses end in which hour; they are taken to end evenly
within it. Nothing here is exact, and nothing needs to be: a plan decides who goes first, never who
goes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from producers.times.windows import Window

SLOTS: Final = 256
"""As hurried.lua."""

MOST: Final = 500_000
"""Recipients that a pass puts into slots in a lane: some 35 MB of Redis; more have a later pass."""

SHORTEST_S: Final = 3.0
"""A broadcast that is through sooner is in no order."""

_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 24 * _HOUR_MS
_SPARE: Final = 1.25
"""So much longer than planned a broadcast may take before somebody is hurried too late."""

_LEAST_SHARE: Final = 0.001
"""Of the recipients; where fewer are at stake, looking at all of them is not worth it."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is known when a broadcast is about to be split in a lane.

    Attributes:
        now_ms: server epoch ms.
        members: recipients that are not queued yet.
        rate: sends per second of this broadcast in this lane.
        ending: epoch hour → users of the app whose last use ends in it.
        everybody: users of the app; those without a usable permit cost no time.
        all_of_them: whether it is for all of these.
        window: the app's send window.
        since_ms: whoever's last use ends before went first already; 0: nobody did.
        margin_ms: a use is not claimed so shortly before its end.
    """

    now_ms: int
    members: int
    rate: float
    ending: Mapping[int, int]
    everybody: int
    all_of_them: bool = False
    window: Window | None = None
    since_ms: int = 0
    margin_ms: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """One pass: whoever's last use ends by then goes first.

    Attributes:
        from_ms: when it begins, epoch ms.
        width_ms: of one slot.
        length_s: how long the broadcast would take from now, its send window kept.
        at_stake: users whose last use ends before it is through, and who did not go first yet.
    """

    from_ms: int
    width_ms: int
    length_s: int
    at_stake: int

    @property
    def until_ms(self) -> int:
        """Whoever's last use ends later goes with the rest."""
        return self.from_ms + SLOTS * self.width_ms


def planned(outlook: Outlook) -> Plan | None:
    """Return the next pass, or None when all can go in any order."""
    now_ms, rate = outlook.now_ms, outlook.rate
    with_permits = sum(
        users for hour, users in outlook.ending.items() if (hour + 1) * _HOUR_MS > now_ms
    )
    sends = min(outlook.members, with_permits) if outlook.all_of_them else outlook.members
    if rate <= 0 or sends < SHORTEST_S * rate or not with_permits:
        return None
    through_ms = _through_ms(now_ms, sends / rate, outlook.window)
    share = outlook.members / max(outlook.members, outlook.everybody)
    gone = _ending_by(outlook.ending, now_ms, outlook.since_ms)
    margin_ms = outlook.margin_ms
    at_stake = share * (_ending_by(outlook.ending, now_ms, through_ms + margin_ms) - gone)
    if at_stake < _LEAST_SHARE * outlook.members:
        return None
    until_ms = now_ms + margin_ms + _SPARE * (through_ms - now_ms)
    first_ms = max(now_ms, outlook.since_ms)
    while share * (_ending_by(outlook.ending, now_ms, until_ms) - gone) > MOST:
        until_ms = first_ms + (until_ms - first_ms) * 0.8
    width_ms = max(1, -int(-(until_ms - now_ms) // SLOTS))
    return Plan(now_ms, width_ms, round((through_ms - now_ms) / 1000), round(at_stake))


def _through_ms(now_ms: int, send_s: float, window: Window | None) -> float:
    """Return when so many seconds of sending are over, at the latest a week from now."""
    at_ms, left_ms = float(now_ms), send_s * 1000
    latest_ms = now_ms + 7 * _DAY_MS
    while window is not None and at_ms < latest_ms:
        opens_ms, closes_ms = window.around(int(at_ms))
        at_ms = max(at_ms, opens_ms)
        if at_ms + left_ms <= closes_ms:
            break
        left_ms -= closes_ms - at_ms
        at_ms = closes_ms
    return min(at_ms + left_ms, latest_ms)


def _ending_by(ending: Mapping[int, int], now_ms: int, until_ms: float) -> float:
    """Return how many users' last uses end from now until then."""
    found = 0.0
    for hour, users in ending.items():
        begin, end = max(now_ms, hour * _HOUR_MS), (hour + 1) * _HOUR_MS
        if begin < end:
            found += users * min(1.0, max(0.0, (until_ms - begin) / (end - begin)))
    return found
