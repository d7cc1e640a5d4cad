"""``POST /cgi-bin/message/wxopen/template/send``: alive as until 2020, or retired as since.

Checked in this order: method, token, JSON, openid, template, page, permit, data. A refused send
uses up nothing.

Sources: the 2018 pages of templateMessage.send; the notice of the end of 2020-01-10,
https://developers.weixin.qq.com/community/develop/doc/00008a8a7d8310b6bf4975b635a401
"""

import re
from typing import Any, Final

import orjson

from producers.fields import MAX_VALUE_UNITS, utf16_units
from producers.sandbox.call import Call
from producers.sandbox.calls.pages import check_page
from producers.sandbox.calls.subscribe_send import find_template
from producers.sandbox.config import TemplateApi
from producers.sandbox.replies import OK, RefusalError
from producers.sandbox.state import State
from producers.words import Channel

PATH: Final = "/cgi-bin/message/wxopen/template/send"
_EMPHASIS: Final = re.compile(r"(keyword\d+)\.DATA")
_RETIRED: Final = {TemplateApi.RETIRED: 45103, TemplateApi.RETIRED_46101: 46101}


def send(state: State, call: Call) -> bytes:
    """Send one template message."""
    config = state.config
    retired = _RETIRED.get(config.template_api)
    if retired is not None:
        raise RefusalError(retired)
    document = call.document(strict=config.strict_json)
    openid = state.apps.check_openid(
        document.get("touser"),
        call.appid,
        invalid=config.invalid_openids,
        known_only=config.known_openids_only,
    )
    template_id, _ = find_template(state, Channel.TEMPLATE, call.appid, document.get("template_id"))
    page = document.get("page")
    check_page(config.pages, page)
    form_id = document.get("form_id")
    if not isinstance(form_id, str) or not form_id:
        raise RefusalError(41028)
    kind = state.permits.check(form_id, openid, call.at_s, unknown=state.any_permit)
    data = document.get("data")
    _check_data(data)
    _check_emphasis(document.get("emphasis_keyword"), data)
    state.permits.spend(kind, form_id)
    packed = orjson.dumps(data, option=orjson.OPT_SORT_KEYS)
    identity = hash((openid, "template", template_id, page, packed))
    state.deliveries.add(openid, "template", identity, at_s=call.at_s, body=call.body)
    return OK


def _check_data(data: Any) -> None:
    """Check the shape; without data an empty template is sent, and no key is ever wrong."""
    if data is None:
        return
    if not isinstance(data, dict):
        raise RefusalError(47001)
    for field in data.values():
        value = field.get("value") if isinstance(field, dict) else None
        if isinstance(value, str) and utf16_units(value) > MAX_VALUE_UNITS:
            raise RefusalError(45014)


def _check_emphasis(keyword: object, data: Any) -> None:
    if keyword is None or keyword == "":
        return
    found = _EMPHASIS.fullmatch(keyword) if isinstance(keyword, str) else None
    if found is None or found[1] not in (data or {}):
        raise RefusalError(40138)
