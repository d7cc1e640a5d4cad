"""The verdict on one attempt: what a reply means for the message and for its permit.

Pure functions over tuples; `errcodes` is the table for a first attempt, this is the
three-state truth above it. A send is delivered, not delivered, or in doubt (posted, answer lost).

* A form_id is WeChat's own idempotency key: a lost answer is repeated with the *same* form_id,
  and 41029 ("used") on the repeat means that the first try arrived.
* A prepay_id (three uses) and a subscription (a count) have no such key: a lost answer is final,
  ``in_doubt``, and never repeated.
* A permit with an unanswered attempt is never handed back and never swapped.

Redis may come back having forgotten an attempt (`duties.epochs`). While its broadcast is *unsure*,
an answer that only says "used before" (41029; 41028 for a prepay_id, 43101 for a subscription) is
perhaps that attempt's: in doubt, neither a refusal nor an error, and it voids nothing. Or it was
another broadcast's attempt: settle.lua notes the user (`doubted.lua`), whom no unsure one sends to.
"""

from enum import StrEnum
from typing import Final, NamedTuple

from producers.words import Outcome
from workers.wechat.errcodes import Disposition, PermitFate, rule
from workers.wechat.reply import Fate, Reply


class Action(StrEnum):
    """What settle.lua does with the message."""

    SETTLE = "settle"
    """Write the outcome."""
    SWAP = "swap"
    """Claim the user's next permit in the same step; the outcome holds if there is none."""
    DELAY = "delay"
    """Wait without a permit."""
    KEEP = "keep"
    """Wait with the same permit: perhaps sent."""
    REQUEUE = "requeue"
    """Back to the front of the queue, as if it had never been taken."""


class Streak(StrEnum):
    """What an answer says about the whole broadcast (canary and breaker, I7)."""

    OK = "ok"
    TEMPLATE = "template"
    """Would fail for everybody: several in a row abort."""
    REFUSAL = "refusal"
    """This permit or user: several in a row before any delivery pause."""
    UNKNOWN = "unknown"
    """Nobody knows: several in a row pause."""
    FORGOTTEN = "forgotten"
    """What Redis forgot: it is no error of the broadcast's."""
    USED = "used"
    """As forgotten, and WeChat knows the permit: somebody was delivered."""
    NONE = "-"


class Verdict(NamedTuple):
    """One row for settle.lua.

    Attributes:
        action, outcome, streak: see their types; the outcome counts for SETTLE, and for SWAP when
            there is no further permit.
        fate: spent, back, void, void_all, or doubt (spent, for it may have been used).
        delay_ms: before the next attempt (DELAY, KEEP), without jitter.
        skip: kind letter that a SWAP must not claim, or '-'.
        penalize: all workers of the app hold back.
        stale_token: the access token was refused.
    """

    action: Action
    fate: str
    outcome: str = "-"
    delay_ms: int = 0
    streak: Streak = Streak.NONE
    skip: str = "-"
    penalize: bool = False
    stale_token: bool = False


DELIVERED: Final = Verdict(Action.SETTLE, PermitFate.SPENT, Outcome.DELIVERED, streak=Streak.OK)
"""On every errcode 0, whatever came before."""

DOUBT: Final = "doubt"
_IN_DOUBT: Final = Verdict(Action.SETTLE, DOUBT, Outcome.IN_DOUBT)
_FORGOTTEN: Final = _IN_DOUBT._replace(streak=Streak.FORGOTTEN)

_SAYS_USED: Final = {
    "f": {41029: Streak.USED},
    "p": {41028: Streak.FORGOTTEN, 41029: Streak.FORGOTTEN},
    "s": {43101: Streak.FORGOTTEN},
}
"""Per kind what a first attempt is answered whose permit an earlier one used.

A form_id that is used was delivered once. A prepay_id's third use and a subscription's last accept
are gone for other reasons too: these answers prove nothing.
"""

_YOUNG_MS: Final = 10 * 60 * 1000
"""A prepay_id sent right after paying once failed with 41028 and worked ten minutes later."""

_YOUNG_TRIES: Final = 2
_YOUNG_WAIT_MS: Final = 45_000
"""So no recipient waits for more than two minutes for a prepay_id that may never become good.

What becomes void then is one of its three uses.
"""

_TEMPLATE_MS: Final = 2000
"""Before a message that was refused for everybody's sake is tried again."""

_PASSING: Final = frozenset({Disposition.REFRESH_TOKEN, Disposition.DELAY})
"""What stood in the way has passed a little later."""

_FINAL: Final = {
    Disposition.REFUSED: (Outcome.REFUSED, Streak.REFUSAL),
    Disposition.INVALID_USER: (Outcome.INVALID_USER, Streak.REFUSAL),
    Disposition.BAD_DATA: (Outcome.BAD_DATA, Streak.TEMPLATE),
    Disposition.FAILED: (Outcome.FAILED, Streak.UNKNOWN),
    Disposition.UNKNOWN: (Outcome.FAILED, Streak.UNKNOWN),
    Disposition.NOT_A_SEND: (Outcome.FAILED, Streak.UNKNOWN),
}


def backoff_ms(tries: int) -> int:
    """Return the pause after the n-th earlier attempt (0, 1, …): 1 s doubling, at most 30 s."""
    return min(1000 << min(tries, 5), 30_000)


