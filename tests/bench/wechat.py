"""A WeChat that costs next to nothing: it answers every send with errcode 0, and counts.

The project's own sandbox checks what WeChat checks, at about 40 µs a request; beside a worker on
two cores it would be what a benchmark measures. This one reads the openid and the form_id from
where this system (and the baselines) write them, and nothing else. It counts every openid and
every form_id, so that a message too many, or too few, is seen all the same.

Given a folder it listens by TLS too, under a certificate that it leaves there (``cert.pem``). When
it listens, one JSON line says where: ``url``, and ``tls_url``.

Control, as the sandbox's, so that its client serves::

    POST /_sandbox/reset    forget what was counted
    POST /_sandbox/latency  {"median_ms", "sigma"?, "tail_percent"?, "tail_ms"?}
    GET  /_sandbox/stats    accepted, openids, twice, form_ids_twice, peak (unanswered at a time),
                            mean_ms (of the latencies drawn), first_at, last_at, cpu_s
    GET  /_sandbox/times    ?prefix=: arrival times (epoch s) of the openids that begin so
"""

import asyncio
import math
import random
import ssl
import sys
import time
from array import array
from collections import Counter
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs

import orjson
import uvloop

from tests.support.certificate import Certificate

_OK: Final = b'{"errcode":0,"errmsg":"ok"}'
_TOKEN: Final = orjson.dumps({"access_token": "bench-access-token", "expires_in": 7200})
_TO: Final = b'{"touser":"'
_FORM: Final = b'"form_id":"'


def _whole(body: bytes) -> bytes:
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json; encoding=utf-8\r\n"
        b"Connection: keep-alive\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    )


_SENT: Final = _whole(_OK)


class Counts:
    """All that arrived, and how long answers take."""

    def __init__(self) -> None:
        self.rng = random.Random(1)
        self.delays: list[float] = [0.0]
        self.reset()

    def reset(self) -> None:
        """Forget what was counted."""
        self.openids: list[bytes] = []
        self.times = array("d")
        self.forms: set[bytes] = set()
        self.forms_twice = 0
        self.waiting = 0
        self.peak = 0
        self.drawn = 0
        self.cpu_s = time.process_time()

    def set_latency(
        self,
        median_ms: float,
        sigma: float = 0.0,
        tail_percent: float = 0.0,
        tail_ms: float = 0.0,
    ) -> None:
        """Draw a table of latencies: lognormal, but for a share that takes a fixed time."""
        rng = self.rng
        self.delays = [
            (
                tail_ms
                if rng.random() * 100 < tail_percent
                else median_ms * math.exp(sigma * rng.gauss(0, 1))
            )
            / 1000
            for _ in range(1 if not sigma and not tail_percent else 65_536)
        ]
        self.drawn = 0

    def delay_s(self) -> float:
        """Return the next latency of the table."""
        self.drawn += 1
        return self.delays[self.drawn % len(self.delays)]

    def stats(self) -> dict[str, Any]:
        """See the module."""
        counts = Counter(self.openids)
        return {
            "accepted": len(self.openids),
            "openids": len(counts),
            "twice": sum(1 for count in counts.values() if count > 1),
            "form_ids_twice": self.forms_twice,
            "peak": self.peak,
            "mean_ms": 1000 * sum(self.delays) / len(self.delays),
            "first_at": self.times[0] if self.times else 0.0,
            "last_at": self.times[-1] if self.times else 0.0,
            "cpu_s": time.process_time() - self.cpu_s,
        }


class Line(asyncio.Protocol):
    """One keep-alive connection of a client that waits for each answer."""

    def __init__(self, counts: Counts, loop: asyncio.AbstractEventLoop) -> None:
        self._counts = counts
        self._loop = loop
        self._transport: Any = None
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Count a whole send, and answer it later."""
        if self._buffer:
            data = self._buffer + data
        end = data.find(b"\r\n\r\n") + 4
        at = data.find(b"Content-Length: ", 0, end)
        if end < 4 or (at > 0 and len(data) - end < int(data[at + 16 : data.find(b"\r", at)])):
            self._buffer = data
            return
        self._buffer = b""
        if not data.startswith(b"POST /cgi-bin/message/"):
            self._transport.write(_whole(self._other(data, data[end:])))
            return
        counts = self._counts
        counts.times.append(time.time())
        start = data.index(_TO, end) + len(_TO)
        counts.openids.append(data[start : data.index(b'"', start)])
        form = data.find(_FORM, start)
        if form > 0:
            known = len(counts.forms)
            counts.forms.add(data[form + 11 : data.index(b'"', form + 11)])
            counts.forms_twice += len(counts.forms) == known
        counts.waiting += 1
        if counts.waiting > counts.peak:  # noqa: PLR1730 - half the cost of max()
            counts.peak = counts.waiting
        self._loop.call_later(counts.delay_s(), self._answer)

    def _answer(self) -> None:
        self._counts.waiting -= 1
        self._transport.write(_SENT)

    def _other(self, data: bytes, body: bytes) -> bytes:
        target = data[: data.index(b"\r")].split(b" ")[1].decode()
        path, _, query = target.partition("?")
        counts = self._counts
        match path.rpartition("/")[2]:
            case "reset":
                counts.reset()
            case "latency":
                counts.set_latency(**orjson.loads(body))
            case "stats":
                return orjson.dumps(counts.stats())
            case "times":
                prefix = parse_qs(query).get("prefix", [""])[0].encode()
                return orjson.dumps(
                    [
                        at
                        for at, openid in zip(counts.times, counts.openids, strict=True)
                        if openid.startswith(prefix)
                    ]
                )
            case _:
                return _TOKEN
        return b"{}"


async def _serve(folder: Path | None) -> None:
    loop = asyncio.get_running_loop()
    counts = Counts()

    async def listen(tls: ssl.SSLContext | None) -> tuple[asyncio.Server, int]:
        server = await loop.create_server(
            lambda: Line(counts, loop), "127.0.0.1", 0, backlog=4096, ssl=tls
        )
        return server, server.sockets[0].getsockname()[1]

    server, port = await listen(None)
    told = {"url": f"http://127.0.0.1:{port}"}
    if folder is not None:
        certificate = Certificate(folder, "127.0.0.1")
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate.path, certificate.key_path)
        _, port = await listen(tls)
        told["tls_url"] = f"https://127.0.0.1:{port}"
    sys.stdout.write(orjson.dumps(told).decode() + "\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(Path(sys.argv[1]) if sys.argv[1:] else None))
