"""``GET /cgi-bin/token`` and ``POST /cgi-bin/stable_token``.

Sources: as in ``tokens.py``.
"""

from typing import Final

import orjson

from producers.sandbox.call import Call
from producers.sandbox.memory.tokens import Span
from producers.sandbox.replies import RefusalError
from producers.sandbox.state import State

CLASSIC_PATH: Final = "/cgi-bin/token"
STABLE_PATH: Final = "/cgi-bin/stable_token"


def issue(state: State, call: Call) -> bytes:
    """Answer ``GET /cgi-bin/token``."""
    appid = call.parameter("appid")
    _check_grant(call.parameter("grant_type"))
    _admit(state, call, appid, call.parameter("secret"))
    config = state.config
    span = Span(config.token_lifetime_s, config.token_overlap_s)
    value, expires_in = state.tokens.issue(appid, call.at_s, span)
    return orjson.dumps({"access_token": value, "expires_in": expires_in})


def stable(state: State, call: Call) -> bytes:
    """Answer ``POST /cgi-bin/stable_token``."""
    document = call.document(strict=state.config.strict_json)
    appid = _text(document.get("appid"))
    _check_grant(document.get("grant_type"))
    _admit(state, call, appid, _text(document.get("secret")))
    config = state.config
    force = document.get("force_refresh") is True
    span = Span(config.token_lifetime_s, config.token_overlap_s)
    value, expires_in = state.tokens.stable(appid, call.at_s, span, force=force)
    return orjson.dumps({"access_token": value, "expires_in": expires_in})


def _check_grant(grant_type: object) -> None:
    if grant_type != "client_credential":
        raise RefusalError(40002)


def _admit(state: State, call: Call, appid: str, secret: str) -> None:
    state.apps.check_secret(state.config.apps, appid, secret)
    call.appid = appid
    state.usages.spend(appid, call.path, state.config.quotas.get(call.path), call.at_s)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