def judge(
    reply: Reply,
    *,
    kind: str,
    resumed: bool,
    tries: int,
    attempts: int,
    permit_age_ms: int,
    retry_when_busy: bool,
    unsure: bool = False,
) -> Verdict:
    """Return the verdict on one attempt.

    Args:
        reply: what came back.
        kind: the permit's letter: f form_id, p prepay_id, s subscription.
        resumed: an earlier attempt with this very permit may have arrived.
        tries: earlier attempts of this message.
        attempts: how many a message has in all.
        permit_age_ms: since the permit was collected, as far as its expiry tells.
        retry_when_busy: repeat a prepay_id or subscription send that was answered with -1.
        unsure: Redis was restarted while the broadcast ran, and may have forgotten an attempt: a
            used permit may be that one's, so the next permit is left alone.
    """
    last = tries + 1 >= attempts
    if reply.fate in {Fate.UNANSWERED, Fate.FORGOTTEN}:
        if kind != "f" or last:
            return _IN_DOUBT if reply.fate is Fate.UNANSWERED else _FORGOTTEN
        return Verdict(Action.KEEP, PermitFate.KEEP, delay_ms=backoff_ms(tries))
    found = rule(reply.errcode)
    if reply.fate is Fate.UNSENT:  # this worker's own trouble: nobody else is slowed
        return Verdict(Action.REQUEUE, PermitFate.BACK)
    if found.disposition is Disposition.BACK_OFF:
        return Verdict(Action.REQUEUE, PermitFate.BACK, penalize=True)
    if found.disposition is Disposition.DELIVERED:
        return DELIVERED
    if resumed:
        return _judge_resumed(reply.errcode, found.disposition, tries, last=last, unsure=unsure)
    young = permit_age_ms < _YOUNG_MS and tries < _YOUNG_TRIES
    if unsure and not (young and reply.errcode == 41028) and reply.errcode in _SAYS_USED[kind]:
        return _FORGOTTEN._replace(streak=_SAYS_USED[kind][reply.errcode])
    return _judge_first(
        reply.errcode,
        found.disposition,
        found.fate,
        kind=kind,
        tries=tries,
        last=last,
        young=young,
        retry_when_busy=retry_when_busy,
    )


def _judge_resumed(
    errcode: int, disposition: Disposition, tries: int, *, last: bool, unsure: bool
) -> Verdict:
    """An earlier attempt with this form_id may have arrived: nothing is handed back or swapped."""
    if errcode == 41029:
        return DELIVERED
    waits = {Disposition.REFRESH_TOKEN, Disposition.DELAY, Disposition.SAME_PERMIT}
    if disposition in waits and not last:
        return Verdict(
            Action.KEEP,
            PermitFate.KEEP,
            delay_ms=backoff_ms(tries),
            stale_token=disposition is Disposition.REFRESH_TOKEN,
        )
    streak = Streak.FORGOTTEN if unsure else Streak.NONE
    if disposition is Disposition.ABORT:
        streak = Streak.TEMPLATE
    stale = disposition is Disposition.REFRESH_TOKEN
    return Verdict(Action.SETTLE, DOUBT, Outcome.IN_DOUBT, streak=streak, stale_token=stale)


def _judge_first(
    errcode: int,
    disposition: Disposition,
    fate: PermitFate,
    *,
    kind: str,
    tries: int,
    last: bool,
    young: bool,
    retry_when_busy: bool,
) -> Verdict:
    """The table rules; waiting is bounded by the message's attempts."""
    if disposition is Disposition.SAME_PERMIT:
        return _judge_busy(kind, tries, last=last, retry_when_busy=retry_when_busy)
    if disposition is Disposition.NEXT_PERMIT:
        if errcode == 41028 and kind == "p" and young:
            return Verdict(Action.DELAY, PermitFate.BACK, delay_ms=_YOUNG_WAIT_MS)
        return Verdict(Action.SWAP, fate, Outcome.NO_PERMIT, streak=Streak.REFUSAL)
    if disposition in _FINAL:
        outcome, streak = _FINAL[disposition]
        return Verdict(Action.SETTLE, fate, outcome, streak=streak)
    streak = Streak.NONE if disposition in _PASSING else Streak.TEMPLATE
    stale = disposition is Disposition.REFRESH_TOKEN
    if last:
        return Verdict(Action.SETTLE, fate, Outcome.FAILED, streak=streak, stale_token=stale)
    if disposition is Disposition.OTHER_KIND:
        return Verdict(Action.SWAP, fate, Outcome.FAILED, _TEMPLATE_MS, streak=streak, skip=kind)
    if disposition is Disposition.ABORT:
        # a false 40037 was seen on valid templates: only several in a row are believed
        return Verdict(Action.DELAY, fate, delay_ms=_TEMPLATE_MS, streak=streak)
    return Verdict(Action.DELAY, fate, delay_ms=backoff_ms(tries), stale_token=stale)


def _judge_busy(kind: str, tries: int, *, last: bool, retry_when_busy: bool) -> Verdict:
    """-1, "system error", does not say whether the message went out."""
    if kind == "f":  # the form_id itself keeps a repeat harmless: as if unanswered
        if last:
            return _IN_DOUBT
        return Verdict(Action.KEEP, PermitFate.KEEP, delay_ms=backoff_ms(tries))
    if last or not retry_when_busy:
        return _IN_DOUBT
    return Verdict(Action.DELAY, PermitFate.BACK, delay_ms=backoff_ms(tries))
