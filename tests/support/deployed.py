"""The files that deploy it, as programs read them: commands, their environment, their probes."""

import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from dotenv import dotenv_values

from producers.deploy import write

KINDS = ("compose", "kubernetes", "systemd")
PARTS = ("web", "worker")
MOUNTED = ("/run/secrets/apps.toml", "/etc/wxbroadcast/apps.toml")


@dataclass(frozen=True)
class Part:
    """A part of the deployment, as a kind of files starts it.

    Attributes:
        command: as it stands there; programs are those of the image or of /opt/wxbroadcast/bin.
        env: its variables.
        apps: the file of apps that it is given, as text.
        paths: of HTTP by which it is found alive, and the variable with their port.
        checks: commands by which it is found alive.
        stop_s: how long it may take to end.
    """

    command: list[str]
    env: Mapping[str, str]
    apps: str
    paths: list[tuple[str, str]]
    checks: list[list[str]]
    stop_s: float


def part(folder: Path, kind: str, name: str) -> Part:
    """Read a part of what `write` wrote."""
    return {"compose": _composed, "kubernetes": _in_a_pod, "systemd": _unit}[kind](folder, name)


def image(folder: Path) -> tuple[dict[str, str], list[str], list[str]]:
    """Return the variables, the command and the health check of the image."""
    text = (folder / "Dockerfile").read_text().replace("\\\n", " ")
    last = text.rpartition("\nFROM ")[2]
    [env] = re.findall(r"^ENV (.*)$", last, re.MULTILINE)
    found = dict(one.split("=", 1) for one in env.split())
    check, command = re.findall(r"^(?:HEALTHCHECK .* )?CMD (\[.*\])$", last, re.MULTILINE)
    return found, yaml.safe_load(command), yaml.safe_load(check)


def interpolated(text: str, variables: Mapping[str, str | None]) -> str:
    """Put variables in as Compose does."""

    def value(match: re.Match[str]) -> str:
        if match["name"] is None:
            return "$"
        given = variables.get(match["name"])
        assert given or match["default"], f"{match['name']} is not in env.example"
        return given or match["default"].removeprefix("-")

    pattern = r"\$(?:\$|\{(?P<name>\w+)(?::(?P<default>-[^}]*|\?[^}]*))?\})"
    return re.sub(pattern, value, text)


def compose_file(folder: Path, **changes: str) -> str:
    """Return the Compose file with the variables of env.example, and a password."""
    text = (folder / "env.example").read_text()
    for name, old in changes.items():
        text = re.sub(rf"^(# )?{name}=", f"{name}={old}", text, count=1, flags=re.MULTILINE)
    (folder / ".env").write_text(text)
    variables = dotenv_values(folder / ".env")
    (folder / ".env").unlink()
    return interpolated((folder / "compose.yaml").read_text(), variables)


def _composed(folder: Path, name: str) -> Part:
    env, command, check = image(folder)
    service = yaml.safe_load(compose_file(folder, VALKEY_PASSWORD="hush"))["services"][name]
    for file in service["env_file"]:
        env |= {key: value or "" for key, value in dotenv_values(folder / file).items()}
    return Part(
        service.get("command", command),
        env | {key: str(value) for key, value in service["environment"].items()},
        (folder / "apps.toml.example").read_text(),
        [],
        [service["healthcheck"]["test"][1:] if "healthcheck" in service else check],
        float(service["stop_grace_period"].removesuffix("s")),
    )


def documents(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield every document of Kubernetes."""
    for path in sorted(folder.glob("*.yaml")):
        if path.name != "kustomization.yaml":
            yield from yaml.safe_load_all(path.read_text())


def _in_a_pod(folder: Path, name: str) -> Part:
    by_name = {(one["kind"], one["metadata"]["name"]): one for one in documents(folder)}
    pod = by_name["Deployment", f"wxb-{name}"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    env, _, _ = image(folder)
    for source in container["envFrom"]:
        env |= by_name["ConfigMap", source["configMapRef"]["name"]]["data"]
    secret = by_name["Secret", "wxb-secrets"]["stringData"]
    for one in container["env"]:
        env[one["name"]] = secret[one["valueFrom"]["secretKeyRef"]["key"]]
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    variable = {8080: "WXB_WEB_PORT", 9210: "WXB_METRICS_PORT"}
    probes = [container[key]["httpGet"] for key in container if key.endswith("Probe")]
    paths = [(one["path"], variable[ports[one["port"]]]) for one in probes]
    stop_s = pod["terminationGracePeriodSeconds"]
    if "lifecycle" in container:
        stop_s -= int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    return Part(container["args"], env, secret["apps.toml"], paths, [], stop_s)


def _unit(folder: Path, name: str) -> Part:
    [path] = folder.glob(f"wxbroadcast-{name}*.service")
    lines = dict(
        line.split("=", 1)
        for line in path.read_text().splitlines()
        if "=" in line and line[0] not in "#["
    )
    env = {key: value or "" for key, value in dotenv_values(_env_of(folder)).items()}
    return Part(
        shlex.split(lines["ExecStart"]),
        env,
        (folder / "apps.toml.example").read_text(),
        [],
        [],
        float(lines["TimeoutStopSec"]),
    )


def _env_of(folder: Path) -> Path:
    return folder / "wxbroadcast.env.example"


def written(folder: Path, kind: str) -> Path:
    """Write the files of a kind into a folder of their own."""
    write(kind, folder / kind)
    return folder / kind


def is_toml(text: str) -> bool:
    """Say whether the file of apps can be read."""
    return bool(tomllib.loads(text))
