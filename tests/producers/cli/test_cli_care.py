"""``audit``, ``doctor``, ``doubts`` and ``aside``, as an operator runs them."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from producers import Producer
from producers.broadcasts import Broadcasts
from producers.care.appids import Appids
from producers.care.check import Health
from producers.care.doctor import examine
from producers.care.roster import tell_web
from producers.local.ports import free_port
from producers.local.url import DATA_DIR
from producers.sandbox import Sandbox, SandboxConfig
from producers.settings import Apps, Settings
from producers.store import keys

WXBROADCAST = str(Path(sys.executable).parent / "wxbroadcast")


def run(
    settings: Any, *args: str, cwd: Path | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    app = settings.apps["shop"]
    variables = {
        "PATH": os.environ["PATH"],
        "WXB_REDIS_URL": settings.redis_url.get_secret_value(),
        "WXB_BUCKETS": str(settings.buckets),
        "WXB_APPS": json.dumps({"shop": {"appid": app.appid, "secret": "shop-secret"}}),
        "WXB_WECHAT_URL": "http://127.0.0.1:9",
        **env,
    }
    return subprocess.run(
        [WXBROADCAST, *args],
        env=variables,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=25,
        check=False,
    )


@pytest.fixture
def broadcast(settings: Any, client: Any) -> str:
    with Producer(settings) as producer:
        producer.collect("shop", [{"openid": "o1", "formIds": ["a", "b"]}])
        spec = {"app": "shop", "channel": "template", "template_id": "T", "audience": "all"}
        return producer.broadcast(**spec, data="a").id


def test_audit_answers_0_when_all_agrees_and_1_when_not(
    settings: Any, client: Any, broadcast: str
) -> None:
    sound = run(settings, "audit", "--json")
    assert sound.returncode == 0
    assert json.loads(sound.stdout.splitlines()[-1])["permits"]["shop"]["available"] == 2

    client.hincrby(keys.ledger(0, "shop"), "collected:f", 1)
    broken = run(settings, "audit")
    assert broken.returncode == 1
    assert "WRONG shop: form_id uses held" in broken.stdout


def test_doctor_says_what_to_change_and_shows_no_secret(settings: Any) -> None:
    found = run(settings, "doctor", "--json")
    checks = {c["name"]: c for c in json.loads(found.stdout.splitlines()[-1])["checks"]}
    assert found.returncode == 1  # no WeChat answers there
    assert checks["appendonly"]["health"] == "warn"
    assert checks["version"]["health"] == "ok"
    assert checks["app shop: token"]["health"] == "bad"
    assert checks["app shop: subscribe_templates"]["health"] == "warn"
    assert "shop-secret" not in found.stdout + found.stderr


@pytest.mark.parametrize(
    ("callback_aes_key", "callback_plain", "health"),
    [("", False, "warn"), ("k" * 43, True, "warn"), ("k" * 43, False, "ok")],
)
def test_doctor_says_what_pushes_in_clear_cannot_be_protected_against(
    settings: Any, callback_aes_key: str, callback_plain: bool, health: str
) -> None:
    app = {"callback_token": "callbacktoken", "callback_plain": str(callback_plain)}
    app |= {"callback_aes_key": callback_aes_key} if callback_aes_key else {}
    given = {f"WXB_APPS__SHOP__{name.upper()}": text for name, text in app.items()}
    found = run(settings, "doctor", "--json", **given)
    checks = {c["name"]: c for c in json.loads(found.stdout.splitlines()[-1])["checks"]}
    assert checks["app shop: pushes"]["health"] == health
    assert ("signature" in checks["app shop: pushes"]["found"]) == (health == "warn")


async def test_doctor_asks_wechat_for_token_and_quota(settings: Any) -> None:
    import asyncio  # noqa: PLC0415

    async with Sandbox(SandboxConfig()) as sandbox:
        found = await asyncio.to_thread(run, settings, "doctor", WXB_WECHAT_URL=sandbox.url)
    assert found.returncode == 0
    assert "30,000,000 of 30,000,000 left today" in found.stdout


def test_doctor_ends_in_time_when_the_wechat_of_many_apps_hangs(settings: Any) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=512) as hole:
        url = "http://{}:{}".format(*hole.getsockname())
        apps = {f"a{n}": {"appid": f"wx{n}", "secret": "s"} for n in range(60)}
        started = time.monotonic()
        found = doctor(settings, WXB_APPS=json.dumps(apps), WXB_WECHAT_URL=url)
    assert time.monotonic() - started < 18
    assert [found[f"app {app}: token"]["health"] for app in apps] == ["bad"] * 60


def test_doubts_and_aside_of_a_broadcast_without_any(settings: Any, broadcast: str) -> None:
    listed = run(settings, "doubts", broadcast, "--json")
    assert json.loads(listed.stdout) == {"id": broadcast, "in_doubt": 0}
    decided = run(settings, "doubts", broadcast, "--settle-as", "nothing")
    assert (decided.returncode, "delivered or failed" in decided.stderr) == (2, True)
    aside = run(settings, "aside", broadcast, "--replay", "--json")
    assert json.loads(aside.stdout)["messages"] == 0
    assert run(settings, "aside", "unknown").returncode == 2


# -- what is not seen by looking at one broadcast ---------------------------------------------


def doctor(settings: Any, cwd: Path | None = None, **env: str) -> dict[str, dict[str, str]]:
    """Return what the doctor found, by the checks' names."""
    found = run(settings, "doctor", "--json", cwd=cwd, **env)
    return {c["name"]: c for c in json.loads(found.stdout.splitlines()[-1])["checks"]}


