"""The crowd of a chaos run: every user has given exactly one good permit."""

import random
import time
from typing import Any, Final

from producers.local.chaos.schedule import Plan
from producers.local.parts import APP, Watcher
from producers.permits.collect import Collector
from producers.sandbox.control.client import SandboxClient
from producers.settings import Settings
from producers.store import Client
from producers.words import Channel

_HOUR_MS: Final = 3_600_000
_GRANTS: Final = 5000


def collect(
    plan: Plan,
    template_id: str,
    client: Client,
    settings: Settings,
    wechat: SandboxClient,
    watcher: Watcher,
) -> list[dict[str, Any]]:
    """Give every user one good permit, here and at the sandbox.

    Args:
        plan: how many users, and whose permits.
        template_id: what they subscribe to.
        client: Redis, directly.
        settings: lanes and buckets.
        wechat: the sandbox.
        watcher: may end it.

    Returns:
        What they uploaded, one each, in the order of their openids.
    """
    watcher.say(f"collecting the permits of {plan.recipients:,} users")
    rng = random.Random(plan.seed)  # noqa: S311 - invented people
    openids = [f"oCHAOS{number:022d}" for number in range(plan.recipients)]
    until_ms = time.time_ns() // 1_000_000 + 100 * _HOUR_MS
    uploads: list[dict[str, Any]]
    grants: list[dict[str, Any]]
    if plan.channel is Channel.TEMPLATE:
        kind = "form_ids"
        forms = [f"{rng.getrandbits(128):032x}" for _ in openids]
        pairs = list(zip(openids, forms, strict=True))
        uploads = [
            {"openid": openid, "formIds": [{"formId": form, "expire": until_ms}]}
            for openid, form in pairs
        ]
        grants = [
            {"openid": openid, "form_id": form, "expires_at_ms": until_ms} for openid, form in pairs
        ]
    else:
        kind = "subscriptions"
        uploads = [{"openid": one, "subscriptions": {template_id: "accept"}} for one in openids]
        grants = [{"openid": one, "template_id": template_id} for one in openids]
    for start in range(0, len(grants), _GRANTS):
        watcher.wait(0)
        wechat.post("permits", {kind: grants[start : start + _GRANTS]})
        Collector(client, settings).collect(APP, uploads[start : start + _GRANTS])
    return uploads
