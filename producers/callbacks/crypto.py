"""The signatures and the encryption of WeChat's callbacks: pure functions.

Source: https://developers.weixin.qq.com/miniprogram/dev/framework/server-ability/message-push.html.
That the IV is the first half of the key is not on the page; every SDK and the page's own sample
agree on it.

Own code over cryptography's AES: an SDK of WeChat would bring all of its API for two functions.
"""

import base64
import binascii
import hashlib
import hmac
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from producers.errors import ForgedError

_BLOCK: Final = 32
"""WeChat pads to 32 bytes, not to AES's 16: 17 to 32 bytes of padding are usual."""

_HEAD: Final = 20
"""16 random bytes and the message's length, before the message."""


def sign(*parts: str) -> str:
    """Return the signature of these parts: SHA-1 of them sorted and joined, in lower-case hex."""
    joined = "".join(sorted(parts)).encode("utf-8", "surrogatepass")
    return hashlib.sha1(joined).hexdigest()  # noqa: S324 - the protocol's own choice of hash


def check(signature: str, *parts: str) -> None:
    """Check a signature, in a time that does not depend on where it differs.

    Raises:
        ForgedError: it is another one, or a part is empty.
    """
    given = signature.encode("utf-8", "surrogatepass")
    if not hmac.compare_digest(given, sign(*parts).encode()) or not all(parts):
        raise ForgedError("signature")


def decrypt(encoding_aes_key: str, encrypted: str, appid: str) -> bytes:
    """Decrypt a message whose signature was checked.

    Args:
        encoding_aes_key: the 43 characters of the console; the unused bits of the last one count
            for nothing.
        encrypted: Base64 text, ``Encrypt`` of a push.
        appid: whom it must be for.

    Returns:
        The message.

    Raises:
        ForgedError: it was not encrypted with this key, or not for this app.
    """
    key = base64.b64decode(encoding_aes_key + "=")
    try:
        cipher = base64.b64decode(encrypted, validate=True)
    except (binascii.Error, ValueError):
        raise ForgedError("not_base64") from None
    if not cipher or len(cipher) % _BLOCK:
        raise ForgedError("undecryptable")
    decryptor = Cipher(algorithms.AES(key), modes.CBC(key[:16])).decryptor()
    padded = decryptor.update(cipher) + decryptor.finalize()
    if not 1 <= padded[-1] <= _BLOCK:
        raise ForgedError("undecryptable")
    plain = padded[: -padded[-1]]
    end = _HEAD + int.from_bytes(plain[16:_HEAD], "big")
    if len(plain) < _HEAD or end > len(plain):
        raise ForgedError("undecryptable")
    if not hmac.compare_digest(plain[end:], appid.encode()):
        raise ForgedError("appid")
    return plain[_HEAD:end]
