"""A real Prometheus scrapes real units, and its sums are those of Redis and of WeChat."""

import json
import shutil
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from stage import Stages


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Callable[[list[int]], Callable[[str], Any]]]:
    """Give a starter of Prometheus that scrapes some ports, and gives what asks it."""
    program = shutil.which("prometheus")
    assert program, "prometheus is needed: apt-get install prometheus"
    started: list[subprocess.Popen[bytes]] = []

    def start(ports: list[int]) -> Callable[[str], Any]:
        targets = ", ".join(f"'127.0.0.1:{port}'" for port in ports)
        (tmp_path / "prometheus.yml").write_text(
            "scrape_configs:\n"
            "  - {job_name: wxbroadcast, scrape_interval: 300ms, scrape_timeout: 300ms,"
            f" static_configs: [{{targets: [{targets}]}}]}}\n"
        )
        port = free_port()
        command = [program, f"--config.file={tmp_path}/prometheus.yml"]
        command += [
            f"--storage.tsdb.path={tmp_path}/data",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        started.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))

        def ask(query: str) -> Any:
            asked = urllib.parse.urlencode({"query": query})
            try:
                with urllib.request.urlopen(
                    f"http://127.0.0.1:{port}/api/v1/query?{asked}", timeout=5
                ) as answer:
                    found = json.load(answer)["data"]["result"]
            except OSError:
                return None
            return {
                " ".join(v for k, v in sorted(one["metric"].items()) if k[0] != "_"): float(
                    one["value"][1]
                )
                for one in found
            }

        return ask

    yield start
    for process in started:
        process.kill()
        process.wait(10)


@pytest.mark.timeout(90)
def test_prometheus_adds_up_what_redis_counted(
    stages: Stages,
    prometheus: Callable[[list[int]], Callable[[str], Any]],
    eventually: Callable[..., Any],
) -> None:
    port = free_port()
    stage = stages(metrics_port=port, log_sample=0)
    stage.form_ids(300, unknown=[f"f{user}x0" for user in range(30)])
    for _ in range(2):
        stage.unit()
    served = eventually(
        lambda: len(found := stage.lines("metrics_served")) == 2 and found, "both units serve"
    )
    ports = [line["port"] for line in served]
    assert len(set(ports)) == 2  # the second one took the next
    ask = prometheus(ports)
    status = stage.wait(stage.create())
    assert stage.lines("message_settled") == []  # sampled away, and counted all the same

    settled = 'sum by (outcome) (wxbroadcast_answers_total{action="settled"})'
    eventually(lambda: sum((ask(settled) or {}).values()) == 300, "all was scraped", within_s=20)
    assert ask(settled) == {k: float(n) for k, n in status.outcomes.items()}
    assert ask("sum(wxbroadcast_send_latency_seconds_count)")[""] >= 300
    assert ask("max(wxbroadcast_peers)") == {"": 2.0}
    assert ask("sum(wxbroadcast_in_hand)") == {"": 0.0}
