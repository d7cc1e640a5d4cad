"""Carriers: the broadcasts without an audience that single messages ride on (see `messages`).

One per app, channel, template and day; a user's second message of the day goes to the second one.
Each process gives them the same ids, so that nobody has to look them up. WeChat's word on a
template is a word on all of the day's carriers of it: they are stopped and resumed together.

Test sends have carriers of their own, whose ids have a ``t`` after the day: what WeChat says of a
test stops no other message.
"""

import hashlib
from collections.abc import Iterator
from typing import Final

from producers.broadcasts.spec import Spec
from producers.store import keys

MOST: Final = 64
"""Messages of one template that one user may be posted in one day."""

DAY_MS: Final = 86_400_000


def carrier_id(
    app: str, channel: str, template_id: str, day: int, number: int, *, test: bool = False
) -> str:
    """Return the id of a day's carrier.

    Args:
        app: alias of the app.
        channel: template or subscribe.
        template_id: the template.
        day: since the epoch, by the server's clock in UTC.
        number: 0 carries each user's first message of the day.
        test: whether it carries test sends.
    """
    what = f"{app} {channel} {template_id} {number}"
    digest = hashlib.sha256(what.encode()).hexdigest()
    return f"m{day:05d}t{digest[:14]}" if test else f"m{day:05d}{digest[:15]}"


def of_a_day(carrier: str, spec: Spec) -> Iterator[str]:
    """Yield the ids of all carriers of a carrier's day and template that there may be, in order."""
    day, test = int(carrier[1:6]), keys.is_test_carrier(carrier)
    for number in range(MOST):
        yield carrier_id(spec.app, spec.channel, spec.template_id, day, number, test=test)
