"""Envelopes: the message of each broadcast, read once and kept ready."""

from collections import OrderedDict
from typing import Final

from producers.broadcasts.spec import Spec
from producers.broadcasts.status import Register
from producers.rows.store import VALUE
from workers.sending.claim import Claim
from workers.wechat.envelope import Envelope

_KEPT: Final = 1000
"""Broadcasts whose message is kept ready."""


class Envelopes:
    """The messages that one worker sends; used by one thread."""

    def __init__(self, register: Register) -> None:
        self._register = register
        self._known: OrderedDict[str, tuple[Spec, Envelope]] = OrderedDict()

    def of(self, claim: Claim) -> Envelope:
        """Return the message of a claim.

        Raises:
            redis.RedisError, StoreUnavailableError: Redis did not answer.
            Exception: what is stored cannot be read: of another version, or broken.
        """
        known = self._known.get(claim.broadcast)
        if known is None:
            spec = self._register.spec(claim.broadcast)
            known = self._known[claim.broadcast] = (spec, Envelope.of(spec))
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)
        spec, envelope = known
        if spec.columns:  # never without its values: that raises
            return Envelope.of(spec.said(claim.payload.split(VALUE)[1:]))
        if not claim.payload or claim.payload[0] == VALUE:
            return envelope
        return Envelope.of(spec.with_payload(claim.payload))
