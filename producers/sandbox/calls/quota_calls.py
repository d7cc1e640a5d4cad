"""Asking about quotas and refusals, and clearing quotas.

Source: https://developers.weixin.qq.com/miniprogram/dev/server/API/openApi-mgnt/ (getApiQuota,
clearQuota, clearQuotaByAppSecret, clearApiQuota, getRidInfo).
"""

import re
from collections.abc import Callable
from typing import Any, Final

import orjson

from producers.sandbox.call import Call
from producers.sandbox.replies import OK, RefusalError
from producers.sandbox.state import State

_RID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{8}")
_RID_DAYS_S: Final = 7 * 86_400
_PATH_CLEARS_A_MONTH: Final = 50
_UNLIMITED: Final = 1_000_000_000  # what stands for "no limit" in quota/get


def get_quota(state: State, call: Call, is_path: Callable[[str], bool]) -> bytes:
    """Answer ``/cgi-bin/openapi/quota/get``."""
    path = _asked_path(call.document(strict=True), is_path)
    quota = state.config.quotas.get(path)
    daily = quota.daily if quota is not None and quota.daily is not None else _UNLIMITED
    used = state.usages.used_today(call.appid, path, call.at_s)
    answer: dict[str, Any] = {
        "errcode": 0,
        "errmsg": "ok",
        "quota": {"daily_limit": daily, "used": used, "remain": max(0, daily - used)},
    }
    if quota is not None and quota.per_minute is not None:
        answer["rate_limit"] = {"call_count": quota.per_minute, "refresh_second": 60}
    elif quota is not None and quota.per_second is not None:
        answer["rate_limit"] = {"call_count": quota.per_second, "refresh_second": 1}
    return orjson.dumps(answer)


def clear_quota(state: State, call: Call) -> bytes:
    """Answer ``/cgi-bin/clear_quota``."""
    if call.document(strict=True).get("appid") != call.appid:
        raise RefusalError(40013)
    allowed = state.config.clears_a_month
    state.usages.clear(call.appid, call.at_s, path=None, a_month=allowed)
    return OK


def clear_quota_by_secret(state: State, call: Call) -> bytes:
    """Answer ``/cgi-bin/clear_quota/v2``: parameters in the body or, as its sample, the query."""
    document = call.document(strict=True) if call.body else {}
    appid = str(document.get("appid") or call.parameter("appid"))
    secret = str(document.get("appsecret") or call.parameter("appsecret"))
    state.apps.check_secret(state.config.apps, appid, secret)
    call.appid = appid
    allowed = state.config.clears_a_month
    state.usages.clear(appid, call.at_s, path=None, a_month=allowed)
    return OK


def clear_path_quota(state: State, call: Call, is_path: Callable[[str], bool]) -> bytes:
    """Answer ``/cgi-bin/openapi/quota/clear``."""
    path = _asked_path(call.document(strict=True), is_path)
    state.usages.clear(call.appid, call.at_s, path=path, a_month=_PATH_CLEARS_A_MONTH)
    return OK


def get_refusal(state: State, call: Call) -> bytes:
    """Answer ``/cgi-bin/openapi/rid/get``."""
    rid = call.document(strict=True).get("rid")
    if not isinstance(rid, str) or not _RID.fullmatch(rid):
        raise RefusalError(76002)
    refusal = state.refusals.find(rid)
    if refusal is None:
        raise RefusalError(76001)
    if refusal.appid != call.appid:
        raise RefusalError(76003, "rid is of another account")
    if call.at_s - refusal.at_s > _RID_DAYS_S:
        raise RefusalError(76004, "rid is too old")
    return orjson.dumps({"errcode": 0, "errmsg": "ok", "request": refusal.describe()})


def _asked_path(document: dict[str, Any], is_path: Callable[[str], bool]) -> str:
    path = document.get("cgi_path")
    if not isinstance(path, str) or not path.startswith("/"):
        raise RefusalError(76003)
    if path.startswith("/sns/"):
        raise RefusalError(76022)
    if not is_path(path):
        raise RefusalError(76021)
    return path
