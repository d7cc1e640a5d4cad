"""What users received.

Counts are exact and for ever; bodies are kept for the last messages only. A message is the same
as another when its openid, API, template, page and data are.
"""

from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson


class Delivery(NamedTuple):
    """One accepted message, its request as it came."""

    number: int
    at_s: float
    channel: str
    body: bytes
    msgid: int


class Deliveries:
    """The deliveries of a sandbox.

    Attributes:
        accepted: messages ever.
        duplicates: messages beyond the first of the same to the same openid.
        counts: openid to how many messages it received.
    """

    def __init__(self, keep_per_openid: int, keep: int) -> None:
        self.accepted = 0
        self.duplicates = 0
        self.counts: dict[str, int] = {}
        self._keep_per_openid = keep_per_openid
        self._keep = keep
        self._seen: set[int] = set()
        self._twice: set[str] = set()
        self._kept: dict[str, list[Delivery]] = {}
        self._order: deque[tuple[int, str]] = deque()

    def add(
        self,
        openid: str,
        channel: str,
        identity: int,
        *,
        at_s: float,
        body: bytes,
        msgid: int = 0,
    ) -> None:
        """Note one accepted message.

        Args:
            openid: the receiver.
            channel: by which API.
            identity: a hash of all that makes two messages the same.
            at_s: epoch seconds.
            body: the request.
            msgid: of a subscribe message.
        """
        self.accepted += 1
        counts = self.counts
        counts[openid] = counts.get(openid, 0) + 1
        seen = self._seen
        before = len(seen)
        seen.add(identity)
        if len(seen) == before:
            self.duplicates += 1
            self._twice.add(openid)
        if self._keep and self._keep_per_openid:
            self._hold(openid, Delivery(self.accepted, at_s, channel, body, msgid))

    def of(self, openid: str) -> list[dict[str, Any]]:
        """List the last messages to an openid, oldest first."""
        return [_describe(delivery) for delivery in self._kept.get(openid, ())]

    def describe(self) -> dict[str, Any]:
        """Show the numbers as ``/_sandbox/stats`` does."""
        return {
            "accepted": self.accepted,
            "recipients": len(self.counts),
            "duplicates": self.duplicates,
            "duplicate_openids": len(self._twice),
            "duplicate_examples": sorted(self._twice)[:10],
        }

    def lines(self, batch: int = 1000) -> Iterator[bytes]:
        """Write openid and count of every recipient as NDJSON, in batches."""
        rows = list(self.counts.items())
        for start in range(0, len(rows), batch):
            yield b"".join(
                b'{"openid":%b,"deliveries":%d}\n' % (orjson.dumps(openid), count)
                for openid, count in rows[start : start + batch]
            )

    def _hold(self, openid: str, delivery: Delivery) -> None:
        held = self._kept.setdefault(openid, [])
        held.append(delivery)
        if len(held) > self._keep_per_openid:
            del held[0]
        order = self._order
        order.append((delivery.number, openid))
        if len(order) > self._keep:
            number, oldest = order.popleft()
            kept = self._kept.get(oldest)
            if kept and kept[0].number == number:
                del kept[0]
                if not kept:
                    del self._kept[oldest]


def _describe(delivery: Delivery) -> dict[str, Any]:
    request = orjson.loads(delivery.body)
    described = {
        "at_ms": int(delivery.at_s * 1000),
        "channel": delivery.channel,
        "template_id": request["template_id"],
        "page": request.get("page"),
        "data": request.get("data"),
    }
    if delivery.channel == "template":
        return {**described, "form_id": request["form_id"]}
    state = request.get("miniprogram_state")
    return {**described, "msgid": delivery.msgid, "miniprogram_state": state}
