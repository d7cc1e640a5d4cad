"""The verdict of a chaos run: the ledger, the outcomes and the sandbox's count, side by side."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from producers.care.audit import Auditor
from producers.local.chaos.door import Crowd
from producers.local.chaos.schedule import Fault, Plan
from producers.local.chaos.views import Views
from producers.local.parts import APP
from producers.permits import ledger
from producers.settings import Settings
from producers.store import Client, keys
from producers.store.buckets import filled_buckets
from producers.store.retry import repeat
from producers.words import Channel, Outcome

RECOVERY_S: Final = 15.0
"""Longest time that a dead worker's messages may wait (I6)."""

_SETTLED: Final = frozenset({Outcome.DELIVERED, Outcome.IN_DOUBT})
_BUCKETS: Final = 500


@dataclass
class Verdict:
    """What a chaos run ended with.

    Attributes:
        plan: what was done.
        end: how the broadcast ended: ``finished``, or why it did not.
        outcomes: recorded outcome → recipients.
        lost: recipients without an outcome, or with one that nothing explains: everybody has a
            good permit.
        phantom: recorded delivered, and the sandbox never delivered to them.
        false_doubts: recorded in doubt, and the sandbox never delivered to them; without
            `Fault.WECHAT` it delivers whatever is posted, so these were never posted.
        hidden: delivered by the sandbox, and recorded neither delivered nor in doubt.
        duplicates: the sandbox's deliveries beyond the first.
        unaccounted: uses of permits that the ledger, a recount and the outcomes disagree about.
        findings: what the audit says, in words.
        struck: fault → how often.
        recoveries: how many.
        longest_recovery_s: without the time in which Redis was out of reach.
        longest_wait_s: with it.
        failovers_s: how long each of the cluster's own took.
        restarts: of units.
        lost_replies: of Redis.
        crowd: what came of honest and hostile phones, if there were any.
        seconds: from the creation of the broadcast to its end.
        views: what everybody says of it, if they are compared.
    """

    plan: Plan
    end: str
    outcomes: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    phantom: int = 0
    false_doubts: int = 0
    hidden: int = 0
    duplicates: int = 0
    unaccounted: int = 0
    findings: list[str] = field(default_factory=list)
    struck: Mapping[Fault, int] = field(default_factory=dict)
    recoveries: int = 0
    longest_recovery_s: float = 0.0
    longest_wait_s: float = 0.0
    failovers_s: list[float] = field(default_factory=list)
    restarts: int = 0
    lost_replies: int = 0
    crowd: Crowd | None = None
    seconds: float = 0.0
    views: Views | None = None

    @property
    def in_doubt(self) -> int:
        """Recipients who perhaps got it."""
        return self.outcomes[Outcome.IN_DOUBT]

    @property
    def faults(self) -> list[str]:
        """What is wrong, as sentences; none is a good verdict."""
        plan = self.plan
        doubts_are_fair = plan.channel is Channel.SUBSCRIBE or Fault.WECHAT in plan.faults
        killed = self.struck.get(Fault.KILLS, 0)
        wanted = plan.kills if Fault.KILLS in plan.faults else 0
        found = {
            f"the broadcast did not finish: {self.end}": self.end != "finished",
            f"{self.lost:,} recipients were forgotten": self.lost > 0,
            f"{self.duplicates:,} messages arrived twice": self.duplicates > 0,
            f"{self.phantom:,} are recorded delivered and got nothing": self.phantom > 0,
            f"{self.hidden:,} got a message that is not recorded": self.hidden > 0,
            f"{self.unaccounted:,} uses of permits are unaccounted for": self.unaccounted > 0,
            f"{self.in_doubt:,} form_id messages are in doubt": not doubts_are_fair
            and self.in_doubt > 0,
            f"a recovery took {self.longest_recovery_s:.1f} s": self.longest_recovery_s
            > RECOVERY_S,
            f"only {killed} of {wanted} kills happened": killed < wanted,
        }
        wrong = [sentence for sentence, is_so in found.items() if is_so]
        wrong += self.views.faults if self.views is not None else []
        return wrong + (self.crowd.faults if self.crowd is not None else [])

    @property
    def good(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults

    def as_dict(self) -> dict[str, Any]:
        """Return the verdict as JSON-ready fields."""
        plan = self.plan
        return {
            "good": self.good,
            "wrong": self.faults,
            "seed": plan.seed,
            "channel": plan.channel.value,
            "faults": sorted(plan.faults),
            "recipients": plan.recipients,
            "units": plan.units,
            "lanes": plan.lanes,
            "end": self.end,
            "outcomes": dict(self.outcomes),
            "lost": self.lost,
            "duplicates": self.duplicates,
            "in_doubt": self.in_doubt,
            "false_doubts": self.false_doubts,
            "phantom": self.phantom,
            "hidden": self.hidden,
            "permits_unaccounted": self.unaccounted,
            "findings": self.findings,
            "struck": {fault.value: count for fault, count in self.struck.items()},
            "recoveries": self.recoveries,
            "longest_recovery_s": self.longest_recovery_s,
            "longest_wait_s": self.longest_wait_s,
            "cluster": plan.cluster,
            "replicas": plan.replicas,
            "failovers": len(self.failovers_s),
            "longest_failover_s": max(self.failovers_s, default=0.0),
            "restarts": self.restarts,
            "lost_replies": self.lost_replies,
            "seconds": round(self.seconds, 1),
            **(self.crowd.as_dict() if self.crowd is not None else {}),
            **(self.views.as_dict() if self.views is not None else {}),
        }


def count(
    verdict: Verdict,
    client: Client,
    settings: Settings,
    broadcast: str,
    openids: list[str],
    received: Mapping[str, int],
) -> None:
    """Fill in what everybody got, by our records and by the sandbox's.

    Args:
        verdict: to fill in.
        client: Redis, directly.
        settings: lanes and buckets.
        broadcast: the id.
        openids: the recipients.
        received: openid → messages that the sandbox delivered.
    """
    recorded = dict(_recorded(client, settings, broadcast))
    honest = set(openids)
    for openid in honest | recorded.keys():  # hostile phones come to be recipients too
        outcome = recorded.get(openid, "none")
        got = received.get(openid, 0)
        if openid in honest:
            verdict.outcomes[outcome] += 1
            verdict.lost += outcome not in _SETTLED
        verdict.phantom += outcome == Outcome.DELIVERED and not got
        verdict.false_doubts += outcome == Outcome.IN_DOUBT and not got
        verdict.hidden += got > 0 and outcome not in _SETTLED
        verdict.duplicates += max(0, got - 1)
    used = sum(outcome in _SETTLED for outcome in recorded.values())
    _count_permits(verdict, client, settings, used)


def _count_permits(verdict: Verdict, client: Client, settings: Settings, used: int) -> None:
    """Compare the ledger with a recount, and with the outcomes: each of them spent one use.

    How many were collected only a recount can say where phones file what they like.
    """
    total = ledger.totals(client, settings, APP).total
    given = total.collected if verdict.crowd is not None else verdict.plan.recipients
    sums = {
        f"{total.held} uses are held": abs(total.held),
        f"{total.collected} uses collected of {given}": abs(total.collected - given),
        f"{total.spent} uses spent, {used} delivered or in doubt": abs(total.spent - used),
    }
    wrong = Auditor(client, settings).run().wrong
    verdict.findings = [
        f"{finding.where}: {finding.what}: {finding.found}, {finding.counted}" for finding in wrong
    ] + [sentence for sentence, uses in sums.items() if uses]
    verdict.unaccounted = max(
        [*(abs(finding.found - finding.counted) for finding in wrong), *sums.values()]
    )


def _outcomes(
    client: Client, lane: int, broadcast: str, buckets: list[int]
) -> list[dict[str, str]]:
    """Return the outcomes of some buckets; a pipeline forgets its commands when it fails."""
    pipeline = client.pipeline(transaction=False)
    for bucket in buckets:
        pipeline.hgetall(keys.outcomes(lane, broadcast, bucket))
    rows: list[dict[str, str]] = pipeline.execute()
    return rows


def _recorded(client: Client, settings: Settings, broadcast: str) -> Iterator[tuple[str, str]]:
    """Yield every recipient's openid and outcome."""
    for lane in settings.layout.lanes:
        buckets = filled_buckets(client, lane, APP, "all")
        for start in range(0, len(buckets), _BUCKETS):
            some = buckets[start : start + _BUCKETS]
            reading = partial(_outcomes, client, lane, broadcast, some)
            for row in repeat("reading the outcomes", reading):
                for openid, value in row.items():
                    yield openid, value.partition(" ")[0]
