"""Answers: what an outcome, or a code of WeChat's, means to whoever wrote the message.

The workers' own table (`workers.wechat.errcodes`) says what becomes of message and permit; this one
says what to mend. A test sees that every code which a send may answer stands here.

Sources: as that table's: WeChat docs, "global return codes", and the error tables of
templateMessage.send (2018) and subscribe-message sendMessage.
"""

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from producers.words import Outcome


class Meaning(NamedTuple):
    """What an answer means.

    Attributes:
        meaning: one phrase.
        advice: what to do; '' for nothing.
    """

    meaning: str
    advice: str


_ACCOUNT: Final = "see the console (mp.weixin.qq.com): nothing can be sent until WeChat allows it"
_BUG: Final = "please report it: the request was built wrongly"
_LATER: Final = "wait, and look at the app's rate and quota"
_PERMIT: Final = "let the user submit the form, pay or accept once more"
_TOKEN: Final = "see appid and secret, and who else makes tokens of this app: `wxbroadcast doctor`"  # noqa: S105 - a sentence


def _rows() -> Iterator[tuple[int, str, str]]:
    yield -1, "WeChat is busy", "try again"
    yield 40001, "the access token is not valid", _TOKEN
    yield 40014, "the access token is not valid", _TOKEN
    yield 41001, "no access token was sent", _TOKEN
    yield 42001, "the access token has expired", _TOKEN
    yield from _of_the_user()
    yield from _of_the_content()
    yield from _of_the_account()
    for errcode in (40033, 43001, 43002, 43003, 44002, 47001, 47002):
        yield errcode, "WeChat cannot read the request", _BUG
    for errcode in range(40230, 40241):
        yield errcode, "signed calls are switched on", "switch API signing off in the console"


def _of_the_user() -> Iterator[tuple[int, str, str]]:
    yield 40003, "the openid is none of this mini-program's", "see the openid, and the app's appid"
    yield 43101, "the user has not accepted this template, or took it back", _PERMIT
    yield 43108, "another message to this user was under way", "try again"
    yield 41028, "the form_id or prepay_id is wrong, expired or another user's", _PERMIT
    yield 41029, "the form_id is used up", _PERMIT
    yield 41031, "the form_id is blocked", _PERMIT
    yield 40038, "WeChat refused this user's message", "try another user"
    yield 43103, "WeChat refused this user's message", "try another user"


def _of_the_content() -> Iterator[tuple[int, str, str]]:
    of_template = "see the template's id and fields in the console: is it this mini-program's?"
    yield 40037, "WeChat does not know the template", of_template
    yield 43102, "the template is no subscribe message", of_template
    yield 43107, "subscribe messages, or this template, are banned", _ACCOUNT
    yield 48011, "the template is disabled", of_template
    yield 45012, "the template is too long", of_template
    yield 45013, "there are too many keywords", of_template
    yield 45014, "the message is too long", "shorten its values"
    yield 40138, "the emphasis keyword may not be the first or the remark", "choose another one"
    yield 41030, "the page is not in the released version", "release it, or correct --page"
    yield 45168, "a value holds a sensitive word", "reword it"
    yield 47003, "a value breaks the rule of its field", "see the template's fields in the console"


def _of_the_account() -> Iterator[tuple[int, str, str]]:
    yield 41032, "the account may not use form_ids for now", _ACCOUNT
    yield 41034, "the account may not use form_ids for now", _ACCOUNT
    yield 41035, "the account may not use prepay_ids for now", _ACCOUNT
    yield 43104, "the account may not send subscribe messages", _ACCOUNT
    yield 44990, "too many calls in this second", _LATER
    yield 45011, "too many calls in this minute", _LATER
    yield 45009, "the day's quota is used up", "wait for tomorrow, or clear the quota"
    yield 45102, "the API is blocked for a while", _ACCOUNT
    yield 45501, "the API is blocked for a while by a supervisor", _ACCOUNT
    for errcode in (45103, 46101, 48009):
        yield errcode, "WeChat has retired this API", "use the subscribe channel"
    for errcode in (48001, 50001):
        yield errcode, "the account lacks this API", _ACCOUNT
    for errcode in (48004, 50002):
        yield errcode, "the account is punished, frozen or closed", _ACCOUNT


def _table(rows: Iterable[tuple[int, str, str]]) -> Mapping[int, Meaning]:
    return MappingProxyType({errcode: Meaning(*words) for errcode, *words in rows})


CODES: Final = _table(_rows())
"""Errcode → what it means."""

_OUTCOMES: Final = MappingProxyType(
    {
        Outcome.DELIVERED: Meaning("WeChat took it", ""),
        Outcome.NO_PERMIT: Meaning(
            "the user has no permit for it", "let the user accept the template, or submit the form"
        ),
        Outcome.SUPPRESSED: Meaning(
            "the user is on the suppression list", "`wxbroadcast suppression opt-in`, or remove"
        ),
        Outcome.LATE: Meaning("it was not sent in time", "see what it waited for, and try again"),
        Outcome.CANCELLED: Meaning("what carries test sends was cancelled", "try again tomorrow"),
        Outcome.IN_DOUBT: Meaning(
            "it was posted, and no answer came", "ask the user; look at the network to WeChat"
        ),
        Outcome.BAD_DATA: Meaning("WeChat refused the content", "see the fields of the template"),
        Outcome.REFUSED: Meaning("WeChat refused it for this user", _PERMIT),
        Outcome.INVALID_USER: Meaning("WeChat does not know the user", "see the openid"),
        Outcome.FAILED: Meaning("it failed", "see the log line message_settled of this user"),
    }
)


def meaning_of(outcome: str, errcode: int) -> Meaning:
    """Return what became of a message, and what to do.

    Args:
        outcome: its outcome (see `Outcome`).
        errcode: WeChat's, 0 for none.
    """
    if errcode and errcode in CODES:
        return CODES[errcode]
    known = _OUTCOMES.get(Outcome(outcome))
    return known or Meaning(outcome.replace("_", " "), "")
