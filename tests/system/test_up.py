"""``wxbroadcast up``: the Procfile on one machine."""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from lasting_keys import everlasting_at

from producers.local.supervisor import group_of
from producers.local.url import url_file
from producers.store import keys

Eventually = Callable[..., Any]
pytestmark = pytest.mark.timeout(120)
APPS = '{"shop": {"appid": "wx01", "secret": "s"}}'


class Up:
    """An `up` as a process, and the log lines that it passed on."""

    def __init__(self, folder: Path, *options: object, **env: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "producers.cli", "up", *map(str, options)],
            cwd=folder,
            env={**os.environ, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self.said: list[str] = []
        self._readers = [
            threading.Thread(target=self._read, args=(stream, lines))
            for stream, lines in (
                (self.process.stdout, self.lines),
                (self.process.stderr, self.said),
            )
        ]
        for reader in self._readers:
            reader.start()

    @staticmethod
    def _read(stream: Any, lines: list[str]) -> None:
        lines.extend(iter(stream.readline, ""))
        stream.close()

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log lines of one event."""
        lines = [json.loads(line) for line in list(self.lines) if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    def ready(self) -> bool:
        """Whether Dramatiq calls a worker ready."""
        return any("ready" in line["message"] for line in self.events("library_line"))

    def worker_pids(self) -> list[int]:
        """The worker processes, by what they logged."""
        return [int(line["worker"].split(":")[1]) for line in self.events("worker_started")]

    def url(self) -> str:
        """The embedded Valkey's address, as it was told."""
        told = [line for line in list(self.said) if "WXB_REDIS_URL=" in line]
        return Path(told[0].partition("cat ")[2].rstrip(')"\n')).read_text().strip() if told else ""

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end."""
        lasting = everlasting_at(self.url()) if self.url() else []
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(30)
        for reader in self._readers:
            reader.join()
        assert lasting == [], "keys without a TTL"
        return code


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    """Start `up` in a folder with settings in .env; end it with the test."""
    (tmp_path / ".env").write_text(f"WXB_APPS='{APPS}'\nWXB_WEB_PORT=0\n")
    running: list[Up] = []

    def begin(*options: object, **env: str) -> Up:
        running.append(Up(tmp_path, *options, **env))
        return running[-1]

    yield begin
    for one in running:
        one.end()


def test_it_runs_until_sigterm_and_ends_gracefully(
    start: Callable[..., Up], tmp_path: Path, eventually: Eventually
) -> None:
    up = start("--scale", "worker=2")
    eventually(lambda: len(up.events("worker_started")) == 2, "both workers started")
    eventually(lambda: up.events("web_started"), "the service listens")
    pids = [*up.worker_pids(), *(line["pid"] for line in up.events("web_started"))]
    assert up.end() == 0
    assert len(up.events("worker_stopped")) == 2
    assert len(up.events("web_stopped")) == 1
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert {path.name for path in tmp_path.iterdir()} == {".env", ".wxbroadcast"}


def test_ctrl_c_ends_it_too(start: Callable[..., Up], eventually: Eventually) -> None:
    up = start()
    eventually(lambda: up.events("worker_started"), "the worker started")
    assert up.end(signal.SIGINT) == 130
    assert len(up.events("worker_stopped")) == 1


def test_a_killed_unit_is_logged_and_starts_again(
    start: Callable[..., Up], eventually: Eventually
) -> None:
    up = start()
    eventually(up.ready, "the worker started")  # Dramatiq sees its child from then on
    [child] = up.worker_pids()
    os.kill(child, signal.SIGKILL)
    eventually(lambda: len(up.events("worker_started")) == 2, "the worker started again")
    [ended] = up.events("unit_ended")
    assert (ended["unit"], ended["restarts"], ended["process"]) == ("worker.1", 1, "up")
    assert group_of(ended["pid"]) == []


@pytest.fixture
def cli(tmp_path: Path) -> Callable[..., str]:
    """Give a runner of other commands in the same folder; it returns their stdout."""

    def run(url: str, *args: str, text: str = "") -> str:
        done = subprocess.run(
            [sys.executable, "-m", "producers.cli", *args],
            env={**os.environ, "WXB_REDIS_URL": url},
            cwd=tmp_path,
            input=text,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    return run


def test_the_embedded_valkey_keeps_its_data(
    start: Callable[..., Up], cli: Callable[..., str], tmp_path: Path, eventually: Eventually
) -> None:
    first = start("--scale", "worker=0")
    url = eventually(first.url, "the address is told")
    assert (tmp_path / ".wxbroadcast" / "url").read_text().strip() == url
    cli(url, "audience", "import", "-a", "shop", "vips", "-", text="oA\noB\n")
    assert first.end() == 0
    second = start("--scale", "worker=0")
    url = eventually(second.url, "the address is told")
    assert cli(url, "audience", "count", "-a", "shop", "vips") == "2\n"


def await_disk(url: str) -> None:
    """Wait until what Valkey has now is on its disk; it syncs every second."""
    with redis.Redis.from_url(url, single_connection_client=True) as client:
        client.set("mark", 1, ex=60)
        assert client.execute_command("WAITAOF", 1, 0, 10_000)[0] == 1


def valkey_pid(folder: Path) -> int:
    """The embedded Valkey's process."""
    return int((folder / ".wxbroadcast" / "valkey.pid").read_text())


def test_an_embedded_valkey_that_is_killed_starts_again_with_its_data(
    start: Callable[..., Up], cli: Callable[..., str], tmp_path: Path, eventually: Eventually
) -> None:
    up = start("--scale", "web=0")
    url = eventually(up.url, "the address is told")
    eventually(up.ready, "the worker started")
    cli(url, "audience", "import", "-a", "shop", "vips", "-", text="oA\noB\n")
    await_disk(url)
    killed = valkey_pid(tmp_path)
    os.kill(killed, signal.SIGKILL)
    ended = eventually(lambda: up.events("unit_ended"), "its end is told")[0]
    assert (ended["unit"], ended["pid"], ended["exit_code"]) == ("valkey", killed, -9)
    assert cli(url, "audience", "count", "-a", "shop", "vips") == "2\n"
    assert valkey_pid(tmp_path) != killed
    assert up.end() == 0


def test_an_embedded_valkey_that_cannot_start_again_stops_everything(
    start: Callable[..., Up], tmp_path: Path, eventually: Eventually
) -> None:
    up = start("--scale", "worker=0")
    eventually(lambda: up.events("web_started"), "the service listens")
    [manifest] = (tmp_path / ".wxbroadcast" / "appendonlydir").glob("*.manifest")
    manifest.write_text("nonsense\n")
    os.kill(valkey_pid(tmp_path), signal.SIGKILL)
    assert up.process.wait(30) == 4
    up.end()
    assert "does not start again" in "".join(up.said)
    assert len(up.events("web_stopped")) == 1


def test_when_it_is_killed_its_units_drain_and_the_next_one_starts(
    start: Callable[..., Up], tmp_path: Path, eventually: Eventually
) -> None:
    first = start()
    url = eventually(first.url, "the address is told")
    eventually(first.ready, "the worker started")
    eventually(lambda: first.events("web_started"), "the service listens")
    pids = [*first.worker_pids(), first.events("web_started")[0]["pid"], valkey_pid(tmp_path)]
    assert first.end(signal.SIGKILL) == -signal.SIGKILL
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "all ended")
    assert len(first.events("worker_stopped")) == len(first.events("web_stopped")) == 1
    assert not first.events("store_unreachable")
    second = start("--scale", "worker=0,web=0")
    assert eventually(second.url, "the next one starts") == url


