"""What WeChat answers: the texts of its errcodes, and the tail that each errmsg carries.

The tail names the call, so that WeChat's support can find it. Since about August 2020 it is a
``rid`` of three groups of eight hex digits, the first of which is the Unix time of the call;
before, it was a ``hint``. Families of paths write it differently. The texts are those of real
replies where one was seen, else of the public list of errcodes; 43107, 43108 and 76003 on have
never been seen raw.

Sources: https://developers.weixin.qq.com/miniprogram/dev/server/API/ (each call's own page),
https://developers.weixin.qq.com/doc/oplatform/Return_codes/Return_code_descriptions_new.html.
"""

import random
import string
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

import orjson


class Era(StrEnum):
    """Which tail an errmsg carries."""

    RID = "rid"
    """`` rid: 610b7ea3-036ff8e0-21a3f70c``, since about August 2020."""
    HINT = "hint"
    """`` hint: [yXWaVA08193936]``, before."""


OK: Final = b'{"errcode":0,"errmsg":"ok"}'

TEXTS: Final[Mapping[int, str]] = MappingProxyType(
    {
        -1: "system error",
        0: "ok",
        40001: (
            "invalid credential, access_token is invalid or not latest, could get access_token by "
            "getStableAccessToken, more details at https://mmbizurl.cn/s/JtxxFh33r"
        ),
        40002: "invalid grant_type",
        40003: "invalid openid",
        40013: "invalid appid",
        40014: "invalid access_token",
        40029: "invalid code",
        40033: "invalid charset. please check your request, if include \\uxxxx will create fail!",
        40037: "invalid template_id",
        40125: "invalid appsecret",
        40138: "emphasis word can not be first neither remark",
        40163: "code been used",
        40164: "invalid ip 203.0.113.10 ipv6 ::ffff:203.0.113.10, not in whitelist",
        40165: "invalid weapp pagepath",
        40226: "code blocked",
        40243: "invalid appsecret, it has been frozen",
        41001: "access_token missing",
        41002: "appid missing",
        41004: "appsecret missing",
        41008: "missing code",
        41028: "invalid form id",
        41029: "form id used count reach limit",
        41030: "invalid page",
        41031: "the form id have been blocked!",
        41032: "not allow to send message with submitted form id, for punishment",
        41034: "not allow to send message with submitted form id, for punishment",
        41035: "not allow to send message with prepay id, for punishment",
        42001: "access_token expired",
        43001: "require GET method",
        43002: "require POST method",
        43003: "require https",
        43101: "user refuse to accept the msg",
        43102: "the tempalte is not subscriptiontype",
        43103: "the api only can cancel the subscription",
        43104: "this appid does not have permission",
        43107: "the capability or the template is banned",
        43108: "concurrent messages to one user",
        44002: "empty post data",
        44990: "reach max api second frequence limit",
        45009: "reach max api daily quota limit",
        45011: "api minute-quota reach limit, must slower, retry next minute",
        45013: "too many template args",
        45014: "template message size out of limit",
        45102: "this api have been blocked temporarily.",
        45103: "This API has been unsupported",
        45109: (
            "This API has been unsupported. For more details, please view "
            "https://developers.weixin.qq.com/community/develop/doc/"
            "000ae8d6348af08e7030bc2546bc01?blockType=1"
        ),
        45168: "keyword in blacklist",
        46101: (
            "this api have been not supported since 2020-01-11 00:00:00, "
            "please use new api(subscribeMessage)!"
        ),
        47001: "data format error",
        47002: "data format error, do NOT use json unicode encode",
        47003: "argument invalid!",
        48001: "api unauthorized",
        48004: "api forbidden for irregularities, view detail on mp.weixin.qq.com",
        48006: "forbid to clear quota because of reaching the limit",
        48011: "disabled template id",
        50002: "user limited",
        50004: "user not allow to use accesstoken, maybe for punishment",
        50007: "account frozen",
        76001: "rid not found, please check",
        76002: "invalid rid",
        76003: "cgi_path is invalid",
        76021: "cgi_path not found",
        76022: "could not use this cgi_path",
        89503: "not confirm ip, please wait for the admin to confirm",
        89506: "ip has been refused by the admin, retry after 24 hours",
        89507: "ip has been refused by the admin, retry after 1 hour",
    }
)
"""Errcode to the errmsg without its tail."""

_OLD_TEXTS: Final = {40001: "invalid credential, access_token is invalid or not latest"}
_CUT_AT: Final = 48  # 47003 replies of both long keys end there, before the rid
_HINT_LETTERS: Final = string.ascii_letters + string.digits + "-_"


class RefusalError(Exception):
    """WeChat refuses a call. Handlers raise it; the dispatcher makes it the reply."""

    def __init__(self, errcode: int, errmsg: str | None = None) -> None:
        super().__init__(errcode)
        self.errcode = errcode
        self.errmsg = errmsg


def make_rid(at_s: float, rng: random.Random) -> str:
    """Make the name of a call: Unix time in hex and two random groups."""
    return f"{int(at_s):08x}-{rng.getrandbits(32):08x}-{rng.getrandbits(32):08x}"


def refusal_body(
    path: str, refusal: RefusalError, at_s: float, rng: random.Random, era: Era
) -> tuple[str, bytes]:
    """Write the JSON of a refusal.

    Args:
        path: of the call; ``/sns/`` and ``/wxaapi/`` write their tails differently.
        refusal: the errcode, with its own text or none (then the usual one).
        at_s: epoch seconds of the call.
        rng: for the random groups.
        era: rid or hint.

    Returns:
        The rid (empty in the hint era) and the body.
    """
    errcode = refusal.errcode
    text = refusal.errmsg if refusal.errmsg is not None else TEXTS.get(errcode, "unknown error")
    if era is Era.HINT:
        if refusal.errmsg is None:
            text = _OLD_TEXTS.get(errcode, text)
        errmsg = _with_hint(path, errcode, text, rng)
        return "", orjson.dumps({"errcode": errcode, "errmsg": errmsg})
    rid = make_rid(at_s, rng)
    if errcode == 47003:
        text = text[:_CUT_AT].rstrip()
    comma = "," if path.startswith("/sns/") else ""
    return rid, orjson.dumps({"errcode": errcode, "errmsg": f"{text}{comma} rid: {rid}"})


def _with_hint(path: str, errcode: int, text: str, rng: random.Random) -> str:
    hint = "".join(rng.choices(_HINT_LETTERS, k=14))
    if path.startswith("/sns/"):
        return f"{text}, hints: [ req_id: {hint} ]"
    if path.startswith("/wxaapi/"):
        return f"{text} hints: [{hint}]"
    head, mark, rest = text.partition("argument invalid! ")
    if errcode == 47003 and mark and not head:
        # the hint stood in the middle then, and "empty" was misspelt
        return f"argument invalid! hint: [{hint}] {rest.replace('is empty', 'is emtpy')}"
    return f"{text} hint: [{hint}]"
