"""The programme of an evening: its apps, what is sent to whom, and what must come of it.

* *shop* (subscribe): a series' one tick, a broadcast with a row for each recipient, one that is
  paused and resumed.
* *club* (template): one that is cancelled, one that WeChat aborts for its template and that is
  retried with a good one, and two of one purpose, of which a user gets one a day.
* *news* (subscribe): one before its send window opens, which a few users want nothing of.
* *cafe* comes to the apps' file in the middle of it; single messages go to all of them.

Each broadcast has a page of its own, by which its messages are known at the WeChat.
"""

import math
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from producers.local.chaos.schedule import Fault, Plan
from producers.words import Channel

SHOP: Final = "shop"
CLUB: Final = "club"
NEWS: Final = "news"
CAFE: Final = "cafe"
APPS: Final = (SHOP, CLUB, NEWS, CAFE)
CHANNELS: Final = {
    SHOP: Channel.SUBSCRIBE,
    CLUB: Channel.TEMPLATE,
    NEWS: Channel.SUBSCRIBE,
    CAFE: Channel.SUBSCRIBE,
}
PURPOSE: Final = "offers"
MESSAGES: Final = 8
"""Single messages to each of the three apps; the fourth gets one."""

SUPPRESSED: Final = 5
"""Of the news' users, the last ones."""

FORM_IDS: Final = 4
"""Of each of the club's users: three broadcasts can use one, and a message."""

_AHEAD_S: Final = 16.0
"""The window opens at a whole minute, at least so long after the beginning."""

_SHARE: Final = 2.5
"""The shop sends about so many messages a user, one after the other."""


@dataclass(frozen=True, slots=True)
class Act:
    """One broadcast of the evening.

    Attributes:
        name: of it, and of its page and its key.
        app: whose.
        template: its template id.
        state: how it must end.
        recipients: how many it is for.
        delivered: to how many it is delivered where nothing goes wrong; -1: to some.
    """

    name: str
    app: str
    template: str
    state: str
    recipients: int
    delivered: int

    @property
    def page(self) -> str:
        """The page that a tap opens."""
        return page_of(self.name)

    @property
    def key(self) -> str:
        """Its idempotency key."""
        return f"evening-{self.name}"


def page_of(name: str) -> str:
    """Return the page of what has a name."""
    return f"pages/{name}/index"


def template_of(name: str) -> str:
    """Return a template id of 43 characters, as WeChat's are."""
    return f"{name}-".ljust(43, "0")


@dataclass(frozen=True, slots=True)
class Evening:
    """An evening's plan.

    Attributes:
        plan: seed, users of each app, kills and faults, units and lanes.
        begins_s: when it begins, epoch seconds.
    """

    plan: Plan
    begins_s: float

    @classmethod
    def of(cls, plan: Plan) -> "Evening":
        """Return one that begins now."""
        return cls(plan, time.time())

    @property
    def users(self) -> int:
        """Users of each app."""
        return self.plan.recipients

    @property
    def rows(self) -> int:
        """How many have a row."""
        return max(1, self.users // 2)

    @property
    def opens_s(self) -> float:
        """When the news' window opens, epoch seconds: a whole minute."""
        return math.ceil((self.begins_s + _AHEAD_S) / 60) * 60.0

    @property
    def seconds(self) -> float:
        """How long it lasts when nothing goes wrong, about."""
        return self.opens_s - self.begins_s + self.users / self.rate

    @property
    def rate(self) -> float:
        """Sends per second of each app."""
        return max(1.0, round(self.users * _SHARE / self.plan.seconds, 1))

    @property
    def zone(self) -> str:
        """A zone in which it is about noon: its day does not change in the middle of it."""
        hours = 12 - datetime.fromtimestamp(self.begins_s, UTC).hour
        return f"Etc/GMT{-hours:+d}" if hours else "UTC"

    def apps(self) -> dict[str, dict[str, Any]]:
        """Return the apps' file as it is at the beginning: without the cafe."""
        hours = 12 - datetime.fromtimestamp(self.begins_s, UTC).hour
        opens = datetime.fromtimestamp(self.opens_s, UTC) + timedelta(hours=hours)
        more: dict[str, dict[str, Any]] = {
            SHOP: {},
            CLUB: {"per_user_per_day": {PURPOSE: 1}},
            NEWS: {"send_window": f"{opens:%H:%M}-23:59"},
        }
        return {
            alias: {**self._app(number), **more[alias]}
            for number, alias in enumerate((SHOP, CLUB, NEWS), 1)
        }

    def later(self) -> dict[str, dict[str, Any]]:
        """Return the apps' file as it is from the middle on."""
        return {**self.apps(), CAFE: self._app(4)}

    def _app(self, number: int) -> dict[str, Any]:
        return {
            "appid": f"wx{number:016x}",
            "secret": f"secret-{number}",
            "rate_per_second": self.rate,
            "daily_limit": 0,
            "zone": self.zone,
        }

    @property
    def is_exact(self) -> bool:
        """Whether nothing goes wrong: then every count is known."""
        return not self.plan.faults

    @property
    def acts(self) -> dict[str, Act]:
        """Its broadcasts, by name."""
        users, rows = self.users, self.rows
        acts = (
            Act("tick", SHOP, template_of("TICK"), "finished", users, users),
            Act("rows", SHOP, template_of("ROWS"), "finished", rows, rows),
            Act("paused", SHOP, template_of("PAUSED"), "finished", users, users),
            Act("cancelled", CLUB, template_of("CANCELLED"), "cancelled", users, -1),
            Act("aborted", CLUB, template_of("BAD"), "aborted", users, 0),
            Act("retried", CLUB, template_of("GOOD"), "finished", users, users),
            Act("offer1", CLUB, template_of("OFFER"), "finished", users, -1),
            Act("offer2", CLUB, template_of("OFFER"), "finished", users, -1),
            Act("quiet", NEWS, template_of("QUIET"), "finished", users, users - SUPPRESSED),
        )
        return {act.name: act for act in acts}

    @property
    def doubts_are_fair(self) -> bool:
        """Whether answers may be lost for good."""
        return bool(self.plan.faults - {Fault.ROLLING})


def openid_of(app: str, number: int) -> str:
    """Return the openid of a user."""
    return f"oEVE{app}{number:020d}"
