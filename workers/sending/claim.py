"""A claim: one message in a worker's hands, with its permit, its fence token and its slot.

A named tuple, as is all that is made for each message: several times cheaper than a frozen
dataclass.
"""

from typing import NamedTuple

from producers.words import Channel


class Claim(NamedTuple):
    """What take.lua or a swap gave.

    Attributes:
        app, lane, broadcast: where the message belongs.
        item: ``bucket:openid``, the message at rest.
        member: the permit: ``f:FORM_ID``, ``p:PREPAY_ID:n`` or ``s:TEMPLATE``.
        expires_at_ms: of the permit; a subscription: 1 counted, 0 unlimited.
        fence: token under which alone it can be settled.
        tries: earlier attempts.
        resumed: an earlier attempt with this very permit may have arrived.
        unsure: Redis may have forgotten such an attempt: it was restarted meanwhile.
        rate: sends per second that its broadcast may have; 0 = the app's alone.
        payload: of a single message (`Spec.payload`), or a row's values, each after a sign of its
            own (lanes/rows.lua); '' when the broadcast's own is sent.
        claimed_at: monotonic seconds, not later than the claim.
        slot_at: monotonic seconds at which the send may start.
        slot_ends: whether an unused slot is void (it is not when no rate is set).
    """

    app: str
    lane: int
    broadcast: str
    item: str
    member: str
    expires_at_ms: int
    fence: str
    tries: int
    resumed: bool
    claimed_at: float
    slot_at: float = 0.0
    slot_ends: bool = False
    unsure: bool = False
    rate: float = 0.0
    payload: str = ""

    @property
    def bucket(self) -> int:
        """The recipient's bucket."""
        return int(self.item.partition(":")[0])

    @property
    def openid(self) -> str:
        """The recipient."""
        return self.item.partition(":")[2]

    @property
    def kind(self) -> str:
        """The permit's letter: f, p or s."""
        return self.member[0]

    @property
    def channel(self) -> str:
        """Which WeChat API takes the permit."""
        return Channel.SUBSCRIBE if self.member[0] == "s" else Channel.TEMPLATE

    @property
    def permit_id(self) -> str:
        """What WeChat knows the permit by: the form_id, the prepay_id, or the template_id."""
        if self.member[0] == "p":
            return self.member[2:-2]
        return self.member[2:]

    def at(self, slot_at: float, *, ends: bool) -> "Claim":
        """Return the claim with its slot."""
        return self._replace(slot_at=slot_at, slot_ends=ends)


def parse_row(
    row: str, app: str, lane: int, broadcast: str, rate: float, claimed_at: float
) -> Claim:
    """Read one claim row of take.lua: ``item member expires_at_ms fence tries resumed payload``."""
    item, member, expires, fence, tries, resumed, payload = row.split(" ", 6)
    return Claim(
        app,
        lane,
        broadcast,
        item,
        member,
        int(expires),
        fence,
        int(tries),
        resumed in {"1", "3"},
        claimed_at,
        unsure=resumed in {"2", "3"},
        rate=rate,
        payload=payload,
    )
