"""Retries: a broadcast once more, to those of its recipients alone who had one of some outcomes.

A retry is a broadcast like any other, with an id, a canary and counts of its own; it and what it
repeats are a *family*, which the home of its first broadcast names. Nobody of a family is in a
retry who was delivered, nor, unless it is asked for, who perhaps was: so one of a family is sent at
a time, and the next one is made when all of it has ended. Its recipients are frozen (see `frozen`)
before it is written; if the process dies before that, nothing was made, and the same call with the
same key begins anew; if it dies after that, the keeper goes on, or that call does.

What cannot be known then: a receipt may still say of somebody in doubt that it was delivered.
"""

import contextlib
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Any, Final, NamedTuple

from producers import logs
from producers.audiences.expressions import Expression
from producers.broadcasts.create import Broadcasts, check_key
from producers.broadcasts.spec import Spec
from producers.errors import (
    IdempotencyConflictError,
    IllegalMoveError,
    InvalidInputError,
    NotFoundError,
    StoreUnavailableError,
)
from producers.logs.events import BroadcastRetried
from producers.retries.choice import Choice
from producers.retries.frozen import Frozen
from producers.settings import Settings, ms
from producers.store import Client, keys
from producers.store.clock import now_ms
from producers.store.retry import repeat
from producers.store.scripts import Script
from producers.words import ENDED

MOST: Final = 16
"""Retries of one family: each costs the choice of the next one a look at its recipients."""

_DAY: Final = timedelta(days=1)

_VERB: Final = "retry"


class JoinKeys(NamedTuple):
    """KEYS of join.lua."""

    home: str
    root: str


class JoinArgs(NamedTuple):
    """ARGV of join.lua; field, value … follow."""

    ttl_ms: int
    family: str


JOIN: Final = Script(__package__, "join", JoinKeys, JoinArgs, clock=True)


@dataclass(frozen=True, slots=True)
class Retried:
    """The answer to a retry.

    Attributes:
        id: of the broadcast that it is.
        known: whether the key had made it before.
        recipients: how many it is for.
    """

    id: str
    known: bool
    recipients: int


class _Family(NamedTuple):
    """A family as it was looked at: its first broadcast, and the retries that it names."""

    root: str
    named: str

    @property
    def members(self) -> list[str]:
        return [self.root, *self.named.split()]