def test_a_second_one_in_the_same_directory_is_refused(
    start: Callable[..., Up], eventually: Eventually
) -> None:
    first = start("--scale", "worker=0")
    eventually(first.url, "the first one is up")
    second = start("--scale", "worker=0")
    assert second.process.wait(20) == 2
    second.end()
    assert "in use" in "".join(second.said)


def test_a_redis_that_is_configured_is_used(
    start: Callable[..., Up], tmp_path: Path, client: Any, valkey_url: str, eventually: Eventually
) -> None:
    up = start(WXB_REDIS_URL=valkey_url, WXB_BUCKETS="256")
    eventually(lambda: client.zcard(keys.WORKERS) == 1, "the worker beats there")
    [worker] = client.zrange(keys.WORKERS, 0, -1)
    said = eventually(lambda: client.get(keys.worker_apps(worker)), "it says which apps it knows")
    apps, digest = said.split(" ")
    assert (apps, digest[0]) == ("shop", "#")
    assert 0 < client.ttl(keys.worker_apps(worker)) <= 60
    assert up.end() == 0
    assert not (tmp_path / ".wxbroadcast").exists()


def test_with_the_sandbox_what_was_collected_is_delivered(
    start: Callable[..., Up], cli: Callable[..., str], eventually: Eventually
) -> None:
    up = start("--sandbox")
    url = eventually(up.url, "the address is told")
    accept = {"openid": "oA", "subscriptions": {"T": "accept"}, "formId": "f1"}
    cli(url, "collect", "-a", "shop", "-", text=json.dumps(accept))
    for channel, data in (("subscribe", '{"thing1": "a"}'), ("template", "a,b")):
        content = ("--template-id", "T", "--data", data, "--audience", "all")
        sent = cli(
            url, "broadcast", "-a", "shop", "--channel", channel, *content, "--wait", "--json"
        )
        assert json.loads(sent.splitlines()[-1])["outcomes"] == {"delivered": 1}
    assert any("local WeChat: http://127.0.0.1:" in line for line in up.said)


