"""Events: what a webhook tells, as it lies in Redis and as it is posted.

An event has one id however often it is posted, and one content: all of it is stored when it
happens (see tell.lua), and nothing is looked up later.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from producers.words import EventType

ID: Final = re.compile(r"evt_([0-9a-z]{1,64})_([0-9]{16})_([0-9]{1,4})")
"""What an event's id looks like: broadcast, number, and that of its lane."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event.

    Attributes:
        app: whose it is.
        lane: where it lies; later its heir has it.
        number: of that lane, and of its heirs (`Layout.number_of`): so an event keeps its id.
        name: how it is called there, ``BROADCAST NUMBER``.
        type: of `EventType`, or one of a later version.
        at_ms: when it happened, by Redis's clock.
        details: what else is told.
    """

    app: str
    lane: int
    number: int
    name: str
    type: str
    at_ms: int
    details: dict[str, Any]

    @classmethod
    def read(cls, app: str, lane: int, number: int, name: str, text: str) -> "Event":
        """Return the event of a stored text; of one that somebody spoiled, without its details."""
        head, _, details = text.partition("\n")
        kind, _, at_ms = head.partition(" ")
        read = _settled if kind == EventType.SETTLED else _moved
        at = int(at_ms) if at_ms.isdecimal() else 0
        return cls(app, lane, number, name, kind, at, read(name, details))

    @property
    def broadcast(self) -> str:
        """The broadcast's id; a single message's carrier."""
        return self.name.partition(" ")[0].partition("x")[0]

    @property
    def id(self) -> str:
        """The event's id, the same however often it is posted."""
        return id_of(self.number, self.name)

    def body(self) -> bytes:
        """Return what is posted, as Standard Webhooks lays it out."""
        at = datetime.fromtimestamp(self.at_ms / 1000, UTC)
        return orjson.dumps(
            {
                "type": self.type,
                "timestamp": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                "data": {"app": self.app, "broadcast": self.broadcast, **self.details},
            }
        )


def id_of(number: int, name: str) -> str:
    """Return an event's id, of its lane's number and its name; signing wants no full stop in it."""
    broadcast, _, own = name.partition(" ")
    return f"evt_{broadcast}_{own}_{number}"


def place_of(event: str) -> tuple[int, str] | None:
    """Return the lane's number, and the name, of an event's id; None of what is none."""
    found = ID.fullmatch(event)
    return (int(found[3]), f"{found[1]} {found[2]}") if found else None


def _settled(name: str, details: str) -> dict[str, Any]:
    """Return what is told of a single message, of ``openid outcome errcode …``."""
    openid, outcome, errcode = (*details.split(), "", "", "")[:3]
    return {
        "message": f"{name.partition('x')[0]}.{openid}",
        "openid": openid,
        "outcome": outcome,
        "errcode": int(errcode) if errcode.lstrip("-").isdecimal() else 0,
    }


def _moved(_: str, details: str) -> dict[str, Any]:
    try:
        told = orjson.loads(details)
        outcomes = told.get("outcomes") or None
        read: dict[str, Any] = {
            "state": told["state"],
            "generation": int(told["generation"]),
            "reason": told["reason"],
            "errcode": int(told["errcode"] or 0),
        }
        if outcomes is not None:
            read |= {"total": int(told["total"] or 0), "outcomes": orjson.loads(outcomes)}
    except (orjson.JSONDecodeError, KeyError, ValueError, TypeError, AttributeError):
        return {}
    return read
