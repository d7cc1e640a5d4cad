"""A whole shop driven step by step: users who give, broadcasts, a worker without its threads.

The product's own callers and scripts, on all lanes; only the worker's loop is in the test's hand.
"""

from typing import Any

import redis
from lane_driver import mark_posting

from producers.audiences import Audiences
from producers.broadcasts import Broadcasts
from producers.broadcasts.messages import Messages
from producers.broadcasts.spec import Spec
from producers.care.audit import Auditor
from producers.lanes.bounds import Bounding
from producers.permits.collect import Collector
from producers.settings import Settings
from producers.store import clock, keys
from workers.duties.recover import Recoverer
from workers.lanes.keeper import Keeper
from workers.sending.claim import Claim
from workers.sending.settle import SETTLE, SettleArgs, SettleKeys
from workers.sending.take import Asking, Taker, sending_lease_ms

TEMPLATE = "T" * 43
OTHER = "U" * 43


class Shop:
    """Everything that happens to the app `shop`."""

    def __init__(self, client: "redis.Redis", settings: Settings, worker: str = "w1") -> None:
        self.bounding = Bounding(settings, "shop")
        self.client, self.settings, self.worker = client, settings, worker
        self.broadcasts = Broadcasts(client, settings)
        self.audiences = Audiences(client, settings)
        self.collector = Collector(client, settings)
        self.messages = Messages(client, settings)
        self.keeper = Keeper(client, settings, self.broadcasts, worker)
        self.recoverer = Recoverer(client, settings, self.broadcasts)
        self._taker = Taker(client, settings, worker, self.broadcasts.ttl_ms)
        self._settle = SETTLE.on(client)

    def lane(self, openid: str) -> int:
        return keys.place_of(openid, self.settings)[0]

    def bucket(self, openid: str) -> int:
        return keys.bucket_of(openid, self.settings.buckets)

    def now_ms(self) -> int:
        return clock.now_ms(self.client)

    def give(self, openid: str, **upload: Any) -> int:
        return self.collector.collect("shop", [{"openid": openid, **upload}]).new

    def broadcast(self, channel: str = "template", audience: str = "all", **spec: Any) -> str:
        data = {"keyword1": "a"} if channel == "template" else {"thing1": "a"}
        fields = {"template_id": TEMPLATE, "data": data, **spec}
        checked = Spec.checked(app="shop", channel=channel, audience=audience, **fields)
        return self.broadcasts.create(checked).id

    def post(self, openid: str, channel: str = "subscribe", **content: Any) -> str:
        """Post one message to one user; returns its carrier."""
        data = {"keyword1": "a"} if channel == "template" else {"thing1": "a"}
        fields = {"template_id": TEMPLATE, "data": data, **content}
        posted = self.messages.post(app="shop", channel=channel, openid=openid, **fields)
        return posted.id.partition(".")[0]

    def open(self, broadcast: str) -> None:
        """Let the flood in, as after a first delivery."""
        for lane in self.settings.layout.lanes:
            self.client.hset(keys.lane_broadcast(lane, broadcast), "open", "1")

    def take(self, most: int = 1000) -> list[Claim]:
        claims: list[Claim] = []
        bounds = self.bounding.at(self.now_ms())
        for lane in self.settings.layout.lanes:
            asking = Asking.of("shop", lane, most)
            claims += self._taker.take(asking, {}, bounds=bounds).claims
        return claims

    def settle(
        self,
        claim: Claim,
        action: str = "settle",
        fate: str = "spent",
        outcome: str = "delivered",
        *,
        errcode: int = 0,
        streak: str = "ok",
        msgid: str = "-",
    ) -> str:
        """Settle one claim; returns what became of it."""
        lane = claim.lane
        row = (
            f"{claim.broadcast} {claim.item} {claim.fence} {action} {fate} {outcome} {errcode} 0 "
            f"{streak} - {msgid}"
        )
        args = SettleArgs(
            worker=self.worker,
            prefix=keys.lane_prefix(lane),
            app="shop",
            lease_ms=sending_lease_ms(self.settings),
            margin_ms=10_000,
            ttl_ms=self.broadcasts.ttl_ms,
            canary=10,
            keep=self.settings.app("shop").keep,
        )
        answer = self._settle(SettleKeys.of(lane, "shop", self.worker), args, [row])
        return str(answer[0])

    def recover(self, broadcast: str) -> None:
        """Bury the worker, which died in its POSTs: what it had in hands is taken back."""
        for lane in self.settings.layout.lanes:
            mark_posting(self.client, lane, broadcast, self.worker)
            self.recoverer.recover("shop", broadcast, lane, self.worker)

    def run_dry(self, broadcast: str) -> None:
        """Split all of it, and deliver all that can be claimed."""
        self.open(broadcast)
        while True:
            while claims := self.take():
                for claim in claims:
                    self.settle(claim)
            if self.is_split(broadcast):
                return
            self.keeper.run_once()

    def is_split(self, broadcast: str) -> bool:
        return all(
            self.client.hget(keys.lane_broadcast(lane, broadcast), "split") == "done"
            for lane in self.settings.layout.lanes
        )

    def wrong(self) -> list[Any]:
        """What the audit finds."""
        return Auditor(self.client, self.settings).run().wrong

    # -- reading everything -----------------------------------------------------------------

    def everything(self) -> dict[str, str]:
        """Return each key with all that lies under it, as one text."""
        found = {}
        for key in self.client.scan_iter(count=1000):
            found[key] = repr(self._content(key))
        return found

    def _content(self, key: str) -> Any:
        match self.client.type(key):
            case "string":
                return self.client.execute_command("GET", key, NEVER_DECODE=True)
            case "hash":
                return self.client.hgetall(key)
            case "list":
                return self.client.lrange(key, 0, -1)
            case "set":
                return self.client.smembers(key)
            case kind:
                assert kind == "zset", (key, kind)
                return self.client.zrange(key, 0, -1, withscores=True)

    def mentions(self, openid: str) -> set[str]:
        """Return the keys that name a user, or hold the name, but for workers' last answers."""
        return {
            key
            for key, content in self.everything().items()
            if (openid in key or openid in content) and ":reply:" not in key
        }

    def outcomes(self, broadcast: str) -> dict[str, str]:
        """Return openid → recorded outcome, from all buckets there are."""
        found: dict[str, str] = {}
        for bucket in range(self.settings.buckets):
            lane = self.settings.layout.of_number(bucket)
            found |= self.client.hgetall(keys.outcomes(lane, broadcast, bucket))
        return found
