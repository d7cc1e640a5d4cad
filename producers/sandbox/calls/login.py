"""``GET /sns/jscode2session``: a login code for an openid and a session key.

Source: https://developers.weixin.qq.com/miniprogram/dev/server/API/user-login/api_code2session.html
"""

import base64
from typing import Final

import orjson

from producers.sandbox.call import Call
from producers.sandbox.config import Taking
from producers.sandbox.replies import RefusalError
from producers.sandbox.state import State

PATH: Final = "/sns/jscode2session"


def exchange(state: State, call: Call) -> bytes:
    """Exchange a code."""
    appid = call.parameter("appid")
    state.apps.check_secret(state.config.apps, appid, call.parameter("secret"))
    code = call.parameter("js_code")
    if not code:
        raise RefusalError(41008)
    openid = state.codes.spend(code, call.at_s, unknown=state.config.codes is Taking.ANY)
    state.apps.meet(openid)
    session_key = base64.b64encode(state.rng.randbytes(16)).decode()
    return orjson.dumps({"session_key": session_key, "openid": openid})
