"""The model WeChat: what it answers to a post, and what it knows afterwards.

It is faithful where the protocol leans on it: a form_id is taken once and is *used* from then on
(41029), a prepay_id three times, an accept of a template once; whatever it refuses it has not used.
Beyond that it may do what its documentation allows, as often as the world says.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from workers.sending.claim import Claim
from workers.wechat.reply import Fate, Reply

from .state import State, WeChat
from .world import World

USED: Final = {"f": 41029, "p": 41029, "s": 43101}
DEAD: Final = frozenset({41028, 41031, 43101})
"""What says that a permit will not be taken at any later time either."""

BUSY_SENT: Final = "-1 sent"


class Answer(NamedTuple):
    """One thing that WeChat may do.

    Attributes:
        name: in paths.
        reply: what the worker sees.
        sends: whether the user gets the message.
        asks: whether the permit may be used, as far as anybody but WeChat knows.
        costs: the fault of which there is one less, or ''.
    """

    name: str
    reply: Reply
    sends: bool = False
    asks: bool = False
    costs: str = ""


_LOST: Final = Reply(Fate.UNANSWERED, errmsg="timeout")


def permit_of(claim: Claim) -> str:
    """Return what WeChat knows a claim's permit by."""
    if claim.kind == "s":
        return f"s:{claim.openid}:{claim.permit_id}"
    return f"{claim.kind}:{claim.permit_id}"


def msgid_of(broadcast: str, openid: str) -> str:
    """Return the id of a message that was sent."""
    return str(int.from_bytes(f"{broadcast[0]}{openid}".encode(), "big"))


def answers(world: World, state: State, claim: Claim) -> Iterator[Answer]:
    """Yield all that WeChat may do with a post, the truth without a fault first."""
    permit = permit_of(claim)
    if permit in state.wechat.dead:
        code = next(code for code in (41028, 43101) if (code == 43101) == (claim.kind == "s"))
        yield Answer("refused", Reply(Fate.ANSWERED, code))
        if state.left("lost"):
            yield Answer("refused, lost", _LOST, asks=True, costs="lost")
        return
    if dict(state.wechat.used).get(permit, 0) >= world.given(permit):
        yield Answer("used", Reply(Fate.ANSWERED, USED[claim.kind]))
        if state.left("lost"):
            yield Answer("used, lost", _LOST, asks=True, costs="lost")
        return
    msgid = msgid_of(claim.broadcast, claim.openid) if claim.kind == "s" else ""
    yield Answer("ok", Reply(Fate.ANSWERED, msgid=msgid), sends=True, asks=True)
    if claim.kind == "s" and state.left("unnamed"):
        yield Answer("unnamed", Reply(Fate.ANSWERED), sends=True, asks=True, costs="unnamed")
    if state.left("lost"):
        yield Answer("ok, lost", _LOST, sends=True, asks=True, costs="lost")
        yield Answer("cut", _LOST, asks=True, costs="lost")
        yield Answer("unsent", Reply(Fate.UNSENT), costs="lost")
    if state.left("refusal"):
        for code in world.refusals:
            yield Answer(str(code), Reply(Fate.ANSWERED, code), asks=code == -1, costs="refusal")
        if -1 in world.refusals and claim.kind == "f":
            busy = Reply(Fate.ANSWERED, -1)
            yield Answer(BUSY_SENT, busy, sends=True, asks=True, costs="refusal")


def after(wechat: WeChat, claim: Claim, answer: Answer) -> WeChat:
    """Return what WeChat knows after it answered so."""
    permit = permit_of(claim)
    used, delivered = dict(wechat.used), {(b, o): n for b, o, n in wechat.delivered}
    perhaps, dead = set(wechat.perhaps), set(wechat.dead)
    message = claim.broadcast, claim.openid
    if answer.sends:
        used[permit] = used.get(permit, 0) + 1
        delivered[message] = delivered.get(message, 0) + 1
    if answer.asks and claim.kind != "s":
        perhaps.add((claim.member, *message))
    if answer.reply.fate is Fate.ANSWERED and answer.reply.errcode in DEAD:
        dead.add(permit)
    return WeChat(
        used=tuple(sorted(used.items())),
        delivered=tuple(sorted((*message, n) for message, n in delivered.items())),
        perhaps=tuple(sorted(perhaps)),
        dead=tuple(sorted(dead)),
    )
