"""TLS in front of a real Valkey or WeChat."""

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

from certificate import Certificate
from crash import cancel_the_rest


@contextlib.contextmanager
def tls_way(url: str, certificate: Certificate, client: Certificate | None = None) -> Iterator[str]:
    """Give ``host:port`` of a TLS listener that passes everything on.

    Args:
        url: where that is.
        certificate: the server's.
        client: set: only who shows this one is let in.
    """
    target = urlsplit(url)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate.path, certificate.key_path)
    if client is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client.path)
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # handshakes fail here on purpose

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, ssl.SSLError):
                while data := await reader.read(65536):
                    writer.write(data)
                    await writer.drain()
        except asyncio.CancelledError:
            writer.transport.abort()
            raise
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(target.hostname, target.port)
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

    server = loop.run_until_complete(asyncio.start_server(serve, "127.0.0.1", 0, ssl=context))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        server.close()
        loop.run_until_complete(cancel_the_rest())
        loop.run_until_complete(asyncio.sleep(0.05))  # what was aborted, and handshakes, end
        loop.close()
