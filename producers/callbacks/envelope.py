"""The envelope of a push: who sent it is checked, and what it says is taken out.

Two ways in. *Secure*: the body's ``Encrypt`` is covered by ``msg_signature`` and says the appid
inside; clear fields beside it (compatible mode) and ``signature`` count for nothing. *Plain*:
``signature`` proves only that somebody knew the token, and does not cover the body; so it must be
fresh, and good for one body only, the first that it comes with. With `callback_aes_key` set plain
pushes are refused; where `callback_plain` takes them all the same, a secure push uses up the
``signature`` in its URL, which whoever sees the URL could put before a body of their own.

Source: https://developers.weixin.qq.com/miniprogram/dev/framework/server-ability/message-push.html.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import SecretStr

from producers.callbacks.bodies import parse
from producers.callbacks.crypto import check, decrypt, sign
from producers.errors import ForgedError, InvalidInputError
from producers.settings import AppSettings

_TIMESTAMP: Final = re.compile(r"[0-9]{1,12}")
_ECHO: Final = re.compile(r"[\x21-\x7e]{1,512}")


@dataclass(frozen=True, slots=True)
class Opened:
    """A push whose sender was checked.

    Attributes:
        message: its fields, see `bodies`.
        timestamp_ms: when it was signed, by the sender's clock.
        plain_signature: the signature that must not come with another body; '' when there is none.
        sealed: whether another signature, ``msg_signature``, covers the body.
    """

    message: dict[str, Any]
    timestamp_ms: int
    plain_signature: str
    sealed: bool = False


def echo(app: AppSettings, query: Mapping[str, str]) -> str:
    """Return what answers the console's URL check; send it as ``text/plain``.

    Raises:
        ForgedError: the signature is wrong.
        InvalidInputError: the app has no callback_token, or there is no ``echostr``.
    """
    token, (timestamp, nonce) = _token(app), _stamp(query)
    echostr = query.get("echostr", "")
    encrypted, signature = echostr.replace(" ", "+"), query.get("msg_signature")
    if signature and app.callback_aes_key:
        # work-WeChat's way; mini-programs are asked in clear
        check(signature, token, timestamp, nonce, encrypted)
        key = app.callback_aes_key.get_secret_value()
        echostr = decrypt(key, encrypted, app.appid).decode("ascii", "replace")
    else:
        check(query.get("signature", ""), token, timestamp, nonce)
    if not _ECHO.fullmatch(echostr):
        raise InvalidInputError(["echostr: 1 to 512 visible ASCII characters"])
    return echostr


def open_push(app: AppSettings, query: Mapping[str, str], body: bytes) -> Opened:
    """Check who sent a push, and take its message out.

    Raises:
        ForgedError: it is not WeChat's, or not for this app.
        InvalidInputError: the app has no callback_token, or the body cannot be read.
    """
    token, (timestamp, nonce) = _token(app), _stamp(query)
    if app.callback_aes_key is None:
        signature = query.get("signature", "")
        check(signature, token, timestamp, nonce)
        message = parse(body)
        if "Encrypt" in message and "FromUserName" not in message:
            raise InvalidInputError(["pushes are encrypted: set callback_aes_key"])
        return Opened(message, int(timestamp) * 1000, signature)
    outer = parse(body)
    encrypted = outer.get("Encrypt")
    if isinstance(encrypted, str) and encrypted:
        message = _decrypted(app, app.callback_aes_key, query, encrypted)
        used_up = sign(token, timestamp, nonce) if app.callback_plain else ""
        return Opened(message, int(timestamp) * 1000, used_up, sealed=True)
    if not app.callback_plain:
        raise ForgedError("not_encrypted")
    signature = query.get("signature", "")
    check(signature, token, timestamp, nonce)
    return Opened(outer, int(timestamp) * 1000, signature)


def _decrypted(
    app: AppSettings, key: SecretStr, query: Mapping[str, str], encrypted: str
) -> dict[str, Any]:
    signature, (timestamp, nonce) = query.get("msg_signature", ""), _stamp(query)
    check(signature, _token(app), timestamp, nonce, encrypted)
    return parse(decrypt(key.get_secret_value(), encrypted, app.appid))


def _token(app: AppSettings) -> str:
    if app.callback_token is None:
        raise InvalidInputError(["this app takes no callbacks: set its callback_token"])
    return app.callback_token.get_secret_value()


def _stamp(query: Mapping[str, str]) -> tuple[str, str]:
    """Return timestamp and nonce; what is no timestamp cannot have been signed by WeChat."""
    timestamp, nonce = query.get("timestamp", ""), query.get("nonce", "")
    if not _TIMESTAMP.fullmatch(timestamp):
        raise ForgedError("timestamp")
    return timestamp, nonce
