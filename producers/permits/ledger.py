"""The ledger: where every use of an app's permits is, summed over the lanes.

Each use is in exactly one of available, held, spent, void and expired (I1). Four of them are
counted in Redis; held is what is collected and in none of those. A lane is read in one step, so
its sums are exact at one moment; lanes are read one after the other, so while messages are being
sent the sums of several lanes belong to slightly different moments.
"""

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Self

from producers.settings import Settings
from producers.store import Client, keys
from producers.store.lanes.following import reading
from producers.store.retry import repeat_all
from producers.words import KIND_OF, PermitKind


@dataclass(frozen=True, slots=True)
class Uses:
    """Uses of permits. A prepay_id is three; an unlimited subscription is none.

    Attributes:
        collected: ever stored.
        available: to be claimed; those that ended within this hour still count here.
        spent: used by a message that was delivered, or perhaps was (in doubt).
        void: found dead, withdrawn by the user, or evicted by the cap per user.
        expired: ended unused.
    """

    collected: int = 0
    available: int = 0
    spent: int = 0
    void: int = 0
    expired: int = 0

    @property
    def held(self) -> int:
        """Put aside for messages that are in flight."""
        return self.collected - self.available - self.spent - self.void - self.expired

    def plus(self, **more: int) -> Self:
        """Return these uses with more of some."""
        mine = asdict(self)
        return type(self)(**{name: mine[name] + more.get(name, 0) for name in mine})

    def as_dict(self) -> dict[str, int]:
        """Return all six as JSON-ready fields."""
        mine = asdict(self)
        return {"collected": mine.pop("collected"), "held": self.held, **mine}


@dataclass(frozen=True, slots=True)
class Ledger:
    """The uses of one app's permits.

    Attributes:
        kinds: by kind, each of them present.
    """

    kinds: dict[PermitKind, Uses]

    @property
    def total(self) -> Uses:
        """The uses of all kinds."""
        total = Uses()
        for uses in self.kinds.values():
            total = total.plus(**asdict(uses))
        return total

    def as_dict(self) -> dict[str, object]:
        """Return the total, and each kind under its name, as JSON-ready fields."""
        kinds = {kind.value: uses.as_dict() for kind, uses in self.kinds.items()}
        return {**self.total.as_dict(), "kinds": kinds}


def totals(
    client: Client, settings: Settings, app: str, without: frozenset[int] = frozenset()
) -> Ledger:
    """Sum the stock and the ledger of every lane.

    Args:
        client: Redis.
        settings: as loaded.
        app: alias of the app.
        without: lanes that are left out.

    Raises:
        UnknownAppError: no such app.
        StoreUnavailableError: Redis did not answer.
    """
    settings.app(app)
    return reading(client, settings, partial(_totals, client, settings, app, without))


def _totals(client: Client, settings: Settings, app: str, without: frozenset[int]) -> Ledger:
    kinds = {kind: Uses() for kind in PermitKind}
    for lane in (lane for lane in settings.layout.lanes if lane not in without):
        fill = partial(_ask, [keys.stock(lane, app), keys.ledger(lane, app)])
        stock, ledger = repeat_all("reading the ledger", client, fill, atomic=True)
        for field, uses in stock.items():
            if kind := KIND_OF.get(field[0]):  # u:HOUR counts users, not uses
                kinds[kind] = kinds[kind].plus(available=int(uses))
        for field, uses in ledger.items():
            fate, _, letter = field.partition(":")
            kinds[KIND_OF[letter]] = kinds[KIND_OF[letter]].plus(**{fate: int(uses)})
    return Ledger(kinds)


def _ask(hashes: list[str], pipeline: Any) -> None:
    for key in hashes:
        pipeline.hgetall(key)
