"""Apps come, change and go in their file, while real units and a real service run."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stage import DATA, Stage, template_of
from web_house import Caller, Got

from producers.access.api_keys import ANY_APP, ApiKeys, Scope
from producers.broadcasts.status import Status
from producers.care import doctor, roster
from producers.care.audit import Auditor
from producers.local.ports import free_port
from producers.settings import Settings
from producers.words import State

WITHIN_S = 5.0
"""From a change of the file to when every process has taken it up."""

Eventually = Callable[..., Any]
Apps = dict[str, dict[str, Any]]


class Deployment:
    """A stage whose apps stand in a mounted secret, and its processes."""

    def __init__(self, stage: Stage, folder: Path, eventually: Eventually) -> None:
        self.stage = stage
        self.eventually = eventually
        self.apps: Apps = json.loads(json.dumps(stage._fields["apps"]))
        self._folder = folder
        self._swaps = 0
        folder.mkdir()
        self.file = folder / "apps.toml"
        self.swap(self.apps)
        self.file.symlink_to("..data/apps.toml")
        fields = {name: value for name, value in stage._fields.items() if name != "apps"}
        stage._fields = {**fields, "apps_file": str(self.file), "wechat_url": stage.wechat.url}
        self.settings = Settings(_env_file=None, **stage._fields)
        follower = self.settings.follow_apps()
        assert follower is not None
        self._follower = follower
        self.port = free_port()
        self.api = Caller(self.port, self._key())

    def _key(self) -> str:
        made = ApiKeys(self.stage.client, self.settings)
        return made.create("all", [ANY_APP], [*Scope]).token

    def swap(self, apps: Apps | str) -> float:
        """Mount another content as Kubernetes does; returns when (monotonic s)."""
        self._swaps += 1
        mounted = self._folder / f"..{self._swaps}"
        mounted.mkdir()
        text = apps if isinstance(apps, str) else toml(apps)
        (mounted / "apps.toml").write_text(text)
        (self._folder / "..new").symlink_to(mounted.name)
        (self._folder / "..new").rename(self._folder / "..data")
        return time.monotonic()

    def start(self, units: int, processes: int) -> None:
        """Start units, and the service."""
        for _ in range(units):
            self.stage.unit()
        web = ["wxbroadcast", "web", "--port", str(self.port), "--processes", str(processes)]
        self.stage.command(web)
        self.eventually(lambda: len(self.lines("worker_started")) == units, "the units started")
        self.eventually(lambda: len(self.lines("web_started")) == processes, "the service started")

    def lines(self, event: str) -> list[dict[str, Any]]:
        return self.stage.lines(event)

    def changed(self, since: float, processes: int, before: int) -> None:
        """Wait until all processes have taken up a change, which they must soon."""
        self.eventually(
            lambda: len(self.lines("apps_changed")) - before == processes, "all took it up"
        )
        assert time.monotonic() - since < WITHIN_S + 1.0, "and a second of the machine's own"

    def message(self, app: str, openid: str) -> Got:
        body = {
            "channel": "subscribe",
            "template_id": template_of(app),
            "openid": openid,
            "data": DATA["subscribe"],
        }
        return self.api("POST", f"/v1/apps/{app}/messages", body)

    def answers(self, app: str, path: str = "broadcasts") -> set[int]:
        """Return what the service's processes answer, each of them asked several times."""
        return {self.api("GET", f"/v1/apps/{app}/{path}").status for _ in range(12)}

    def follow(self) -> None:
        """Let the test's own settings know what the file says, by which it collects."""
        for _ in range(2):
            self._follower.look()
        self.stage.settings.apps.put(self.settings.apps.now)

    def examined(self) -> str:
        """Return what the doctor finds of the file."""
        self.follow()
        return next(one.found for one in doctor.examine(self.settings) if one.name == "apps file")

    def status(self, broadcast: str) -> Status:
        return self.stage.status(broadcast)


