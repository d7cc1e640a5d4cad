"""The benchmarks run, and their sums are right; what they measure is not judged here."""

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = (
    "send",
    "split",
    "limiter",
    "latency",
    "distance",
    "replicas",
    "memory",
    "collect",
    "web",
    "idle",
    "expiry",
    "lanes",
    "topologies",
)

ONE_TOO_MANY = """
import sys, types
from urllib.request import urlopen
import orjson
from tests.bench import __main__ as bench
from tests.bench.ground import form_id, openid, spec

def run(ground, scale, profile):
    ground.invite("everybody", 20)
    ground.give(20, 1)
    with ground.workers():
        status = ground.finish(ground.broadcasts.create(spec("everybody")).id)
        ground.check(status, 20)
        again = orjson.dumps({"touser": openid(7), "form_id": form_id(7, 1)})
        urlopen(ground.wechat_url + "/cgi-bin/message/wxopen/template/send", again).close()
        ground.check(status, 20)

broken = types.ModuleType("tests.bench.broken")
broken.run = run
sys.modules["tests.bench.broken"] = broken
bench.NAMES = ("broken",)
sys.exit(bench.main())
"""


def _run(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.timeout(240)
@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_a_benchmark_runs_and_its_sums_are_right(tmp_path: Path, benchmark: str) -> None:
    told = tmp_path / "bench.json"
    ran = _run("-m", "tests.bench", "--tiny", "--only", benchmark, "--json", str(told))

    assert ran.returncode == 0, ran.stdout + ran.stderr
    document = orjson.loads(told.read_bytes())
    assert document["wrong"] == []
    (report,) = document["benchmarks"]
    assert report["name"] == benchmark
    assert report["sums"]
    assert all(figure["values"] for figure in report["figures"])


@pytest.mark.timeout(120)
def test_a_send_too_many_fails_the_run() -> None:
    ran = _run("-c", ONE_TOO_MANY)

    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "broken: WRONG: WeChat saw {'accepted': 21, 'openids': 20, 'twice': 1" in ran.stderr


def test_an_unknown_benchmark_is_refused() -> None:
    ran = _run("-m", "tests.bench", "--only", "luck")

    assert ran.returncode == 2
    assert "invalid choice: 'luck'" in ran.stderr
