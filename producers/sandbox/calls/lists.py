"""What an app may look up of itself: its templates, its categories, and WeChat's addresses.

Sources: https://developers.weixin.qq.com/miniprogram/dev/server/API/mp-message-management/
subscribe-message/ (gettemplate, getcategory); openApi-mgnt (getcallbackip, get_api_domain_ip); the
2018 page of templateMessage.getTemplateList: offset, and count up to 20. What more of them, or an
offset that is none, is answered is not documented: 20, and 47001.
"""

from typing import Final

import orjson

from producers.sandbox.call import Call
from producers.sandbox.config import TemplateApi
from producers.sandbox.replies import RefusalError
from producers.sandbox.state import State
from producers.words import Channel

SUBSCRIBE_PATH: Final = "/wxaapi/newtmpl/gettemplate"
CATEGORY_PATH: Final = "/wxaapi/newtmpl/getcategory"
TEMPLATE_PATH: Final = "/cgi-bin/wxopen/template/list"
CALLBACK_IP_PATH: Final = "/cgi-bin/getcallbackip"
API_IP_PATH: Final = "/cgi-bin/get_api_domain_ip"

_MOST: Final = 20
_RETIRED: Final = {TemplateApi.RETIRED: 45103, TemplateApi.RETIRED_46101: 46101}


def subscribe_templates(state: State, call: Call) -> bytes:
    """List the app's templates of subscribe messages, all at once."""
    data = [one.describe() for one in state.templates_of(Channel.SUBSCRIBE, call.appid)]
    return _ok(data=data)


def form_templates(state: State, call: Call) -> bytes:
    """List the app's templates of the form_id API, a page of them."""
    retired = _RETIRED.get(state.config.template_api)
    if retired is not None:
        raise RefusalError(retired)
    document = call.document(strict=False)
    offset, count = _count(document.get("offset")), _count(document.get("count"))
    listed = state.templates_of(Channel.TEMPLATE, call.appid)
    page = listed[offset : offset + min(count, _MOST)]
    return _ok(list=[one.describe_form() for one in page])


def categories(state: State, _call: Call) -> bytes:
    """List the app's categories."""
    named = state.config.categories.items()
    return _ok(data=[{"id": number, "name": name} for number, name in named])


def addresses(state: State, _call: Call) -> bytes:
    """List the addresses that pushes come from, or that calls go to."""
    return orjson.dumps({"ip_list": list(state.config.addresses)})


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise RefusalError(47001)
    return value


def _ok(**fields: object) -> bytes:
    return orjson.dumps({"errcode": 0, "errmsg": "ok", **fields})
