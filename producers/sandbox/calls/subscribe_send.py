"""``POST /cgi-bin/message/subscribe/send``.

Checked in this order: method, token, JSON, openid, template, page, permit, data. WeChat's own order
is not documented. A refused send uses up nothing.

Source: https://developers.weixin.qq.com/miniprogram/dev/server/API/mp-message-management/
subscribe-message/api_sendmessage.html
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import orjson

from producers.fields import FieldFault, check
from producers.sandbox.call import Call
from producers.sandbox.calls.pages import check_page
from producers.sandbox.memory.templates import LONG_TERM, Template
from producers.sandbox.replies import RefusalError
from producers.sandbox.state import State
from producers.words import Channel

PATH: Final = "/cgi-bin/message/subscribe/send"


def send(state: State, call: Call) -> bytes:
    """Send one subscribe message."""
    config = state.config
    document = call.document(strict=config.strict_json)
    openid = state.apps.check_openid(
        document.get("touser"),
        call.appid,
        invalid=config.invalid_openids,
        known_only=config.known_openids_only,
    )
    busy = (call.appid, openid)
    if busy in state.sending:
        raise RefusalError(43108)
    call.busy = busy
    template_id, template = find_template(
        state, Channel.SUBSCRIBE, call.appid, document.get("template_id")
    )
    check_page(config.pages, document.get("page"))
    counted = not state.any_permit and (template is None or template.type != LONG_TERM)
    if not state.any_permit and state.permits.subscriptions_of(openid, template_id) <= 0:
        raise RefusalError(43101)
    packed = orjson.dumps(_values(document.get("data")), option=orjson.OPT_SORT_KEYS)
    _check_data(packed, template, config.blacklist)
    state.permits.spend_subscription(openid, template_id, counted=counted)
    msgid = call.msgid = state.next_msgid
    state.next_msgid = msgid + 1
    identity = hash((openid, "subscribe", template_id, document.get("page"), packed))
    state.deliveries.add(openid, "subscribe", identity, at_s=call.at_s, body=call.body, msgid=msgid)
    return b'{"errcode":0,"errmsg":"ok","msgid":%d}' % msgid


def find_template(
    state: State, channel: Channel, appid: str, template_id: object
) -> tuple[str, Template | None]:
    """Find an app's template; None when none are configured for it, so that every one is good.

    Raises:
        RefusalError: 40037.
    """
    if not isinstance(template_id, str) or not template_id:
        raise RefusalError(40037)
    template = state.template(channel, appid, template_id)
    if template is None and state.lists(channel, appid):
        raise RefusalError(40037)
    return template_id, template


def _values(data: Any) -> dict[str, str]:
    """Read ``{"thing1": {"value": "…"}}``; numbers are taken as their text."""
    if not isinstance(data, Mapping):
        raise RefusalError(47003, "argument invalid! data is invalid")
    values = {}
    for key, field in data.items():
        value = field.get("value") if isinstance(field, dict) else None
        if type(value) is str:
            values[key] = value
        elif isinstance(value, int | float) and not isinstance(value, bool):
            values[key] = str(value)
        else:
            raise RefusalError(47003, f"argument invalid! data.{key}.value is empty")
    return values


@lru_cache(maxsize=4096)
def _faults(packed: bytes) -> tuple[FieldFault, ...]:
    # one broadcast's data is the same for all its users, mostly
    return tuple(check(Channel.SUBSCRIBE, orjson.loads(packed)))


def _check_data(packed: bytes, template: Template | None, blacklist: tuple[str, ...]) -> None:
    faults = _faults(packed)
    if faults:
        fault = faults[0]
        how = "is empty" if fault.kind == "empty" else "invalid"
        raise RefusalError(47003, f"argument invalid! data.{fault.key}.value {how}")
    if template is None and not blacklist:
        return
    values = orjson.loads(packed)
    if template is not None:
        missing = template.first_missing(values)
        if missing is not None:
            raise RefusalError(47003, f"argument invalid! data.{missing}.value is empty")
        unlisted = template.first_unlisted(values)
        if unlisted is not None:
            raise RefusalError(47003, f"argument invalid! data.{unlisted}.value invalid")
    if any(word in value for word in blacklist for value in values.values()):
        raise RefusalError(45168)
