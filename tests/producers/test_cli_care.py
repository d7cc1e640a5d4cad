"""``audit``, ``doctor``, ``doubts`` and ``aside``, as an operator runs them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from producers import Producer, keys
from producers.sandbox import Sandbox, SandboxConfig

WXBROADCAST = str(Path(sys.executable).parent / "wxbroadcast")


def run(settings: Any, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
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
        [WXBROADCAST, *args], env=variables, capture_output=True, text=True, timeout=25, check=False
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


def test_doubts_and_aside_of_a_broadcast_without_any(settings: Any, broadcast: str) -> None:
    listed = run(settings, "doubts", broadcast, "--json")
    assert json.loads(listed.stdout) == {"id": broadcast, "in_doubt": 0}
    decided = run(settings, "doubts", broadcast, "--settle-as", "nothing")
    assert (decided.returncode, "delivered or failed" in decided.stderr) == (2, True)
    aside = run(settings, "aside", broadcast, "--replay", "--json")
    assert json.loads(aside.stdout)["messages"] == 0
    assert run(settings, "aside", "unknown").returncode == 2
