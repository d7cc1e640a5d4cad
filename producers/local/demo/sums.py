"""The sums of a demo: what the system counted, what the sandbox counted, and whether they agree."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from producers.broadcasts.status import Status
from producers.local.demo.crowd import Crowd
from producers.permits.ledger import Ledger
from producers.words import Channel, Outcome, State


@dataclass(frozen=True, slots=True)
class Check:
    """One sum.

    Attributes:
        name: what must hold.
        ok: whether it does.
        detail: the numbers.
    """

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Sums:
    """What was counted.

    Attributes:
        channel: which WeChat API.
        crowd: who gave what.
        collected: the report of collecting.
        status: the broadcast at its end.
        before, after: the permits before the broadcast and after it.
        seen: the sandbox's stats.
        restarts: how often worker units were started again.
    """

    channel: Channel
    crowd: Crowd
    collected: Mapping[str, Any]
    status: Status
    before: Ledger
    after: Ledger
    seen: Mapping[str, Any]
    restarts: int

    @property
    def seconds(self) -> float:
        """From the creation of the broadcast to its end; 0 while it has none."""
        status = self.status
        return max(0, status.ended_at_ms - status.created_at_ms) / 1000

    @property
    def messages_per_second(self) -> float:
        """Delivered messages per second."""
        delivered = self.status.outcomes.get(Outcome.DELIVERED, 0)
        return delivered / self.seconds if self.seconds else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the sums as JSON-ready fields."""
        status, seen = self.status, self.seen
        return {
            "id": status.id,
            "channel": self.channel.value,
            "state": status.state.value,
            "recipients": status.total,
            "outcomes": status.outcomes,
            "errcodes": status.errcodes,
            "duplicates": seen["duplicates"],
            "sandbox_accepted": seen["accepted"],
            "collected": {name: self.collected[name] for name in ("new", "known", "refused")},
            "permits": {"before": self.before.as_dict(), "after": self.after.as_dict()},
            "seconds": round(self.seconds, 3),
            "messages_per_second": round(self.messages_per_second, 1),
            "windows": {
                "max_per_second": seen["windows"]["max_per_second"],
                "mean_per_second": round(seen["windows"]["mean_per_second"], 1),
            },
            "restarts": self.restarts,
        }


def check(sums: Sums) -> tuple[Check, ...]:
    """Compare everything that must agree.

    A message whose answer was lost (a worker was killed) is in doubt: the sandbox may have
    accepted it, and its permit counts as spent. Without one, the bounds below are equalities.
    """
    status, seen, crowd = sums.status, sums.seen, sums.crowd
    outcomes = status.outcomes
    delivered = outcomes.get(Outcome.DELIVERED, 0)
    doubted = outcomes.get(Outcome.IN_DOUBT, 0)
    before, after = sums.before.total, sums.after.total
    used = sum(seen["permits"]["used"].values())
    fates = after.available + after.held + after.spent + after.void + after.expired
    recipients = len(crowd.openids)
    settled = sum(outcomes.values())
    most = delivered + doubted
    no_permit = outcomes.get(Outcome.NO_PERMIT, 0)
    state = ", ".join(
        part
        for part in (status.state, status.reason, status.errcode and f"errcode {status.errcode}")
        if part
    )
    equation = (
        f"{after.collected:,} = {after.available:,} + {after.held:,} + {after.spent:,} + "
        f"{after.void:,} + {after.expired:,}"
    )
    spent = after.spent - before.spent
    return (
        Check("the broadcast finished", status.state is State.FINISHED, state),
        Check(
            "outcomes = recipients",
            settled == status.total == recipients,
            f"{settled:,} outcomes, {status.total:,} split, {recipients:,} in the audience",
        ),
        Check(
            "delivered = accepted by the sandbox",
            delivered <= seen["accepted"] <= most,
            f"{delivered:,} delivered, {doubted:,} in doubt, {seen['accepted']:,} accepted",
        ),
        Check("duplicates = 0", seen["duplicates"] == 0, f"{seen['duplicates']:,} duplicates"),
        Check(
            "no_permit = users without a usable permit",
            no_permit == crowd.users_without,
            f"{no_permit:,} no_permit, {crowd.users_without:,} users without",
        ),
        Check(
            "collected = what the users gave",
            before.collected == before.available == crowd.uses,
            f"{before.collected:,} collected, {crowd.uses:,} given",
        ),
        Check(
            "collected = available + held + spent + void + expired",
            after.collected == fates == crowd.uses and after.available >= 0,
            equation,
        ),
        Check("held = 0", after.held == 0, f"{after.held:,} held"),
        Check(
            "spent = delivered",
            spent == most,
            f"{spent:,} spent, {delivered:,} delivered, {doubted:,} in doubt",
        ),
        Check(
            "used by the sandbox's count = spent",
            after.spent - doubted <= used <= after.spent,
            f"{used:,} used, {after.spent:,} spent",
        ),
    )