def toml(apps: Apps) -> str:
    return "\n".join(
        f"[{alias}]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in app.items())
        for alias, app in apps.items()
    )


@pytest.fixture
def deployment(stages: Any, tmp_path: Path, eventually: Eventually) -> Deployment:
    return Deployment(stages(app={"rate_per_second": 5}), tmp_path / "mounted", eventually)


@pytest.mark.timeout(120)
def test_units_and_the_service_follow_the_file(deployment: Deployment) -> None:
    stage, eventually, apps = deployment.stage, deployment.eventually, deployment.apps
    stage.accepts(600)
    deployment.start(units=2, processes=2)
    assert deployment.answers("cafe") == {404}
    broadcast = stage.create("subscribe")
    eventually(lambda: stage.accepted > 3, "it is being sent")

    # an app comes, as one of five hundred
    cafe = {"appid": "wx0000000000000009", "secret": "cafe-secret"}
    many = {f"app{n}": {"appid": f"wx{n + 100:016}", "secret": f"s{n}"} for n in range(500)}
    at = deployment.swap({**apps, "cafe": cafe, **many})
    deployment.changed(at, 4, 0)
    assert deployment.answers("cafe") == {200}
    deployment.follow()
    stage.accepts(1, app="cafe")
    assert deployment.message("cafe", "cafe0").status == 201
    eventually(lambda: stage.wechat.received("cafe0"), "its message was sent", within_s=5)
    known = deployment.settings.apps.keys()
    eventually(lambda: roster.look(stage.client).apps == known, "the units say so", within_s=3)

    # a broken file: nothing changes, and each process says so once
    at = deployment.swap(toml({**apps, "cafe": cafe}) + "[news]\nrate = 1\n")
    eventually(lambda: len(deployment.lines("apps_refused")) == 4, "all refused it")
    assert "news.rate: unknown" in deployment.lines("apps_refused")[0]["faults"]
    assert deployment.answers("cafe") == {200}

    # the rate of the running broadcast's app changes, and the others go
    before = len(deployment.lines("apps_changed"))
    shop = {**apps["shop"], "rate_per_second": 40}
    at = deployment.swap({"shop": shop, "cafe": cafe})
    deployment.changed(at, 4, before)
    assert deployment.answers("app7") == {404}
    accepted = stage.accepted
    eventually(lambda: stage.accepted > accepted + 60, "at the new rate", within_s=5)

    stands_still_and_goes_on(deployment, broadcast, shop, cafe)
    assert Auditor(stage.client, deployment.settings).run().wrong == []
    same = "apps: 2, the same in all processes: 4"
    eventually(lambda: deployment.examined() == same, "they are of one mind")
    said = "".join(log.read_text() for log in stage.logs)
    assert not [one for one in ("shop-secret", "cafe-secret") if one in said]


def stands_still_and_goes_on(
    deployment: Deployment, broadcast: str, shop: dict[str, Any], cafe: dict[str, Any]
) -> None:
    """The app of a running broadcast goes, and returns."""
    stage, eventually = deployment.stage, deployment.eventually
    before = len(deployment.lines("apps_changed"))
    at = deployment.swap({"cafe": cafe})
    deployment.changed(at, 4, before)
    eventually(lambda: deployment.status(broadcast).in_flight == 0, "what was out is settled")
    stands = deployment.status(broadcast)
    assert 0 < stands.settled < stands.total
    assert stands.state is State.RUNNING
    assert deployment.answers("shop", f"broadcasts/{broadcast}") == {404}
    accepted = stage.accepted
    time.sleep(2)  # while it stands still
    assert stage.accepted == accepted

    deployment.swap({"shop": {**shop, "rate_per_second": 0}, "cafe": cafe})
    status = stage.wait(broadcast)
    assert status.outcomes == {"delivered": 600}
    assert stage.stats["duplicates"] == 0
