"""Envelopes: the message of each broadcast, read once and kept ready."""

import contextlib
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, Final

from producers.broadcasts.spec import Spec
from producers.broadcasts.status import Register
from producers.rows.store import VALUE
from producers.store import keys
from workers.sending.claim import Claim
from workers.wechat.envelope import Envelope

_KEPT: Final = 1000
"""Broadcasts whose message is kept ready."""


class Envelopes:
    """The messages that one worker sends; used by one thread."""

    def __init__(self, register: Register) -> None:
        self._register = register
        self._known: OrderedDict[str, tuple[Spec, Envelope]] = OrderedDict()

    def lacking(self, claims: Iterable[Claim]) -> list[tuple[str, str]]:
        """Return (broadcast, key of its home) of those that are not known: `learn` its `spec`."""
        unknown = dict.fromkeys(
            claim.broadcast for claim in claims if claim.broadcast not in self._known
        )
        return [(one, keys.home(self._register.home_lane(one), one)) for one in unknown]

    def learn(self, broadcast: str, text: Any) -> None:
        """Keep the message of a broadcast ready; what is none is read anew, by `of`."""
        with contextlib.suppress(Exception):  # of another version, or broken: `of` says so
            self._keep(broadcast, Spec.from_json(text))

    def _keep(self, broadcast: str, spec: Spec) -> tuple[Spec, Envelope]:
        known = self._known[broadcast] = (spec, Envelope.of(spec))
        if len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return known

    def of(self, claim: Claim) -> Envelope:
        """Return the message of a claim.

        Raises:
            redis.RedisError, StoreUnavailableError: Redis did not answer.
            Exception: what is stored cannot be read: of another version, or broken.
        """
        known = self._known.get(claim.broadcast)
        if known is None:
            known = self._keep(claim.broadcast, self._register.spec(claim.broadcast))
        spec, envelope = known
        if spec.columns:  # never without its values: that raises
            return Envelope.of(spec.said(claim.payload.split(VALUE)[1:]))
        if not claim.payload or claim.payload[0] == VALUE:
            return envelope
        return Envelope.of(spec.with_payload(claim.payload))
