"""What ends first is spent first: permits lost to expiry, with the order and without; its cost.

An audience whose every user has one form_id, and these end evenly over the time that the broadcast
takes: sent in the order of its buckets, whoever's permit ends before their turn has `no_permit`. A
real worker sends at the app's rate. Rounds, each with new permits of the same users:

- what it costs, of a part of the users, in turn, slowly: permits that end in a week, so a broadcast
  in no order; and permits that end just after its last send, so that everybody is looked at and
  hurried, and all are delivered all the same.
- how long it takes: a part again, at the whole rate.
- `with`: they end over the length, as that round showed it.
- `without`: the same, and the stock's counts of last uses are taken away before the broadcast is
  created: so nothing seems to be at stake, and it is split in one pass.

A permit is usable until `permit_margin` before its end, so each ends that much later, plus what it
takes until the first sends have been answered (`LEAD_S`).
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from producers.quotas.rates import Rates
from producers.settings import ms
from producers.store import keys
from producers.store.clock import now_ms

from .figures import Figure, Report, must
from .ground import APP, CORES, Ground, form_id, openid, spec
from .scale import Scale

LEAD_S: Final = 1.0
GOAL: Final = 0.02
COST: Final = 0.10


@dataclass(frozen=True, slots=True)
class Size:
    """How much is sent.

    Attributes:
        users: recipients.
        rate: sends per second.
        part: recipients in the rounds that show the cost.
        slow: sends per second in these.
        rounds: of those.
        collect_s: time for collecting permits, before a broadcast begins.
    """

    users: int
    rate: int
    part: int
    slow: int
    rounds: int
    collect_s: float


SIZES: Final = {
    Scale.FULL: Size(users=200_000, rate=1000, part=10_000, slow=600, rounds=2, collect_s=30),
    Scale.QUICK: Size(users=20_000, rate=1000, part=6_000, slow=600, rounds=2, collect_s=6),
    Scale.TINY: Size(users=450, rate=100, part=450, slow=100, rounds=1, collect_s=1),
}


@dataclass(frozen=True, slots=True)
class Run:
    """One round.

    Attributes:
        lost: permits that ended before their turn.
        delivered: sends that WeChat accepted.
        seconds: from its first arrival at WeChat to its last.
        redis_s: what Redis cost, from before the create until the end.
        passes: looks through its buckets, before it was split.
    """

    lost: int
    delivered: int
    seconds: float
    redis_s: float
    passes: int

    @property
    def us(self) -> float:
        """Redis's CPU per delivered message, µs."""
        return 1e6 * self.redis_s / max(1, self.delivered)


def run(ground: Ground, scale: Scale, profile: Path | None) -> Report:
    """Run it all; see the module."""
    size = SIZES[scale]
    report = Report("expiry")
    ground.use(app={"rate_per_second": size.rate})
    ground.wechat.post("latency", {"median_ms": 20})
    ground.invite("everybody", size.users)
    ground.invite("part", size.part)
    plain: list[Run] = []
    hurried: list[Run] = []
    with ground.workers(cores=CORES):
        part_s = size.part / size.slow
        ends = _evenly(size.part, 1.12 * part_s, 1.2 * part_s)
        rates = Rates(ground.client, ground.settings)
        rates.set(APP, size.slow)
        for number in range(size.rounds):
            plain.append(_round(ground, "part", size.part, 10 + number))
            hurried.append(_round(ground, "part", size.part, 20 + number, ends))
        rates.set(APP, None)
        took_s = size.users / size.part * _round(ground, "part", size.part, 30).seconds
        ends = _evenly(size.users, 0, took_s)
        ordered = _round(ground, "everybody", size.users, 1, ends, size.collect_s)
        without = _round(ground, "everybody", size.users, 2, ends, size.collect_s, blind=True)
    must(not any(one.lost for one in plain), f"some that end in a week were lost: {plain}")
    passes = [{one.passes for one in some} for some in (plain, hurried, [ordered], [without])]
    must(passes == [{0}, {1}, {1}, {0}], f"passes: {passes}")
    report.sums.append(
        f"2 × {size.users:,} and {1 + 2 * size.rounds} × {size.part:,} recipients: "
        "each has one outcome, nobody twice, no permit is held (WeChat's count, outcomes, ledger)"
    )
    report.figures += [
        Figure(
            f"permits lost to expiry, of {size.users:,} that end over the broadcast's length",
            "",
            [ordered.lost],
            "in the order of the buckets",
            [without.lost],
            "≤ 2 % of those",
        ).judge(lambda ratio: ratio <= GOAL),
        Figure(
            "Redis's CPU per delivered message, all hurried",
            "µs",
            [one.us for one in hurried],
            "in no order",
            [one.us for one in plain],
            "≤ 1.1 ×",
            note=f"lost of {size.part:,}: {', '.join(str(one.lost) for one in hurried)}",
        ).judge(lambda ratio: ratio <= 1 + COST),
        Figure(
            "the same, of those that end over the length",
            "µs",
            [ordered.us],
            "in the order of the buckets",
            [without.us],
        ),
    ]
    return report


def _evenly(users: int, first_s: float, last_s: float) -> Callable[[int], int]:
    """Return when each user's permit ends, ms after the first send: evenly, in no order."""
    places = list(range(users))
    random.Random(users).shuffle(places)
    return lambda user: round(1000 * (first_s + (last_s - first_s) * places[user] / users))


def _round(
    ground: Ground,
    audience: str,
    users: int,
    given: int,
    ends: Callable[[int], int] | None = None,
    collect_s: float = 3.0,
    *,
    blind: bool = False,
) -> Run:
    """Give everybody a permit, send, and return what came of it."""
    client = ground.client
    begins_ms = now_ms(client) + round(1000 * collect_s)
    first_ms = begins_ms + ms(ground.settings.permit_margin) + round(1000 * LEAD_S)
    lines = (
        b'{"openid":"%b","formId":"%b"%b}'
        % (
            openid(user).encode(),
            form_id(user, given).encode(),
            b',"expire":%d' % (first_ms + ends(user)) if ends else b"",
        )
        for user in range(users)
    )
    report = ground.collector.collect_lines(APP, lines)
    must(report.new == users, f"collected {report.new:,} of {users:,} permits")
    if blind:
        stock = keys.stock(0, APP)
        client.hdel(stock, *(field for field in client.hkeys(stock) if field.startswith("u:")))
    ground.wechat.post("reset", {})
    wait_s = (begins_ms - now_ms(client)) / 1000
    must(wait_s > 0 or ends is None, f"collecting took {-wait_s:.1f} s too long")
    time.sleep(max(0, wait_s) if ends else 0)  # what ends is to end while it is sent
    before = ground.redis_cpu_s()
    status = ground.finish(ground.broadcasts.create(spec(audience)).id)
    redis_s = ground.redis_cpu_s() - before
    delivered, lost = (status.outcomes.get(name, 0) for name in ("delivered", "no_permit"))
    must(status.total == users == delivered + lost, f"{status.outcomes} of {users:,} recipients")
    seen = ground.check_arrived(delivered, delivered)
    number, look = client.hmget(keys.lane_broadcast(0, status.id), "pass", "look")
    passes = int(number or 0) - (look == "rest")  # the last one only says that there is no other
    return Run(lost, delivered, seen["last_at"] - seen["first_at"], redis_s, passes)
