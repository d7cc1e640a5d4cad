"""The mob of a chaos run: logged-in phones that lie, flood, reject, replay and upload junk.

A process of its own, so that it takes no turn from those who measure. It reads one line of JSON
(see `Orders`), goes on until its stdin ends, and prints what it got: deed → status → how often.
"""

import contextlib
import http.client
import json
import random
import socket
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Final

_HOST: Final = "127.0.0.1"
_PAUSE_S: Final = 0.2
"""Between two deeds of a phone: as fast as ten thumbs, and what two cores can bear of a mob."""
_HELD: Final = 30
"""Idle connections that a phone keeps open."""
_TIMEOUT_S: Final = 5.0

Sent = tuple[str, str, Any]
"""Path, content type, and body: JSON-ready or bytes."""


@dataclass(frozen=True)
class Orders:
    """What the mob is told.

    Attributes:
        port: of the service.
        app: alias of the app.
        template_id: that the broadcast sends.
        seed: of what each phone does.
        tickets: of the phones, one each, genuine.
        others: form-ids of other users, which may be known from a log.
    """

    port: int
    app: str
    template_id: str
    seed: int
    tickets: list[str]
    others: list[str]

    def line(self) -> bytes:
        """Return the orders as a line."""
        return json.dumps(asdict(self)).encode() + b"\n"


@dataclass
class Phone:
    """One phone of the mob."""

    orders: Orders
    ticket: str
    rng: random.Random
    held: list[socket.socket] = field(default_factory=list)
    last: "Sent | None" = None

    def word(self) -> str:
        """Return something fresh that looks like a form-id."""
        return f"{self.rng.getrandbits(128):032x}"

    # -- deeds: what is sent, or the status of what was done -----------------------------------

    def lie(self) -> Sent:
        """File form-ids, prepay_ids and accepts that nobody gave, and form-ids of others."""
        some = self.rng.sample(self.orders.others, min(3, len(self.orders.others)))
        upload = {
            "formIds": [*(self.word() for _ in range(15)), *some],
            "prepayId": f"wx{self.rng.randrange(10**30)}",
            "subscriptions": {self.orders.template_id: "accept", self.word(): "accept"},
            "id": self.word(),
        }
        return "collect", "application/json", [upload] * 3

    def reject(self) -> Sent:
        """Reject with fresh ids."""
        results = [
            {"subscriptions": {self.orders.template_id: "reject"}, "id": self.word()}
            for _ in range(20)
        ]
        return "collect", "application/json", results

    def replay(self) -> Sent:
        """Send the last upload again."""
        return self.last or self.lie()

    def junk(self) -> Sent:
        """Send what is no upload."""
        bodies: list[tuple[str, Any]] = [
            ("application/json", self.rng.randbytes(2000)),
            ("application/json", b"[" * 2000),
            ("application/json", {"formIds": ["x" * 60_000]}),
            ("application/json", {"openid": "oCHAOS" + "0" * 22, "formIds": ["stolen"]}),
            ("application/json", {"subscriptions": {"seen:T:x": "accept", "": 1}, "id": "1"}),
            ("text/csv", b"openid\nstolen"),
        ]
        media, body = self.rng.choice(bodies)
        return "collect", media, body

    def guess(self) -> Sent:
        """Guess a login code."""
        return "login", "application/json", {"code": self.word()}

    def push(self) -> Sent:
        """Forge a push of WeChat."""
        body = {"MsgType": "event", "Event": "subscribe_msg_change_event", "List": []}
        return "push", "application/json", body

    def hold(self) -> int:
        """Open connections, and say half of something."""
        while len(self.held) >= _HELD:
            self.held.pop(0).close()
        made = socket.create_connection((_HOST, self.orders.port), _TIMEOUT_S)
        self.held.append(made)
        made.sendall(b"POST /v1/apps/" + self.rng.randbytes(8).hex().encode())
        return 0

    def flood(self) -> int:
        """Pipeline requests, and frame a body in what is none."""
        with socket.create_connection((_HOST, self.orders.port), _TIMEOUT_S) as made:
            made.sendall(b"GET /readyz HTTP/1.1\r\nHost: h\r\n\r\n" * 50)
            made.sendall(
                b"POST /v1/apps/x/login HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n1;" + b"a" * 100_000
            )
            made.recv(65_536)
        return 0

    @property
    def deeds(self) -> list[Callable[[], "Sent | int"]]:
        """What it does, by lot."""
        return [
            self.lie, self.lie, self.reject, self.replay, self.junk, self.guess, self.push,
            self.hold, self.flood,
        ]  # fmt: skip

    def send(self, sent: Sent) -> int:
        """Send a request on a connection of its own; return the status, 0 when it was cut."""
        path, media, body = sent
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        if path == "push":
            url = f"/wechat/{self.orders.app}?signature={'0' * 40}&timestamp=1&nonce=2"
        else:
            url = f"/v1/apps/{self.orders.app}/{path}"
        headers = {"Content-Type": media}
        if path == "collect":
            forged = self.ticket[:-4] + "AAAA"
            token = forged if self.rng.random() < 0.1 else self.ticket
            headers["Authorization"] = f"Bearer {token}"
        made = http.client.HTTPConnection(_HOST, self.orders.port, timeout=_TIMEOUT_S)
        with contextlib.closing(made):
            made.request("POST", url, data, headers)
            answer = made.getresponse()
            answer.read()
        if path == "collect" and media == "application/json":
            self.last = sent
        return answer.status


class Mob:
    """The phones, each on a thread."""

    def __init__(self, orders: Orders) -> None:
        self._end = threading.Event()
        self._got: defaultdict[str, Counter[int]] = defaultdict(Counter)
        self._adding = threading.Lock()
        self._threads = [
            threading.Thread(
                target=self._go,
                args=(Phone(orders, ticket, random.Random(f"{orders.seed} {ticket}")),),  # noqa: S311
                daemon=True,
            )
            for ticket in orders.tickets
        ]

    def start(self) -> None:
        """Set them off."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> dict[str, dict[str, int]]:
        """End them; return deed → status (0: cut) → how often."""
        self._end.set()
        for thread in self._threads:
            thread.join(2 * _TIMEOUT_S)
        with self._adding:
            return {
                deed: {str(status): times for status, times in sorted(got.items())}
                for deed, got in sorted(self._got.items())
            }

    def _go(self, phone: Phone) -> None:
        while not self._end.wait(_PAUSE_S * (0.5 + phone.rng.random())):
            deed = phone.rng.choice(phone.deeds)
            try:
                sent = deed()
                status = sent if isinstance(sent, int) else phone.send(sent)
            except (OSError, http.client.HTTPException):
                status = 0
                time.sleep(_PAUSE_S)
            with self._adding:
                self._got[deed.__name__][status] += 1


def main() -> None:
    """Be the mob until stdin ends."""
    mob = Mob(Orders(**json.loads(sys.stdin.buffer.readline())))
    mob.start()
    while sys.stdin.buffer.read(1):
        pass
    print(json.dumps(mob.stop()), flush=True)  # noqa: T201 - what it is asked for


if __name__ == "__main__":
    main()