class Retries(Broadcasts):
    """Retries broadcasts. Safe to share between threads."""

    def __init__(self, client: Client, settings: Settings) -> None:
        super().__init__(client, settings)
        self._frozen = Frozen(client, settings)
        self._join = JOIN.on(client)

    def retry(
        self,
        broadcast: str,
        outcomes: Iterable[str],
        errcodes: Iterable[int] = (),
        *,
        even_in_doubt: bool = False,
        key: str = "",
        **changes: Any,
    ) -> Retried:
        """Send a broadcast once more, to those alone who had one of these outcomes.

        Whoever was delivered it, by it or by another one of its family, is not among them.

        Args:
            broadcast: its id; it, and all of its family, have ended.
            outcomes: which: ``["failed", "no_permit"]`` or ``"failed,no_permit"``. ``cancelled``
                and ``late`` are not recorded one by one: they are whom its audience has now,
                without an outcome of it.
            errcodes: with one of these codes alone (0: with none); none given: with any.
            even_in_doubt: ``in_doubt`` may be among the outcomes: some may get it twice.
            key: idempotency key: the same key with the same content is the same retry for 7 days.
            **changes: template_id, data, page, rate or expires_in, if they are to be others (see
                `Spec.checked`).

        Raises:
            NotFoundError: no such broadcast, or its outcomes, or those of one of its family, are
                not kept any more.
            InvalidInputError: the outcomes, the content or the key are none, no template of the app
                fits the content, or nobody is left.
            IllegalMoveError: it, or one of its family, has not ended; or it was retried meanwhile.
            IdempotencyConflictError: the key was used with other content.
            StoreUnavailableError: Redis did not answer; the same call with the same key goes on.
        """
        check_key(key)
        choice = Choice.checked(outcomes, errcodes, even_in_doubt=even_in_doubt)
        home = self._home(broadcast)
        if keys.is_carrier(broadcast):
            raise InvalidInputError([f"{broadcast} carries single messages: post them anew"])
        spec = _changed(Spec.from_json(home["spec"]), changes)
        digest = _digest(broadcast, choice, spec)
        known = self._known(spec.app, key, digest)
        if known is not None:
            return known
        self._templates.check(
            spec.app, spec.channel, spec.template_id, spec.data, values=not spec.columns
        )
        family = self._family(broadcast, home)
        has_rows = keys.is_rows(spec.audience)
        name = self._frozen.name(spec.app, _kept_ms(spec), rows=has_rows)
        spec = replace(spec, audience=name)
        is_free = True  # to be discarded: nobody may have begun to send to them
        try:
            size = self._choose(broadcast, home, family, spec, choice)
            is_free = False
            made = self._make(broadcast, family, spec, choice, size, key, digest)
            is_free = made.known
        except (IllegalMoveError, IdempotencyConflictError):  # surely not written
            is_free = True
            raise
        finally:
            if is_free:
                with contextlib.suppress(StoreUnavailableError):  # it ends by itself
                    self._frozen.discard(spec.app, name)
        return made

    def _known(self, app: str, key: str, digest: str) -> Retried | None:
        """Return what a key made before, once it goes on."""
        held = key and repeat(
            "looking up the key", lambda: self._client.get(keys.idempotency(app, key))
        )
        if not held:
            return None
        made, content = held.split(" ")
        if content != digest:
            raise IdempotencyConflictError(key, made)
        try:
            home = self._home(made)
        except NotFoundError:
            return None  # it was never written
        size = int(home["audience_size"])
        self._go_on(made, size)
        return Retried(made, known=True, recipients=size)

    def _family(self, broadcast: str, home: dict[str, str]) -> _Family:
        """Return a broadcast's family, which has ended."""
        root = home.get("root") or broadcast
        first = home if root == broadcast else self._home(root)
        family = _Family(root, first.get("family", ""))
        if len(family.members) > MOST:
            raise InvalidInputError(
                [f"broadcast {root} was retried {MOST} times; make an audience of who is left"]
            )
        found = {one.id: one for one in self.statuses(family.members)}
        kept_from_ms = repeat("asking the time", partial(now_ms, self._client)) - ms(
            self._settings.retention + _DAY
        )
        for member in [broadcast, *family.members]:
            one = found.get(member)
            if one is None or 0 < one.ended_at_ms < kept_from_ms:
                raise NotFoundError(
                    f"the outcomes of broadcast {member} are not kept any more (WXB_RETENTION), so "
                    f"nobody knows to whom it was delivered"
                )
            if one.state not in ENDED or not one.complete:
                state = one.state if one.state not in ENDED else "not settled yet"
                if member != broadcast:
                    state = f"of the family of {member}, which is {state}"
                raise IllegalMoveError(broadcast, state, _VERB)
        return family

    def _choose(
        self, broadcast: str, home: dict[str, str], family: _Family, spec: Spec, choice: Choice
    ) -> int:
        """Freeze the recipients; returns how many they are."""
        audience = Spec.from_json(home["spec"]).audience
        rest = audience if home.get("drop") in choice.outcomes else ""
        members = int(home.get("total") or home["audience_size"])
        if rest:
            members = self._still_there(spec.app, broadcast, rest)
        size = self._frozen.choose(
            spec.app,
            spec.audience,
            broadcast,
            choice,
            rest=Expression.stored(rest).postfix,
            rows=audience if keys.is_rows(audience) else "",
            others=[one for one in family.members if one != broadcast],
            members=members,
            ttl_ms=_kept_ms(spec),
        )
        if not size:
            raise InvalidInputError(
                [f"nobody of broadcast {broadcast} is left with outcome {choice.text}"]
            )
        return size

    def _still_there(self, app: str, broadcast: str, audience: str) -> int:
        """Return how many are looked at of an audience whose members without an outcome count."""
        if not keys.is_beside(audience):
            return self._audiences.measure(app, audience).reads
        size = self._frozen.size(app, audience)
        if not size:
            raise NotFoundError(f"whom broadcast {broadcast} was for is not kept any more")
        return size

    def _make(
        self,
        broadcast: str,
        family: _Family,
        spec: Spec,
        choice: Choice,
        size: int,
        key: str,
        digest: str,
    ) -> Retried:
        """Write the retry at its home, and begin."""
        retry = self._claim_id(spec.app, key, digest, near=family.root)

        def write(home: str, fields: list[str | int]) -> int:
            written = int(
                self._join.repeated(
                    "creating the retry",
                    JoinKeys(home, keys.home(self.home_lane(family.root), family.root)),
                    JoinArgs(self.ttl_ms, family.named),
                    fields,
                )
            )
            if written < 0:
                raise IllegalMoveError(broadcast, "being retried by another call", _VERB)
            return written

        linked = ("root", family.root, "retry_of", broadcast, "retry_for", choice.text)
        created = self._store(retry, spec, size, *linked, write=write)
        if created:
            logs.emit(BroadcastRetried(spec.app, retry, broadcast, family.root, choice.text, size))
        else:  # the same key, by another call at the same time: what it froze counts
            size = int(self._home(retry)["audience_size"])
        self._begin(retry, size)
        return Retried(retry, known=not created, recipients=size)


def _changed(spec: Spec, changes: dict[str, Any]) -> Spec:
    """Return a spec with some of its content changed, to be sent at once."""
    names = ("template_id", "data", "page", "rate", "expires_in")
    wrong = sorted(set(changes) - set(names))
    if wrong:
        raise InvalidInputError([f"{one}: a retry changes {', '.join(names)}" for one in wrong])
    given = {name: value for name, value in changes.items() if value is not None}
    if spec.columns and ("data" in given or "page" in given):
        raise InvalidInputError(["data, page: the rows were checked for those of the broadcast"])
    checked = Spec.checked(
        **{
            "app": spec.app,
            "channel": spec.channel,
            "template_id": spec.template_id,
            "audience": "" if spec.columns else spec.audience,
            "rows": bool(spec.columns),
            "data": dict(spec.data),
            "page": spec.page,
            "emphasis_keyword": spec.emphasis_keyword,
            "rate": spec.rate,
            "expires_in": timedelta(milliseconds=spec.expires_in_ms),
            **given,
        }
    )
    return replace(
        spec,
        template_id=checked.template_id,
        data=checked.data,
        page=checked.page,
        rate=checked.rate,
        expires_in_ms=checked.expires_in_ms,
        at="",
        until="",
        zone="",
    )


def _digest(broadcast: str, choice: Choice, spec: Spec) -> str:
    text = f"{broadcast} {choice.text} {choice.even_in_doubt} {spec.to_json()}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _kept_ms(spec: Spec) -> int:
    """Return how long the recipients are kept: a day to choose them, and the retry's life."""
    return ms(_DAY) + spec.expires_in_ms
