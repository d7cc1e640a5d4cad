"""The supervisor, the Procfile and the embedded Valkey."""

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis

from producers.errors import SettingsError
from producers.local import embedded, procfile
from producers.local.supervisor import Supervisor, group_of
from producers.local.url import is_of, url_file, what_ended
from producers.logs.events import UnitEnded

Eventually = Callable[..., Any]
SLEEPER = "sleep 1000 & sleep 1000"


@pytest.fixture
def ends() -> list[UnitEnded]:
    return []


@pytest.fixture
def supervisor(tmp_path: Path, ends: list[UnitEnded]) -> Iterator[Supervisor]:
    units = Supervisor(os.environ, tmp_path, on_end=ends.append)
    yield units
    units.stop(1)


def test_a_unit_that_ends_starts_again(
    supervisor: Supervisor, ends: list[UnitEnded], eventually: Eventually
) -> None:
    supervisor.start("a.1", "sleep 1000")
    [first] = supervisor.pids("a.1")
    supervisor.kill("a.1")
    eventually(lambda: (pids := supervisor.pids("a.1")) and pids != [first], "the unit runs again")
    assert ends == [UnitEnded("a.1", first, -9, 1)]
    assert supervisor.restarts("a.1") == 1


def test_what_a_dead_unit_leaves_behind_is_killed(
    supervisor: Supervisor, eventually: Eventually
) -> None:
    supervisor.start("a.1", SLEEPER)
    leader, *_ = first = eventually(
        lambda: len(pids := supervisor.pids("a.1")) == 3 and pids, "the unit has three processes"
    )
    os.kill(leader, signal.SIGKILL)
    eventually(lambda: supervisor.restarts("a.1"), "the unit ended")
    eventually(lambda: not group_of(leader), "nobody of the old group is left")
    assert not set(first) & set(supervisor.pids("a.1"))


def test_a_unit_that_keeps_ending_waits_longer_each_time(
    supervisor: Supervisor, ends: list[UnitEnded], tmp_path: Path, eventually: Eventually
) -> None:
    supervisor.start("a.1", f"date +%s.%N >> {tmp_path}/starts; exit 3")
    eventually(lambda: len(ends) >= 4, "it ended four times")
    at = [float(line) for line in (tmp_path / "starts").read_text().split()[:4]]
    pauses = [later - before for before, later in itertools.pairwise(at)]
    assert pauses[0] >= 0.1
    assert pauses[1] >= 0.2
    assert pauses[2] >= 0.4
    assert {end.exit_code for end in ends} == {3}


@pytest.mark.parametrize("code", [2, 78, 126, 127])
def test_a_unit_that_would_end_so_again_is_not_started_again(
    supervisor: Supervisor, ends: list[UnitEnded], eventually: Eventually, code: int
) -> None:
    supervisor.start("a.1", "sleep 1000")
    assert supervisor.hopeless is None
    supervisor.start("b.1", f":; exit {code}")
    end = eventually(lambda: supervisor.hopeless, "the unit is given up")
    assert (end.unit, end.exit_code, end.restarts) == ("b.1", code, 0)
    assert ends == []
    assert supervisor.pids("b.1") == []
    assert len(supervisor.pids("a.1")) == 1


def test_stopping_is_gentle_first(supervisor: Supervisor, tmp_path: Path) -> None:
    done = tmp_path / "done"
    supervisor.start(
        "a.1", f"trap 'touch {done}; exit 0' TERM; touch {tmp_path}/up; sleep 9 & wait"
    )
    deadline = time.monotonic() + 5
    while not (tmp_path / "up").exists():
        assert time.monotonic() < deadline, "the unit never came up"
    supervisor.stop(5)
    assert done.exists()
    assert supervisor.pids("a.1") == []
    assert supervisor.restarts("a.1") == 0


def test_stopping_does_not_wait_for_ever(supervisor: Supervisor, eventually: Eventually) -> None:
    supervisor.start("a.1", "trap '' TERM; sleep 1000")
    leader, *_ = eventually(
        lambda: len(pids := supervisor.pids("a.1")) == 2 and pids, "the unit is up"
    )
    started = time.monotonic()
    supervisor.stop(0.3)
    assert time.monotonic() - started < 5
    eventually(lambda: not group_of(leader), "nobody is left")


def test_a_name_is_given_once(supervisor: Supervisor) -> None:
    supervisor.start("a.1", "sleep 1000")
    with pytest.raises(ValueError, match=r"a\.1"):
        supervisor.start("a.1", "sleep 1000")


