"""The files that deploy it, judged by the programs and schemas of those who read them."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import compose_spec
import kubernetes_validate
import pytest
import yaml
from deployed import KINDS, PARTS, compose_file, documents, image, part, written
from promtool import promtool

from producers.deploy import KINDS as ALL_KINDS
from producers.deploy import write
from producers.local import procfile
from producers.settings import Settings
from workers.runtime import END_S

DRAIN_S = 10.0
"""What workers/README.md promises."""

assert END_S < DRAIN_S


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("deployed")
    for kind in ALL_KINDS:
        write(kind, where / kind)
    return where


@pytest.fixture(scope="module")
def pods(folder: Path) -> dict[str, dict[str, Any]]:
    """Give the Deployments by name."""
    return {
        one["metadata"]["name"]: one["spec"]
        for one in documents(folder / "kubernetes")
        if one["kind"] == "Deployment"
    }


def texts(folder: Path) -> Iterator[tuple[Path, str]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path, path.read_text()


# -- of all -------------------------------------------------------------------------------------


def test_every_variable_that_they_name_is_a_setting(folder: Path) -> None:
    known = {f"WXB_{name.upper()}" for name in Settings.model_fields}
    seen = set()
    for path, text in texts(folder):
        for name in re.findall(r"WXB_[A-Z0-9_]+", text):
            assert name in known, (path.name, name)
            seen.add(name)
    assert len(seen) > 10


@pytest.mark.parametrize("kind", ["compose", "kubernetes", "systemd"])
def test_none_says_how_many_lanes(folder: Path, kind: str) -> None:
    """A deployment that gets more of them would not start any more."""
    for path in (folder / kind).rglob("*"):
        assert not path.is_file() or "WXB_LANES" not in path.read_text(), path


def test_a_shell_reads_the_file_of_systemd_as_systemd_does(folder: Path) -> None:
    """The doctor of its START.md is run so; a URL of sentinels has an &."""
    url = "redis+sentinel://h1,h2/main/0?sentinel_username=$a&sentinel_password=b"
    text = (folder / "systemd/wxbroadcast.env.example").read_text()
    mine = folder / "mine.env"
    mine.write_text(re.sub("redis://[^'\n]*", lambda _: url, text))
    script = f"set -a; . {mine}; env"
    ran = subprocess.run(
        ["/bin/sh", "-c", script], env={}, capture_output=True, text=True, check=False
    )
    mine.unlink()
    assert ran.stderr == ""
    assert f"WXB_REDIS_URL={url}" in ran.stdout.splitlines()


def test_they_name_the_version_that_wrote_them_and_no_package_host(folder: Path) -> None:
    project = Path(__file__).resolve().parents[3] / "pyproject.toml"
    ours = tomllib.loads(project.read_text())["project"]["version"]
    assert f"wxbroadcast=={ours}" in (folder / "compose/Dockerfile").read_text()
    for path, text in texts(folder):
        assert "@VERSION@" not in text, path
        assert not re.search(r"pypi|index-url|registry\.npm|debian\.org", text), path
    assert (folder / "kubernetes/Dockerfile").read_bytes() == (
        folder / "compose/Dockerfile"
    ).read_bytes()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PARTS)
def test_their_commands_are_those_of_the_procfile(folder: Path, kind: str, name: str) -> None:
    program, *arguments = part(folder / kind, kind, name).command
    assert [program.removeprefix("/opt/wxbroadcast/bin/"), *arguments] == procfile.read()[
        name
    ].split()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PARTS)
def test_they_wait_for_as_long_as_a_part_drains(folder: Path, kind: str, name: str) -> None:
    assert part(folder / kind, kind, name).stop_s >= DRAIN_S + 2


# -- compose ------------------------------------------------------------------------------------


def composed(text: str) -> compose_spec.PyCompose:
    # with its anchors put in, which this reader does not follow two deep
    file = compose_spec.PyCompose.from_yaml(yaml.safe_dump(yaml.safe_load(text)))
    file.validate()
    return file


def test_compose_takes_its_file(folder: Path) -> None:
    file = composed(compose_file(folder / "compose", VALKEY_PASSWORD="hush"))
    assert {"web", "worker", "valkey", "valkey-6", "valkey-join"} <= set(file.service_names())


def test_the_check_of_it_finds_what_is_wrong(folder: Path) -> None:
    text = compose_file(folder / "compose", VALKEY_PASSWORD="hush")
    with pytest.raises(ValueError, match="mem_limits"):
        composed(text.replace("mem_limit:", "mem_limits:"))


def test_compose_takes_the_file_of_the_observers(folder: Path) -> None:
    text = (folder / "observability/compose.yaml").read_text()
    known = text.replace("host-gateway", "127.0.0.1")  # a word of Docker's that it does not know
    composed(re.sub(r"\$\{\w+:\?[^}]*\}", "/x", known))


def test_a_cluster_is_a_profile_of_three_with_a_replica_each(folder: Path) -> None:
    services = yaml.safe_load(compose_file(folder / "compose", VALKEY_PASSWORD="hush"))["services"]
    nodes = {name for name, one in services.items() if one.get("profiles") == ["cluster"]}
    assert nodes == {*(f"valkey-{number}" for number in range(1, 7)), "valkey-join"}
    assert services["valkey"]["profiles"] == ["single"]
    for name in sorted(nodes - {"valkey-join"}):
        [command] = services[name]["command"][2:]
        assert "--appendonly yes" in command
        assert "--maxmemory-policy noeviction" in command
        assert services[name]["volumes"] == [f"{name}:/data"]


def test_nothing_of_compose_runs_as_root_or_writes_its_own_files(folder: Path) -> None:
    services = yaml.safe_load(compose_file(folder / "compose", VALKEY_PASSWORD="hush"))["services"]
    for name in PARTS:
        assert services[name]["read_only"]
        assert services[name]["cap_drop"] == ["ALL"]
        assert "image" in services[name]
    assert services["web"]["ports"] == ["127.0.0.1:8080:8080"]


def test_the_dockerfile_is_as_hadolint_wants_it(folder: Path) -> None:
    checked = subprocess.run(
        [Path(sys.executable).parent / "hadolint", "--no-color", folder / "compose/Dockerfile"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stdout) == (0, "")
    text = (folder / "compose/Dockerfile").read_text()
    assert text.count("\nFROM ") == 2
    assert re.search(r"^USER 10001:10001$", text, re.MULTILINE)
    assert image(folder / "compose")[1] == ["wxbroadcast", "web"]


# -- kubernetes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1.30", kubernetes_validate.latest_version()])
def test_kubernetes_takes_every_document(folder: Path, version: str) -> None:
    kinds = set()
    for document in documents(folder / "kubernetes"):
        kubernetes_validate.validate(document, version, strict=True)
        kinds.add(document["kind"])
    assert kinds == {
        "ConfigMap",
        "Deployment",
        "HorizontalPodAutoscaler",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "Secret",
        "Service",
    }


def test_the_schemas_find_what_is_wrong(pods: dict[str, dict[str, Any]]) -> None:
    wrong = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}}
    spec = {**pods["wxb-web"], "replica": 2}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**wrong, "spec": spec}, "1.30", strict=True)


def test_its_parts_know_each_other(folder: Path, pods: dict[str, dict[str, Any]]) -> None:
    found = list(documents(folder / "kubernetes"))
    labels = [pod["template"]["metadata"]["labels"] for pod in pods.values()]
    for one in found:
        spec = one.get("spec", {})
        if one["kind"] in {"Deployment", "PodDisruptionBudget"}:
            assert spec["selector"]["matchLabels"] in labels
        if one["kind"] == "Service":
            assert spec["selector"] in labels
            ports = {
                port["name"]
                for pod in pods.values()
                for port in pod["template"]["spec"]["containers"][0]["ports"]
            }
            assert {port["targetPort"] for port in spec["ports"]} <= ports
        if one["kind"] == "HorizontalPodAutoscaler":
            assert spec["scaleTargetRef"]["name"] in pods
            assert pods[spec["scaleTargetRef"]["name"]]["replicas"] >= spec["minReplicas"]
    listed = yaml.safe_load((folder / "kubernetes/kustomization.yaml").read_text())["resources"]
    there = {path.name for path in (folder / "kubernetes").glob("*.yaml")}
    assert set(listed) == there - {"kustomization.yaml", "secret.example.yaml"}


@pytest.mark.parametrize("name", PARTS)
def test_a_pod_may_do_little(pods: dict[str, dict[str, Any]], name: str) -> None:
    pod = pods[f"wxb-{name}"]["template"]["spec"]
    [container] = pod["containers"]
    assert pod["enableServiceLinks"] is False
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"requests", "limits"} == container["resources"].keys()


def test_workers_grow_by_a_figure_that_there_is(folder: Path, tmp_path: Path) -> None:
    text = (folder / "kubernetes/START.md").read_text()
    [rule] = yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0])["externalRules"]
    [scaler] = [
        one
        for one in documents(folder / "kubernetes")
        if one["kind"] == "HorizontalPodAutoscaler" and one["metadata"]["name"] == "wxb-worker"
    ]
    [metric] = scaler["spec"]["metrics"]
    assert metric["external"]["metric"]["name"] == rule["name"]["as"]
    rules = tmp_path / "rules.yml"
    record = {"record": "wxbroadcast_unsettled", "expr": rule["metricsQuery"]}
    rules.write_text(yaml.safe_dump({"groups": [{"name": "x", "rules": [record]}]}))
    series = [
        {"series": f'wxbroadcast_messages{{app="{app}",where="unsettled"}}', "values": values}
        for app, values in (("shop", "9000"), ("news", "500"))
    ] + [
        {"series": f'wxbroadcast_broadcasts{{app="{app}",state="running"}}', "values": values}
        for app, values in (("shop", "1"), ("news", "0"))
    ]
    told = {
        "rule_files": [str(rules)],
        "tests": [
            {
                "interval": "1m",
                "input_series": series,
                "promql_expr_test": [
                    {
                        "expr": "wxbroadcast_unsettled",
                        "eval_time": "0m",
                        "exp_samples": [{"labels": "wxbroadcast_unsettled", "value": 9000}],
                    }
                ],
            }
        ],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump(told))
    assert "SUCCESS" in promtool("test", "rules", str(tmp_path / "test.yml"))


# -- systemd ------------------------------------------------------------------------------------


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """Give the units with a program that there is."""
    where = written(tmp_path, "systemd")
    for path in where.glob("*.service"):
        text = path.read_text()
        path.write_text(re.sub(r"/opt/wxbroadcast/bin/\w+", "/usr/bin/env", text))
    return sorted(where.glob("*.service"))


def analyzed(*arguments: object) -> str:
    done = subprocess.run(
        ["systemd-analyze", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_systemd_takes_the_units(units: list[Path]) -> None:
    assert len(units) == 2
    assert analyzed("verify", *units) == ""


def test_systemd_finds_what_is_wrong(units: list[Path]) -> None:
    units[0].write_text(units[0].read_text().replace("Restart=always", "Restart=allways"))
    assert "Restart" in analyzed("verify", units[0])


def test_a_unit_is_exposed_to_little(units: list[Path]) -> None:
    for path in units:
        analyzed("security", "--offline=yes", "--threshold=20", path)  # of 100
        assert "RestartPreventExitStatus=2 78\n" in path.read_text()
