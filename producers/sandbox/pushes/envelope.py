"""Signed and encrypted pushes, as WeChat sends them.

Source: https://developers.weixin.qq.com/miniprogram/dev/framework/server-ability/message-push.html.
That the IV is the first half of the key is not on the page; every SDK and the page's own sample
agree on it.

Written apart from what reads it (`producers.callbacks`): shared code would be wrong on both sides
and pass every test.
"""

import base64
import hashlib
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

_BLOCK: Final = 32  # WeChat pads to 32 bytes, not to AES's 16


def sign(*parts: str) -> str:
    """Sign: SHA-1 of the parts, sorted and joined."""
    # the protocol's own choice of hash
    return hashlib.sha1("".join(sorted(parts)).encode()).hexdigest()  # noqa: S324


def encrypt(encoding_aes_key: str, random16: bytes, message: bytes, appid: str) -> str:
    """Encrypt a message.

    Args:
        encoding_aes_key: the 43 characters of the console.
        random16: 16 random bytes.
        message: the clear message.
        appid: the receiver checks it.

    Returns:
        Base64 text.
    """
    key = base64.b64decode(encoding_aes_key + "=")
    plain = random16 + len(message).to_bytes(4, "big") + message + appid.encode()
    pad = _BLOCK - len(plain) % _BLOCK
    encryptor = Cipher(algorithms.AES(key), modes.CBC(key[:16])).encryptor()
    cipher = encryptor.update(plain + bytes([pad]) * pad) + encryptor.finalize()
    return base64.b64encode(cipher).decode()
