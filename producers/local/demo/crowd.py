"""An invented crowd: users of a mini-program and the permits that they gave, good and bad.

As in life: most gave a few permits that end at different times, some gave none, some only ones
that have ended or a refusal, a few paid, and the network delivered some uploads twice.
"""

import random
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from producers.words import Channel

_HOUR_MS: Final = 3_600_000
_WEEK_MS: Final = 7 * 24 * _HOUR_MS
_WITHOUT: Final = 0.05
"""Share of users who gave no permit."""
_SPOILT: Final = 0.08
"""… and up to here of users who gave only ended ones, or refused."""
_PAID: Final = 0.13
"""… and up to here of users with a prepay_id."""
_TWICE: Final = 0.03
"""Share of uploads that arrive twice."""


@dataclass
class Crowd:
    """Users and what they gave.

    Attributes:
        openids: all users.
        uploads: JSON lines, as `collect` takes them, in no order.
        grants: the usable permits, as the sandbox's control API takes them.
        uses: usable uses among them.
        users_without: users without a usable permit.
    """

    openids: list[str] = field(default_factory=list)
    uploads: list[bytes] = field(default_factory=list)
    grants: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    uses: int = 0
    users_without: int = 0


def invent(users: int, channel: Channel, template_id: str, now_ms: int) -> Crowd:
    """Invent a crowd; the same arguments give the same one.

    Args:
        users: how many.
        channel: whose permits they give.
        template_id: what they subscribe to.
        now_ms: epoch ms; usable permits end two hours after it or later.
    """
    rng = random.Random(1)  # noqa: S311 - invented people
    crowd = Crowd()
    for number in range(users):
        openid = f"oDEMO{number:023d}"
        crowd.openids.append(openid)
        if channel is Channel.TEMPLATE:
            uploads, usable = _taps(crowd, rng, openid, now_ms)
        else:
            uploads, usable = _accepts(crowd, rng, openid, template_id, now_ms)
        crowd.uses += usable
        crowd.users_without += usable == 0
        for upload in uploads:
            line = orjson.dumps({"openid": openid, **upload})
            crowd.uploads += [line] * (2 if rng.random() < _TWICE else 1)
    rng.shuffle(crowd.uploads)
    return crowd


def _taps(
    crowd: Crowd, rng: random.Random, openid: str, now_ms: int
) -> tuple[list[dict[str, Any]], int]:
    """Return the uploads of a user who taps forms and pays, and the usable uses in them."""
    share = rng.random()
    if share < _WITHOUT:
        return [], 0
    ended = {"formId": _hex(rng), "expire": now_ms - rng.randint(1, 48) * _HOUR_MS}
    if share < _SPOILT:
        return [{"formIds": [ended]}], 0
    if share < _PAID:
        prepay_id = f"wx{rng.randrange(10**34):034d}"
        _grant(crowd, "prepay_ids", openid=openid, prepay_id=prepay_id)
        return [{"prepayId": prepay_id}], 3
    taps = [
        {"formId": _hex(rng), "expire": now_ms + rng.randint(2 * _HOUR_MS, _WEEK_MS - _HOUR_MS)}
        for _ in range(rng.choice((1, 1, 2, 3)))
    ]
    for tap in taps:
        _grant(crowd, "form_ids", openid=openid, form_id=tap["formId"], expires_at_ms=tap["expire"])
    given = [*taps, ended] if rng.random() < _PAID else taps
    return [{"formIds": given}], len(taps)


def _accepts(
    crowd: Crowd, rng: random.Random, openid: str, template_id: str, now_ms: int
) -> tuple[list[dict[str, Any]], int]:
    """Return the uploads of a user who is asked to subscribe, and the accepts in them."""
    share = rng.random()
    if share < _WITHOUT:
        return [], 0
    at_ms = now_ms - rng.randint(1, 10**9)
    if share < _SPOILT:
        return [{"subscriptions": {template_id: "reject"}, "at": at_ms}], 0
    count = rng.choice((1, 1, 2))
    _grant(crowd, "subscriptions", openid=openid, template_id=template_id, count=count)
    return [
        {"subscriptions": {template_id: "accept"}, "at": at_ms + place} for place in range(count)
    ], count


def _grant(crowd: Crowd, kind: str, **grant: Any) -> None:
    crowd.grants.setdefault(kind, []).append(grant)


def _hex(rng: random.Random) -> str:
    return f"{rng.getrandbits(128):032x}"