def test_a_command_is_the_units_first_process(supervisor: Supervisor) -> None:
    supervisor.start("a.1", "sleep 1000")
    [pid] = supervisor.pids("a.1")
    deadline = time.monotonic() + 5
    while b"sleep" not in (line := Path(f"/proc/{pid}/cmdline").read_bytes()).split(b"\0")[0]:
        assert time.monotonic() < deadline, f"it is still {line!r}"


def test_this_systems_procfile_has_a_worker_of_one_process() -> None:
    assert "-p 1" in procfile.read()["worker"]


@pytest.mark.parametrize(
    ("text", "named"),
    [("", "name: command"), ("# nothing\n", "name: command"), ("a: x\na: y\n", "twice")],
)
def test_a_procfile_that_says_nothing_is_refused(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "Procfile").write_text(text)
    with pytest.raises(SettingsError, match=named):
        procfile.read(tmp_path / "Procfile")


def test_a_procfile_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot read"):
        procfile.read(tmp_path / "Procfile")


def test_the_embedded_valkey_keeps_its_data(tmp_path: Path) -> None:
    for expected in (None, b"1"):
        with embedded.valkey(tmp_path / "data") as url:
            client = redis.Redis.from_url(url)
            assert client.get("seen") == expected
            client.set("seen", 1)
            client.close()


def test_the_embedded_valkey_is_for_its_owner_alone(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with embedded.valkey(data) as url:
        with redis.Redis.from_url(url) as client:
            client.set("a", 1)
            client.bgrewriteaof()
            client.save()
        port = urlsplit(url).port
        stranger = redis.Redis("127.0.0.1", int(port or 0))
        with stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
        written = [path for path in data.rglob("*") if path.is_file()]
        assert {path.suffix for path in written} >= {".aof", ".rdb", ".conf", ".log"}
        for path in (data, *data.rglob("*")):
            assert path.stat().st_mode & 0o077 == 0, path
        password = urlsplit(url).password
        assert password is not None
        assert len(password) > 20
        assert url_file(data).read_text() == f"{url}\n"
        for process in (*map(str, Path("/proc").glob("[0-9]*")),):
            with contextlib.suppress(OSError):
                assert password.encode() not in Path(process, "cmdline").read_bytes()


def test_the_embedded_valkey_keeps_its_port_and_password(tmp_path: Path) -> None:
    urls = []
    for _ in range(3):
        with embedded.valkey(tmp_path) as url:
            urls.append(url)
    assert len(set(urls)) == 1
    port = int(urlsplit(urls[0]).port or 0)
    with (
        socket.create_server(("127.0.0.1", port)),  # somebody else's
        embedded.valkey(tmp_path) as other,
        redis.Redis.from_url(other) as client,
    ):
        assert client.ping()
    assert urlsplit(other).port != urlsplit(url).port
    assert urlsplit(other).password == urlsplit(url).password


def test_data_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    """As an earlier version left it."""
    data = tmp_path / "data"
    (data / "appendonlydir").mkdir(parents=True, mode=0o755)
    (data / "valkey.conf").write_text("port 1\n")
    (data / "valkey.conf").chmod(0o644)
    with embedded.valkey(data):
        assert (data / "appendonlydir").stat().st_mode & 0o077 == 0
        assert (data / "valkey.conf").stat().st_mode & 0o077 == 0
    assert data.stat().st_mode & 0o777 == 0o755  # what was there is not ours to close


def test_a_valkey_whose_parent_is_killed_ends_and_frees_its_directory(
    tmp_path: Path, eventually: Eventually
) -> None:
    code = (
        "import sys, time; from pathlib import Path; from producers.local import embedded\n"
        "with embedded.valkey(Path(sys.argv[1])) as url: print(url, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout is not None
        url = parent.stdout.readline().strip()
        parent.kill()

    def again() -> str:
        with contextlib.suppress(SettingsError), embedded.valkey(tmp_path) as found:
            return found
        return ""

    assert eventually(again, "the directory is free again") == url


def test_an_url_says_whose_it_was(tmp_path: Path) -> None:
    data = tmp_path / "my shop#1" / ".wxbroadcast"
    with embedded.valkey(data) as url:
        assert what_ended(url) == ""
        assert is_of(url, data)
        assert not is_of(url, tmp_path)
    assert f"`wxbroadcast up` in {data.parent}; start it again" in what_ended(url)
    for other in (
        "redis://127.0.0.1:1/0",
        "rediss://:p@redis.internal:6379/2",
        "unix:///run/r",
        "redis://[::1",
    ):
        assert what_ended(other) == ""
        assert not is_of(other, data)
    assert is_of("", data)


def test_one_embedded_valkey_per_directory(tmp_path: Path) -> None:
    with (
        embedded.valkey(tmp_path),
        pytest.raises(SettingsError, match=r"in use .*\(process \d+\)"),
        embedded.valkey(tmp_path),
    ):
        pass