@pytest.mark.parametrize(
    ("env", "why"),
    [
        ({"WXB_WECHAT_URL": "https://api.weixin.qq.com"}, "leave it out, or set http://127.0.0.1"),
        ({"WXB_APPS__SHOP__WECHAT_URL": "https://api.weixin.qq.com"}, "a wechat_url of its own"),
    ],
)
def test_the_sandbox_takes_nobody_elses_place(
    start: Callable[..., Up], env: dict[str, str], why: str
) -> None:
    up = start("--sandbox", **env)
    assert up.process.wait(20) == 2
    up.end()
    assert why in "".join(up.said)


def test_another_procfile_passes_its_lines_through(
    start: Callable[..., Up], tmp_path: Path, eventually: Eventually
) -> None:
    (tmp_path / "Mine").write_text(
        'clock: echo "{\\"event\\": \\"$GREETING\\"}"; exec sleep 1000\nother: exec sleep 1000\n'
    )
    up = start("--procfile", "Mine", "--scale", "clock=3,other=0", GREETING="tick")
    eventually(lambda: len(up.events("tick")) == 3, "three clocks ticked")
    assert up.end() == 0


def test_settings_that_are_wrong_stop_it_and_are_named(
    start: Callable[..., Up], tmp_path: Path
) -> None:
    with (tmp_path / ".env").open("a") as file:
        file.write("WXB_LANE=2\nWXB_APPS__SHOP__RATE_PER_SECOND=fast\n")
    up = start()
    assert up.process.wait(20) == 2
    up.end()
    said = "".join(up.said)
    assert "WXB_LANE: unknown" in said
    assert "WXB_APPS__SHOP__RATE_PER_SECOND" in said
    assert up.events("unit_ended") == up.events("boot_failed") == []


def test_another_layout_than_the_data_was_born_with_stops_it(
    start: Callable[..., Up], eventually: Eventually
) -> None:
    first = start("--scale", "worker=0,web=0")
    eventually(first.url, "the first one is up")
    first.end()
    second = start(WXB_LANES="2")
    assert second.process.wait(20) == 2
    second.end()
    assert "this deployment has 16" in "".join(second.said)


def test_a_unit_whose_settings_are_wrong_stops_it(
    start: Callable[..., Up], tmp_path: Path, eventually: Eventually
) -> None:
    """Of a Procfile that gives one line settings of its own."""
    (tmp_path / "Mine").write_text(
        "good: exec sleep 1000\nworker: WXB_LANE=2 exec dramatiq workers --path -p 1\n"
    )
    up = start("--procfile", "Mine")
    assert up.process.wait(30) == 2
    up.end()
    said = "".join(up.said)
    assert "wxbroadcast: WXB_LANE: unknown" in said
    assert "worker.1 ended (78)" in said
    assert len(up.events("boot_failed")) == 1


def test_a_command_that_is_not_there_stops_it(start: Callable[..., Up], tmp_path: Path) -> None:
    (tmp_path / "Mine").write_text("clock: no-such-command --at all\n")
    up = start("--procfile", "Mine")
    assert up.process.wait(20) == 2
    up.end()
    assert "clock.1 ended (127): its command is not there" in "".join(up.said)


