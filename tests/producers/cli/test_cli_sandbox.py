"""``wxbroadcast sandbox``."""

import json
import signal
import socket
from pathlib import Path

from cli_runs import ended, run, started

from producers.sandbox.control.client import SandboxClient
from producers.settings import Settings


def test_it_runs_until_sigterm_with_what_it_was_told(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"permits": "any", "latency": {"median_ms": 3, "sigma": 0.5}}))
    options = ["--config", file, "--latency-ms", 7, "--known-openids-only"]
    with started("sandbox", "--port", 0, *options, env={}) as process:
        assert process.stdout is not None
        client = SandboxClient(json.loads(process.stdout.readline())["url"])
        config = client.get("config")
        client.close()
        process.send_signal(signal.SIGTERM)
        assert ended(process).code == 0
    assert config["permits"] == "any"
    assert config["known_openids_only"] is True
    latency = config["latency"]
    assert (latency["fixed_ms"], latency["median_ms"], latency["sigma"]) == (7, 3, 0.5)


def test_a_wrong_config_is_named(settings: Settings, tmp_path: Path) -> None:
    ran = run(settings, "sandbox", "--permits", "some")
    assert ran.code == 2
    assert "permits" in ran.err
    file = tmp_path / "config.json"
    file.write_text('{"no_such_field": 1}')
    ran = run(settings, "sandbox", "--config", file)
    assert ran.code == 2
    assert "no_such_field" in ran.err
    file.write_text("nonsense")
    assert run(settings, "sandbox", "--config", file).code == 2


def test_a_taken_port_is_named(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = run(settings, "sandbox", "--port", port)
    assert ran.code == 2
    assert f"127.0.0.1:{port}" in ran.err
