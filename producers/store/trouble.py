"""Trouble: what is wrong with Redis, in words that say what to change.

redis-py wraps a fault of TLS in a ConnectionError, so that a wrong certificate looks like a server
that is down. Some troubles do not pass by themselves: waiting for them would only delay the words.
"""

import ssl
from collections.abc import Iterator
from typing import Final

import redis

from producers.store.lanes.fence import OutlivedError, ServerChangedError, is_refusal
from producers.store.primary import NobodyNamesError, NotDoneError, NotPrimaryError, reply_of
from producers.store.replicas import UnacknowledgedError

_REPLICA: Final = "Redis is a read-only replica: set WXB_REDIS_URL to the primary"
_WORDS: Final = {
    "OOM": "Redis is full (maxmemory): give it more memory; looking, stopping and deleting work",
    "MISCONF": "Redis cannot write to its disk, and takes nothing new: look at its log",
}
_LASTING: Final = (
    OutlivedError,
    ServerChangedError,
    redis.AuthenticationError,
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.NoPermissionError,
    redis.exceptions.InvalidResponse,
)
_NODE: Final = "node {}:{} of the cluster"
_NO_CLUSTER: Final = "cluster support disabled"
_HOSTNAME_MISMATCH: Final = (62, 64)
_EXPIRED: Final = 10
"""OpenSSL, x509_vfy.h: X509_V_ERR_HOSTNAME_MISMATCH, …_IP_ADDRESS_MISMATCH, …_CERT_HAS_EXPIRED."""


def lasts(error: BaseException) -> bool:
    """Say whether trying again is in vain until somebody changes something."""
    if (
        isinstance(error, _LASTING)
        or _is_of_a_cluster(error)
        or reply_of(error).startswith(("MISCONF", "DB index", "invalid DB"))
    ):
        return True
    return isinstance(_tls_fault(error), ssl.SSLCertVerificationError)


def is_about_settings(error: BaseException) -> bool:
    """Say whether a start waits in vain: what is there is not what the URL says, or refuses it.

    A server that is full is waited for.
    """
    if isinstance(error, redis.exceptions.OutOfMemoryError):
        return False
    text = str(error)
    return (lasts(error) and not text.startswith("MISCONF")) or _NO_CLUSTER in text


def at_node(error: BaseException, place: tuple[str, int]) -> None:
    """Note on an error which node of a cluster it is about."""
    note = _NODE.format(*place)
    if note not in getattr(error, "__notes__", ()):
        error.add_note(note)


def in_words(error: BaseException) -> str:
    """Return one sentence: what is wrong, and what to do. It holds no secret."""
    fault = _tls_fault(error)
    if fault is not None:
        return f"TLS: {_about_tls(fault)}"
    if any("handshake operation timed out" in str(one) for one in _causes(error)):
        return "TLS: Redis did not answer the handshake: set redis:// where it speaks no TLS"
    if isinstance(error, redis.exceptions.OutOfMemoryError):
        return _WORDS["OOM"]
    if isinstance(error, NotDoneError):
        return _about_refusal(error)
    if isinstance(error, UnacknowledgedError):
        return f"too few replicas of Redis answer ({error}): start them, or set it lower"
    if isinstance(error, redis.AuthenticationError):
        return f"Redis refuses WXB_REDIS_URL: {error}"
    if isinstance(error, redis.exceptions.InvalidResponse):
        return "what answers at WXB_REDIS_URL is no Redis: set its host and port"
    if isinstance(error, redis.ResponseError):
        return _about_reply(error)
    if node := _node_of(error):
        return _about_node(node, error)
    closed = "closed" in str(error) or "reset by peer" in str(error)
    return (
        f"Redis does not answer at WXB_REDIS_URL ({type(error).__name__}): start it, or set "
        f"WXB_REDIS_URL{' (rediss:// where it wants TLS)' if closed else ''}"
    )


def _about_refusal(error: NotDoneError) -> str:
    if isinstance(error, OutlivedError | ServerChangedError):
        return str(error)
    if isinstance(error, NobodyNamesError):
        return f"WXB_REDIS_URL: {error}"
    if isinstance(error, NotPrimaryError):
        loads = "loading" in str(error).lower()
        return "Redis is reading its data from disk: wait a little" if loads else _REPLICA
    if node := _node_of(error):
        return _about_node(node, error)
    return f"Redis does not do it just now ({error}): wait a little"


def _about_node(node: str, error: BaseException) -> str:
    return (
        f"{node} does not answer ({type(error).__name__}): start it, or have a replica of it take "
        "over; what lies on the other nodes goes on"
    )


def _about_reply(error: redis.ResponseError) -> str:
    if _is_of_a_cluster(error):
        return "Redis is a node of a cluster: set WXB_REDIS_URL to redis+cluster://host:port"
    reply = reply_of(error)
    if is_refusal(error):
        return "lanes are being added, and this one is on its way: wait a moment"
    if "cluster support disabled" in reply:
        return "Redis is no cluster: set WXB_REDIS_URL to redis://host:port"
    if str(error).lower().startswith(("unknown command 'hgetall'", "unknown command 'cluster'")):
        return (
            f"what answers at WXB_REDIS_URL is a sentinel, or no Redis of this kind ({error}): set "
            "redis+sentinel://host:port/NAME, or another host and port"
        )
    known = next((words for code, words in _WORDS.items() if reply.startswith(code)), None)
    return known or f"Redis refuses WXB_REDIS_URL: {reply}"


def _is_of_a_cluster(error: BaseException) -> bool:
    """Say whether a node of a cluster says so to who takes it for a server of its own."""
    return isinstance(error, redis.exceptions.MovedError) or reply_of(error).startswith("MOVED ")


def _about_tls(fault: ssl.SSLError) -> str:
    if isinstance(fault, ssl.SSLCertVerificationError):
        said = f"the certificate of Redis does not hold ({fault.verify_message.rstrip('.')}): "
        if fault.verify_code in _HOSTNAME_MISMATCH:
            return said + "set WXB_REDIS_URL to a name that stands in it"
        if fault.verify_code == _EXPIRED:
            return said + "renew it"
        return said + "set WXB_REDIS_CA_FILE=/path/to/ca.pem to trust who signed it"
    reason = str(fault.reason or fault)
    if "WRONG_VERSION" in reason or "RECORD_LAYER" in reason or "UNEXPECTED_EOF" in reason:
        return f"Redis speaks no TLS there ({reason}): set redis://, or its TLS port"
    return (  # in TLS 1.3 a certificate that is missing shows as any of several errors
        f"Redis ended the connection ({reason}): where it wants a certificate of yours, set "
        "WXB_REDIS_CERT_FILE=/path/to/cert.pem and WXB_REDIS_KEY_FILE=/path/to/key.pem"
    )


def _node_of(error: BaseException) -> str:
    """Return the node of a cluster that an error is about, '' of any other."""
    notes = (note for one in _causes(error) for note in getattr(one, "__notes__", ()))
    return next((note for note in notes if note.startswith("node ")), "")


def _tls_fault(error: BaseException) -> ssl.SSLError | None:
    for one in _causes(error):
        if isinstance(one, ssl.SSLError) and not isinstance(one, TimeoutError):
            return one
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__
