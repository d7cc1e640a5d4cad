"""What happens to a producer in production: a reply is lost, the line is cut, the process dies."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.client import Pipeline

from producers.settings import Settings


class LossyLink:
    """A TCP line to Redis that loses single replies when told to, and can be cut for good."""

    def __init__(self, url: str) -> None:
        target = urlsplit(url)
        self._target = (target.hostname, target.port)
        self._server = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = [self._server]
        self._threads: list[threading.Thread] = []
        self._lose_in = 0
        self.lost = 0
        self.url = f"redis://127.0.0.1:{self._server.getsockname()[1]}/0"
        self._start(self._accept)

    def lose(self, nth: int) -> None:
        """Lose the nth reply from now (1: the next), and the connection with it."""
        with self._lock:
            self._lose_in = nth

    def cut(self) -> None:
        """Close everything; nothing connects any more."""
        with self._lock:
            sockets, self._sockets = self._sockets, []
        for end in sockets:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self) -> None:
        self.cut()
        for thread in self._threads:
            thread.join(5)

    def _start(self, run: Any, *args: Any) -> None:
        thread = threading.Thread(target=run, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            far = socket.create_connection(self._target)
            with self._lock:
                self._sockets += (near, far)
            self._start(self._pump, near, far, False)
            self._start(self._pump, far, near, True)

    def _pump(self, source: socket.socket, sink: socket.socket, replies: bool) -> None:
        try:
            while chunk := source.recv(65536):
                if replies and self._loses():
                    break
                sink.sendall(chunk)
        except OSError:
            pass
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _loses(self) -> bool:
        with self._lock:
            if not self._lose_in:
                return False
            self._lose_in -= 1
            self.lost += self._lose_in == 0
            return self._lose_in == 0


@contextlib.contextmanager
def lossy_link(settings: Settings) -> Iterator[LossyLink]:
    link = LossyLink(settings.redis_url.get_secret_value())
    try:
        yield link
    finally:
        link.close()


class DiedError(Exception):
    """The process is no more."""


class MortalClient(redis.Redis):
    """A real client whose process dies after so many commands, in the middle of a pipeline too.

    A transaction is one command: all of it arrives, or nothing.
    """

    def __init__(self, pool: redis.ConnectionPool, lives: int) -> None:
        super().__init__(connection_pool=pool)
        self.lives = lives

    def execute_command(self, *args: Any, **options: Any) -> Any:
        if self.lives <= 0:
            raise DiedError
        self.lives -= 1
        return super().execute_command(*args, **options)

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> "_MortalPipeline":  # noqa: ARG002
        return _MortalPipeline(self, transaction)


class _MortalPipeline(Pipeline):
    def __init__(self, client: MortalClient, transaction: bool) -> None:
        super().__init__(client.connection_pool, client.response_callbacks, transaction, None)
        self._client = client

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        stack = list(self.command_stack)
        cost = 1 if self.transaction else len(stack)
        lives, self._client.lives = self._client.lives, max(0, self._client.lives - cost)
        if lives >= cost:
            return list(super().execute(raise_on_error))
        self.command_stack = [] if self.transaction else stack[:lives]
        super().execute(raise_on_error=False)
        raise DiedError


def closed_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
