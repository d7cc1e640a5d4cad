"""Batches: the items of one script run, and its answers as the reports count them."""

from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple

from producers.permits.demand import Demand
from producers.permits.refusals import Reason, Refusal
from producers.permits.report import Report
from producers.permits.uploads import PermitItem
from producers.settings import AppSettings, Layout
from producers.store import keys
from producers.store.scripts import Bound, Script, Value
from producers.templates import Catalogue
from producers.words import PermitKind

Source = Literal["phone", "events"]
"""Who reports a subscription: the phone, or WeChat's events."""

_USERS: Final = 200
_ITEMS: Final = 600
"""Users, and items, per script run: about 3 ms of Redis, so that nobody else waits long."""
_ITEMS_OF_USER: Final = 100
"""Items of one user per script run: under 1 ms, whatever that user sent before."""

_REFUSED: Final = {
    -1: Refusal(Reason.EXPIRED, "the permit had already expired"),
    -2: Refusal(Reason.VOID_SINCE, "the user withdrew the subscription after this accept"),
    -3: Refusal(
        Reason.NOT_COUNTED,
        "not counted: subscription_source counts another source",
    ),
    -4: Refusal(Reason.USER_REJECT, "the user rejected the subscription; earlier accepts are void"),
    -5: Refusal(
        Reason.UNKNOWN_TEMPLATE,
        "no setting, list, broadcast or message names the template_id; set subscribe_templates",
    ),
    -6: Refusal(
        Reason.TOO_MANY_TEMPLATES, "the user has unused accepts of 50 other templates already"
    ),
}


class CollectKeys(NamedTuple):
    """KEYS of collect.lua; four per user follow."""

    reply: str
    stock: str
    ledger: str
    size: str
    buckets: str

    @classmethod
    def of(cls, lane: int, app: str, caller: str) -> "CollectKeys":
        """Return those of an app in a lane."""
        return cls(
            keys.reply(lane, "collect", caller),
            keys.stock(lane, app),
            keys.ledger(lane, app),
            keys.audience_size(lane, app, "all"),
            keys.audience_buckets(lane, app, "all"),
        )


class CollectArgs(NamedTuple):
    """ARGV of collect.lua; each user with the items follows."""

    cap: int
    users: int


COLLECT: Final = Script(
    __package__, "collect", CollectKeys, CollectArgs, token=True, clock=True, replicated=True
)


class Named:
    """The templates that an app's settings, its own list, or its broadcasts of late name.

    Args:
        app: its settings.
        demand: gives what its broadcasts and messages want.
        listed: gives the list, as far as it is known.
    """

    def __init__(
        self, app: AppSettings, demand: Callable[[], Demand], listed: Callable[[], Catalogue]
    ) -> None:
        self._own = frozenset((*app.subscribe_templates, *app.long_term_templates))
        self._long_term = frozenset(app.long_term_templates)
        self._demand = demand
        self._listed = listed
        self._list: Catalogue | None = None
        self._sent: frozenset[str] | None = None

    @property
    def _catalogue(self) -> Catalogue:
        if self._list is None:
            self._list = self._listed()
        return self._list

    def is_long_term(self, template_id: str) -> bool:
        """Say whether one accept of it allows many messages, as far as is known."""
        return template_id in self._long_term or template_id in self._catalogue.long_term

    def __contains__(self, template_id: str) -> bool:
        if template_id in self._own or template_id in self._catalogue.templates:
            return True
        if self._sent is None:
            demand = self._demand()
            running = (one.template_id for one in demand.running)
            habit = (one for one, _ in demand.habit)
            self._sent = frozenset((*running, *habit, *demand.messages))
        return template_id in self._sent


_Place = tuple[PermitItem, int, Report]
"""An item, its line, and the report that counts it."""


class Batch:
    """Items of one lane, grouped by user."""

    def __init__(self, lane: int, app: str, source: Source) -> None:
        self.lane = lane
        self.app = app
        self.source = source
        self.items = 0
        self.is_full = False
        self.users: dict[str, tuple[int, list[_Place]]] = {}

    def add(self, item: PermitItem, bucket: int, line: int, report: Report) -> None:
        """Add an item that stood on a line, and is counted in the report."""
        user = self.users.get(item.openid)
        if user is None:
            user = self.users[item.openid] = (bucket, [])
        user[1].append((item, line, report))
        self.items += 1
        self.is_full = (
            self.items >= _ITEMS or len(self.users) >= _USERS or len(user[1]) >= _ITEMS_OF_USER
        )

    def divided(self, layout: Layout) -> list["Batch"]:
        """Return it as batches of the lanes that its users live in now."""
        found: dict[int, Batch] = {}
        for openid, (bucket, items) in self.users.items():
            lane = layout.of_number(bucket)
            batch = found.setdefault(lane, Batch(lane, self.app, self.source))
            batch.users[openid] = (bucket, items)
            batch.items += len(items)
        return [*found.values()]

    @property
    def reports(self) -> list[Report]:
        """The reports that count its items."""
        return [report for _, items in self.users.values() for _, _, report in items]

    def call(
        self,
        script: Bound[CollectKeys, CollectArgs],
        caller: str,
        app: AppSettings,
        named: Named,
    ) -> tuple[Sequence[str], Sequence[Value]]:
        """Return KEYS and ARGV."""
        lane, alias = self.lane, self.app
        prefix = keys.lane_prefix(lane)
        script_keys: list[str] = []
        args: list[str | int] = []
        for openid, (bucket, items) in self.users.items():
            script_keys += (
                f"{prefix}permits:{alias}:{openid}",
                f"{prefix}subs:{alias}:{openid}",
                f"{prefix}marks:{alias}:{openid}",
                f"{prefix}audience:{alias}:all:{bucket}",
            )
            args += (openid, bucket, len(items))
            for place in items:
                item = place[0]
                args += (
                    item.kind.letter,
                    item.id,
                    "" if item.expires_at_ms is None else item.expires_at_ms,
                    _verdict(item, app, named, self.source),
                    item.source_id,
                    "" if item.at_ms is None else item.at_ms,
                )
        return (
            (*CollectKeys.of(lane, alias, caller), *script_keys),
            script.argv(CollectArgs(app.permits_per_user, len(self.users)), args),
        )

    def count(self, results: list[int]) -> None:
        """Count the answer to the call in the reports of the items."""
        places = [place for _, items in self.users.values() for place in items]
        places[0][2].evicted += results.pop()
        for (_, line, report), result in zip(places, results, strict=True):
            if result == 1:
                report.new += 1
            elif result == 0:
                report.known += 1
            else:
                report.refuse(line, _REFUSED[result])


def _verdict(item: PermitItem, app: AppSettings, named: Named, source: Source) -> str:
    """Return what the script is to do with a subscription result."""
    if item.kind is not PermitKind.SUBSCRIPTION:
        return ""
    if not item.accepted:
        return "reject"
    if app.subscription_source != source:
        return "correct"
    if named.is_long_term(item.id):
        return "forever"
    return "accept" if item.id in named else "stray"
