"""An HTTP proxy: tunnels for CONNECT, other requests passed on, to where a test says.

What came is kept head by head; nothing that goes through a tunnel is looked at.
"""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field

HEAD_END = b"\r\n\r\n"


@dataclass
class HttpProxy:
    """See the module.

    Attributes:
        places: ``host:port`` as clients ask for it → the one that it means; others mean themselves.
        refusal: the status that every request is answered; 0: none, -1: cut off without a word,
            -2: never answered.
        heads: of the requests that came.
        url: where it listens.
    """

    places: Mapping[str, str] = field(default_factory=dict)
    refusal: int = 0
    heads: list[str] = field(default_factory=list)
    url: str = ""

    @property
    def asked(self) -> list[str]:
        """The first lines of what came, without the version."""
        return [head.partition(" HTTP/")[0] for head in self.heads]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with _closing(writer):
            raw = await reader.readuntil(HEAD_END)
            self.heads.append(raw.decode())
            if self.refusal == -2:
                await reader.read()
            if self.refusal > 0:
                writer.write(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % self.refusal)
                await writer.drain()
            if self.refusal:
                return
            method, target, _ = self.heads[-1].split(" ", 2)
            tunnel = method == "CONNECT"
            place = target if tunnel else target.split("/")[2]
            host, _, port = self.places.get(place, place).rpartition(":")
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
            if tunnel:
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                far_writer.write(raw.replace(f"http://{place}".encode(), b"", 1))
            async with _closing(far_writer):
                await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator["HttpProxy"]:
        """Listen."""
        tasks: set[asyncio.Task[None]] = set()

        def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(self._serve(reader, writer))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        server = await asyncio.start_server(begin, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            for task in list(tasks):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.contextmanager
def on_a_thread(proxy: HttpProxy) -> Iterator[HttpProxy]:
    """Let a proxy listen beside a test that is no coroutine."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    opened = proxy.open()
    asyncio.run_coroutine_threadsafe(opened.__aenter__(), loop).result(5)
    try:
        yield proxy
    finally:
        asyncio.run_coroutine_threadsafe(opened.__aexit__(None, None, None), loop).result(5)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()


@contextlib.asynccontextmanager
async def _closing(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    """Close a connection in the end, and wait until it is."""
    try:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            yield
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
