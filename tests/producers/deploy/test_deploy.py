"""Files that watch a deployment: written out whole, and about figures and events that there are."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cli_runs import run
from promtool import ALERTS, promtool
from shop import Shop

from producers.board import Boards
from producers.deploy import write
from producers.logs.events import MessageSettled, catalogue
from producers.metrics import Deployment, Meter, exposed
from producers.settings import Settings


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("deploy")
    write("observability", where)
    return where


def panels(folder: Path, name: str) -> Iterator[dict[str, Any]]:
    document = json.loads((folder / f"grafana/dashboards/{name}.json").read_text())
    yield from document["panels"]


def expressions(folder: Path, name: str) -> list[str]:
    return [target["expr"] for one in panels(folder, name) for target in one["targets"]]


def test_all_of_it_is_written_and_nothing_that_was_changed_is_lost(
    tmp_path: Path, settings: Settings
) -> None:
    ran = run(settings, "deploy", "observability", tmp_path / "watch")
    assert ran.code == 0
    written = {Path(line).relative_to(tmp_path / "watch") for line in ran.out.splitlines()}
    assert {str(one) for one in written} == {
        "START.md",
        "compose.yaml",
        "grafana/dashboards/figures.json",
        "grafana/dashboards/logs.json",
        "grafana/provisioning/dashboards/wxbroadcast.yaml",
        "grafana/provisioning/datasources/wxbroadcast.yaml",
        "loki/loki.yaml",
        "prometheus/alerts.yml",
        "prometheus/prometheus.yml",
        "vector/vector.yaml",
    }
    assert run(settings, "deploy", "observability", tmp_path / "watch").code == 0  # the same again
    mine = tmp_path / "watch/prometheus/prometheus.yml"
    mine.write_text("mine")
    ran = run(settings, "deploy", "observability", tmp_path / "watch", "--json")
    assert ran.code == 2
    assert "it is there and differs" in ran.json["error"]
    assert mine.read_text() == "mine"
    assert run(settings, "deploy", "observability", tmp_path / "watch", "--overwrite").code == 0
    assert mine.read_text() != "mine"
    assert run(settings, "deploy", "everything", tmp_path).code == 2


def test_what_is_in_the_way_is_said_before_anything_is_written(
    tmp_path: Path, settings: Settings
) -> None:
    def said(folder: Path, *options: str) -> str:
        ran = run(settings, "deploy", "systemd", folder, *options)
        assert ran.code == 2
        return ran.err.replace("\n", " ")

    file = tmp_path / "file"
    file.write_text("mine")
    assert f"{file}: it is no folder" in said(file)
    assert f"{file}: it is no folder" in said(file / "below")
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "nowhere")
    assert f"{dangling}: it is no folder" in said(dangling)
    mine = tmp_path / "mine"
    (mine / "apps.toml.example").mkdir(parents=True)
    for options in ((), ("--overwrite",)):
        assert "apps.toml.example: it is a folder; move it away" in said(mine, *options)
    assert [one.name for one in mine.iterdir()] == ["apps.toml.example"]


def test_a_link_in_its_place_is_replaced_and_what_it_leads_to_stays(
    tmp_path: Path, settings: Settings
) -> None:
    target, folder = tmp_path / "target", tmp_path / "mine"
    folder.mkdir()
    link = folder / "START.md"
    link.symlink_to(target)
    assert run(settings, "deploy", "systemd", folder).code == 2
    assert not target.exists()
    target.write_text("mine")
    assert run(settings, "deploy", "systemd", folder, "--overwrite").code == 0
    assert target.read_text() == "mine"
    assert not link.is_symlink()
    assert not [one for one in folder.iterdir() if one.name.startswith(".")]


def test_prometheus_takes_its_files(folder: Path, tmp_path: Path) -> None:
    text = (folder / "prometheus/prometheus.yml").read_text()
    key = tmp_path / "key"
    key.write_text("wxb_x")
    (folder / "prometheus/checked.yml").write_text(
        text.replace("/run/secrets/wxb-read-key", str(key))
    )
    assert "SUCCESS" in promtool("check", "config", str(folder / "prometheus/checked.yml"))
    (folder / "prometheus/checked.yml").unlink()
    assert (folder / "prometheus/alerts.yml").read_text() == ALERTS.read_text("utf-8")


def test_panels_ask_for_figures_that_there_are(folder: Path, shop: Shop, tmp_path: Path) -> None:
    meter = Meter()
    meter.answered("shop", "settled", "failed", 40037, 1.0)
    deployment = Deployment(Boards(shop.client, shop.settings)).of(lambda _: True)
    known = set(re.findall(r"^# TYPE (\w+)", exposed(deployment, meter).decode(), re.MULTILINE))
    known |= {"wxbroadcast_slots_total", "wxbroadcast_limit_level"}  # of a worker: see figures.py
    asked = expressions(folder, "figures")
    for one in asked:
        for name in re.findall(r"wxbroadcast_\w+", one):
            assert name.removesuffix("_bucket") in known, name
    rules = [{"record": f"x{n}", "expr": one.replace("$app", ".*")} for n, one in enumerate(asked)]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "x", "rules": rules}]}))
    assert "SUCCESS" in promtool("check", "rules", str(tmp_path / "rules.yml"))


def test_panels_ask_for_events_and_fields_that_there_are(folder: Path) -> None:
    events = {model.name() for model in catalogue()}
    fields = set(MessageSettled.__dataclass_fields__)
    for one in expressions(folder, "logs"):
        for operator, wanted in re.findall(r'event(=~|=)"([^"]+)"', one):
            for part in wanted.split("|"):
                assert [name for name in events if re.fullmatch(part, name)], (operator, part)
        for named in re.findall(r"\| json ([a-z_, ]+?) \|", one):
            assert set(named.split(", ")) <= fields, named


def test_what_is_yaml_is_yaml_and_the_parts_know_each_other(folder: Path) -> None:
    documents = {path.name: yaml.safe_load(path.read_text()) for path in folder.rglob("*.y*ml")}
    services = documents["compose.yaml"]["services"]
    assert set(services) == {"prometheus", "loki", "vector", "grafana"}
    sources = yaml.safe_load(
        (folder / "grafana/provisioning/datasources/wxbroadcast.yaml").read_text()
    )
    known = {one["uid"]: one["type"] for one in sources["datasources"]}
    for one in sources["datasources"]:
        assert re.fullmatch(r"http://(\w+):\d+", one["url"])[1] in services  # type: ignore[index]
    for name in ("figures", "logs"):
        ids = [one["id"] for one in panels(folder, name)]
        assert len(set(ids)) == len(ids)
        for one in panels(folder, name):
            assert known[one["datasource"]["uid"]] == one["datasource"]["type"]
            place = one["gridPos"]
            assert place["x"] + place["w"] <= 24
    labels = documents["vector.yaml"]["sinks"]["loki"]["labels"]
    assert set(labels) == {"job", "app", "event", "level"}  # few values each: never an openid
    for service in services.values():
        assert not [one for one in service.get("ports", []) if not one.startswith("127.0.0.1:")]