def test_a_package_workers_of_the_users_own_does_not_take_the_place_of_ours(
    start: Callable[..., Up], tmp_path: Path, eventually: Eventually
) -> None:
    (tmp_path / "workers").mkdir()
    (tmp_path / "workers" / "__init__.py").write_text("import dramatiq\n")
    up = start("--scale", "web=0")
    eventually(lambda: up.events("worker_started"), "our worker started")
    assert f"{tmp_path / 'workers'} is yours" in "".join(up.said)


def test_a_package_that_would_take_the_place_of_ours_stops_it(
    start: Callable[..., Up], tmp_path: Path
) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "workers.py").write_text("import dramatiq\n")
    up = start(PYTHONPATH=str(tmp_path / "lib"))
    assert up.process.wait(20) == 2
    up.end()
    assert f"{tmp_path / 'lib' / 'workers.py'}: Python imports it in place" in "".join(up.said)


def test_after_its_end_its_address_is_known_for_what_it_was(
    start: Callable[..., Up], tmp_path: Path, eventually: Eventually
) -> None:
    first = start("--scale", "worker=0,web=0")
    url = eventually(first.url, "the address is told")
    assert "redis://" not in "".join(first.said)  # the password is in a file, not on the screen
    first.end()
    env = {**os.environ, "WXB_REDIS_URL": url, "WXB_APPS": APPS}
    listing = [sys.executable, "-m", "producers.cli", "audience", "list", "-a", "shop"]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = subprocess.run(
        listing, env=env, cwd=elsewhere, capture_output=True, text=True, check=False
    )
    assert done.returncode == 4
    assert f"that was `wxbroadcast up` in {tmp_path}; start it again" in done.stderr
    second = start("--scale", "worker=0,web=0", WXB_REDIS_URL=url)  # in the same shell
    assert eventually(second.url, "it runs its own again") == url
    subprocess.run(listing, env=env, cwd=elsewhere, capture_output=True, check=True)


def test_a_port_that_is_taken_stops_it(start: Callable[..., Up]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        up = start("--scale", "worker=0", WXB_WEB_PORT=str(port))
        assert up.process.wait(30) == 2
    up.end()
    said = "".join(up.said)
    assert str(port) in said
    assert "web.1 ended (2)" in said


def test_on_a_terminal_nobody_reads_json(start: Callable[..., Up], tmp_path: Path) -> None:
    """Units inherit the terminal; so do commands, which write no event at all there."""
    start  # noqa: B018 - its .env
    shown = Terminal("up", cwd=tmp_path)
    shown.await_text(" worker_started worker=")
    shown.await_text(" web_started host=127.0.0.1 ")
    url = url_file(tmp_path / ".wxbroadcast").read_text().strip()
    collect = Terminal(
        "collect", "-a", "shop", "-", cwd=tmp_path, WXB_REDIS_URL=url, text='{"openid": "oA"}\n'
    )
    assert collect.end() == 1  # nothing to collect in it
    shown.process.send_signal(signal.SIGTERM)
    assert shown.end() == 0
    assert '{"' not in shown.text
    assert " worker_stopped worker=" in shown.text
    assert '{"event' not in collect.text
    assert '"event"' not in collect.text


class Terminal:
    """A command on a terminal of its own, and what is to be read there."""

    def __init__(self, *command: str, cwd: Path, text: str = "", **env: str) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "producers.cli", *command],
            cwd=cwd,
            env={**os.environ, "COLUMNS": "200", **env},
            stdin=subprocess.PIPE,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode())
        self.process.stdin.close()
        self.text = ""

    def _read(self) -> bool:
        try:
            some = os.read(self._ours, 65536)
        except OSError:  # the end of a terminal, on Linux
            return False
        self.text += some.decode(errors="replace")
        return bool(some)

    def await_text(self, text: str) -> None:
        """Read until it stands there."""
        while text not in self.text:
            assert self._read(), f"{text!r} never came: {self.text}"

    def end(self) -> int:
        """Read to the end, and return the exit code."""
        while self._read():
            pass
        os.close(self._ours)
        return self.process.wait(30)


@pytest.mark.parametrize("scale", ["worker", "worker=-1", "nobody=2"])
def test_a_wrong_scale_is_wrong_input(start: Callable[..., Up], scale: str) -> None:
    up = start("--scale", scale)
    assert up.process.wait(20) == 2
    up.end()
    assert "scale" in "".join(up.said)
