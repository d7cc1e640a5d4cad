"""The users of an evening: each has given what its broadcasts need, and one for a message."""

from collections.abc import Iterator
from typing import Any, Final

from producers.local.chaos.evening.programme import (
    APPS,
    CAFE,
    CLUB,
    FORM_IDS,
    NEWS,
    SUPPRESSED,
    Evening,
    openid_of,
    template_of,
)
from producers.local.parts import Watcher
from producers.producer import Producer
from producers.sandbox.control.client import SandboxClient

_AT_ONCE: Final = 2000


def collect(
    evening: Evening, producer: Producer, wechat: SandboxClient, watcher: Watcher, *, later: bool
) -> None:
    """Give the users their permits, here and at the sandbox.

    Args:
        evening: the programme.
        producer: collects them.
        wechat: the sandbox.
        watcher: may end it.
        later: of the app alone that comes in the middle.
    """
    for app in [CAFE] if later else [one for one in APPS if one != CAFE]:
        users = range(1 if app == CAFE else evening.users)
        for start in range(0, len(users), _AT_ONCE):
            watcher.wait(0)
            some = users[start : start + _AT_ONCE]
            uploads = [_upload(evening, app, user) for user in some]
            producer.collect(app, uploads)
            wechat.post("permits", dict(_grants(uploads)))
    if not later:
        unwilling = range(evening.users - SUPPRESSED, evening.users)
        producer.suppress(NEWS, [openid_of(NEWS, user) for user in unwilling])


def _upload(evening: Evening, app: str, user: int) -> dict[str, Any]:
    openid = openid_of(app, user)
    if app == CLUB:
        return {"openid": openid, "formIds": [f"{openid}x{n}" for n in range(FORM_IDS)]}
    templates = {act.template for act in evening.acts.values() if act.app == app}
    accepts = dict.fromkeys((*templates, template_of(f"MESSAGE-{app}")), "accept")
    return {"openid": openid, "subscriptions": accepts}


def _grants(uploads: list[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, str]]]]:
    yield (
        "form_ids",
        [
            {"openid": one["openid"], "form_id": form}
            for one in uploads
            for form in one.get("formIds", ())
        ],
    )
    yield (
        "subscriptions",
        [
            {"openid": one["openid"], "template_id": template}
            for one in uploads
            for template in one.get("subscriptions", ())
        ],
    )