def test_doctor_lists_paused_broadcasts_and_carriers(
    settings: Any, client: Any, broadcast: str
) -> None:
    assert doctor(settings)["app shop: broadcasts"]["found"] == "1 under way, none paused"
    broadcasts = Broadcasts(client, settings)
    broadcasts.pause(broadcast, "over the error budget", 45009)
    with Producer(settings) as producer:
        spec = {"app": "shop", "channel": "template", "template_id": "T", "data": "a"}
        message = producer.message(**spec, openid="o1").id
        more = [producer.broadcast(**spec, audience="all", key=str(n)).id for n in range(6)]
    carrier = message.partition(".")[0]
    broadcasts.pause(carrier)
    found = doctor(settings)["app shop: broadcasts"]
    assert found["health"] == "warn"
    assert f"broadcast {broadcast} (over the error budget, errcode 45009)" in found["found"]
    assert f"carrier {carrier} (asked for)" in found["found"]
    assert not any(one in found["found"] for one in more)
    for one in more:
        broadcasts.pause(one)
    assert doctor(settings)["app shop: broadcasts"]["found"].endswith(", and 3 more")


def test_doctor_names_apps_that_nobody_knows(settings: Any, client: Any, broadcast: str) -> None:
    other = json.dumps({"cafe": {"appid": "wx1", "secret": "s"}})
    assert "app shop" not in doctor(settings)
    found = doctor(settings, WXB_APPS=other)["app shop"]
    assert (found["health"], "1 broadcasts wait" in found["found"]) == ("bad", True)
    client.zadd(keys.WORKERS, {"w1": client.time()[0] * 1000})
    client.set(keys.worker_apps("w1"), "shop news", px=60_000)
    found = doctor(settings, WXB_APPS=other)
    assert "app shop" not in found  # the workers know it
    assert found["app cafe: workers"]["health"] == "bad"
    assert "no worker knows app cafe" in found["app cafe: workers"]["found"]
    assert "app shop: workers" not in doctor(settings)
    Broadcasts(client, settings).cancel(broadcast)
    client.delete(keys.WORKERS, keys.active("shop"))
    assert "app shop" not in doctor(settings, WXB_APPS=other)  # nothing of it waits


def test_doctor_says_which_valkey_ended(settings: Any, tmp_path: Path) -> None:
    url = f"redis://127.0.0.1:{free_port()}/0#{tmp_path / DATA_DIR}"
    found = doctor(settings, WXB_REDIS_URL=url)["redis"]
    assert (found["health"], found["found"]) == ("bad", "ConnectionError")
    assert f"that was `wxbroadcast up` in {tmp_path}; start it again" in found["advice"]


def test_doctor_names_packages_that_hide_ours(settings: Any, tmp_path: Path) -> None:
    (tmp_path / "workers").mkdir()
    assert "packages" not in doctor(settings, tmp_path)  # a folder hides nobody
    (tmp_path / "workers" / "__init__.py").touch()
    found = doctor(settings, tmp_path)["packages"]
    assert (found["health"], str(tmp_path / "workers") in found["found"]) == ("warn", True)
    (tmp_path / "elsewhere").mkdir()
    hidden = doctor(settings, tmp_path / "elsewhere", PYTHONPATH=str(tmp_path))["packages"]
    assert hidden["health"] == "bad"
    assert "packages" not in doctor(settings, Path(__file__).parents[3])  # these are ours


def test_doctor_names_an_alias_that_means_another_mini_program(settings: Any, client: Any) -> None:
    shop = settings.apps["shop"]
    Appids(client, settings).tell(settings.apps)
    changed = settings.model_copy(
        update={"apps": Apps({"shop": shop.model_copy(update={"appid": "wx2"})})}
    )
    Appids(client, changed).tell(changed.apps)  # as a worker that is started with it
    assert Appids(client, changed).others() == {"shop": shop.appid}
    [found] = [one for one in examine(changed) if one.name == "app shop: appid"]
    assert (found.health, shop.appid in found.found) == (Health.BAD, True)
    ran = run(changed, "apps", "reassign", "shop", "--json")
    assert json.loads(ran.stdout.splitlines()[-1]) == {
        "app": "shop",
        "before": shop.appid,
        "appid": "wx2",
    }
    assert Appids(client, changed).others() == {}


def test_doctor_names_processes_whose_apps_are_other_ones(
    settings: Any, client: Any, tmp_path: Path
) -> None:
    file = tmp_path / "apps.json"
    file.write_text(json.dumps({"shop": {"appid": "wx1", "secret": "shop-secret"}}))
    fields = {"redis_url": settings.redis_url, "buckets": 256, "wechat_url": "http://127.0.0.1:9"}
    followed = Settings(_env_file=None, apps_file=file, **fields)
    tell_web(client, "web:a:1", followed.apps.digest)

    def found() -> Any:
        checks = examine(followed)
        return next(one for one in checks if one.name == "apps file")

    assert (found().health, found().found) == (Health.OK, "apps: 1, the same in all processes: 1")
    tell_web(client, "web:a:2", "0123456789abcdef")
    assert (found().health, found().found) == (Health.WARN, "others than here: web:a:2")
    tell_web(client, "web:a:2", followed.apps.digest, "0123456789abcdef")
    assert found().health is Health.OK
