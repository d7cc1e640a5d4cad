"""What each WeChat errcode means for a send: a table from errcode to disposition and permit fate.

The table is pure data for the *first* attempt of a message. A resumed attempt, and an answer that
never came or is no JSON, are judged by their history rather than by an errcode, so settling rules
them; it asks here only what the code itself says.

Which way a doubt falls:

* A permit is handed back only where the call surely did not use it: the request was turned away
  before any message existed (token, quota, template, request shape), or the documentation says so.
* An errcode that is not in the table fails its recipient and voids the permit: a permit lost is
  cheaper than a message sent twice.

Sources: WeChat docs, "global return codes" (全局返回码) for texts and meanings; the error tables of
templateMessage.send (2018), subscribe-message sendMessage, getAccessToken, getStableAccessToken,
openApi management, code2Session, subscribe-message template management, set_user_notify and device
messages; replies published by developers where a reason says "seen". ``errmsg`` is the fixed part
only, without the ``rid:`` or ``hint:`` tail, and empty where no text is known.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple


class Disposition(StrEnum):
    """What to do with the recipient's message."""

    DELIVERED = "delivered"
    """Accepted: outcome ``delivered``."""
    SAME_PERMIT = "same_permit"
    """Send again with the same permit."""
    NEXT_PERMIT = "next_permit"
    """This permit is dead: void it and claim the next in the same step."""
    OTHER_KIND = "other_kind"
    """The account may not use this kind of permit: hand it back, claim one of another kind."""
    REFRESH_TOKEN = "refresh_token"  # noqa: S105  (a word, not a secret)
    """The access_token is stale: hand back, refresh it once for all, send again."""
    BACK_OFF = "back_off"
    """A limit of the whole app: hand back, slow everyone by ``BACK_OFFS``."""
    DELAY = "delay"
    """This user is being sent to: hand back, try again shortly."""
    REFUSED = "refused"
    """Outcome ``refused``."""
    INVALID_USER = "invalid_user"
    """Outcome ``invalid_user``."""
    BAD_DATA = "bad_data"
    """Outcome ``bad_data``."""
    FAILED = "failed"
    """Outcome ``failed``."""
    ABORT = "abort"
    """Would fail for every recipient: counts to the breaker that stops the broadcast."""
    UNKNOWN = "unknown"
    """Not in the table: outcome ``failed``, loudly; several in a row pause the broadcast."""
    NOT_A_SEND = "not_a_send"
    """An error of another call, which no send answers; should one do so, as ``UNKNOWN``."""


class PermitFate(StrEnum):
    """What becomes of the permit that the attempt held."""

    SPENT = "spent"
    """Used by this message."""
    BACK = "back"
    """Surely not used: handed back."""
    VOID = "void"
    """Dead, or not known to be alive."""
    VOID_ALL = "void_all"
    """Dead, and with it every other permit of this user for this template."""
    KEEP = "keep"
    """Stays held for the next attempt of the same message."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table.

    Attributes:
        errcode: WeChat's number.
        errmsg: the fixed part of WeChat's text, for people; empty where none is known.
        disposition: what to do with the message.
        fate: what becomes of the permit.
        reason: why so, in one phrase.
        apis: where it is seen: T token calls, F form_id template send, S subscribe send, D device
            send, O official-account sends, N template management, L login, Q quota; empty where
            it is an error of a call that is none of these.
    """

    errcode: int
    errmsg: str
    disposition: Disposition
    fate: PermitFate
    reason: str
    apis: str


_ALL: Final = "TFSDONLQ"
_POSTS: Final = "TFSDONQ"  # login is a GET


def _rows() -> Iterator[Rule]:
    """Yield the table, in the order of the dispositions."""
    yield Rule(
        0, "ok", Disposition.DELIVERED, PermitFate.SPENT, "accepted; its event may correct it", _ALL
    )
    yield Rule(
        -1,
        "system error",
        Disposition.SAME_PERMIT,
        PermitFate.KEEP,
        "WeChat is busy and asks to try again; perhaps it sent all the same, so no new permit",
        _ALL,
    )
    yield from _token_rows()
    yield from _permit_rows()
    yield from _limit_rows()
    yield from _recipient_rows()
    yield from _template_rows()
    yield from _request_rows()
    yield from _account_rows()
    yield from _other_call_rows()


def _token_rows() -> Iterator[Rule]:
    for errcode, errmsg, reason in (
        (
            40001,
            "invalid credential, access_token is invalid or not latest",
            "replaced by a newer token; from the token call itself, a wrong secret",
        ),
        (40014, "invalid access_token", "as 40001"),
        (41001, "access_token missing", "an empty token was sent; after one refresh, a client bug"),
        (42001, "access_token expired", "its time is over"),
    ):
        yield Rule(errcode, errmsg, Disposition.REFRESH_TOKEN, PermitFate.BACK, reason, _ALL)


def _permit_rows() -> Iterator[Rule]:
    for errcode, errmsg, reason in (
        (
            41028,
            "invalid form id",
            "wrong, expired or another user's; a prepay_id minutes old gets one delayed retry",
        ),
        (41029, "form id used count reach limit", "used up"),
        (41031, "the form id have been blocked!", "blocked, and so dead"),
    ):
        yield Rule(errcode, errmsg, Disposition.NEXT_PERMIT, PermitFate.VOID, reason, "F")
    form_ids = "not allow to send message with submitted form id, for punishment"
    prepay_ids = "not allow to send message with prepay id, for punishment"
    for errcode, errmsg, reason in (
        (41032, form_ids, "the account may not use form_ids for now; prepay_ids still serve"),
        (41034, form_ids, "as 41032"),
        (41035, prepay_ids, "the account may not use prepay_ids for now; form_ids still serve"),
    ):
        yield Rule(errcode, errmsg, Disposition.OTHER_KIND, PermitFate.BACK, reason, "F")


def _limit_rows() -> Iterator[Rule]:
    for errcode, errmsg, reason in (
        (44990, "reach max api second frequence limit", "too many in this second"),
        (45009, "reach max api daily quota limit", "the day's quota is used up; permits keep"),
        (
            45011,
            "api minute-quota reach limit, must slower, retry next minute",
            "too many in this minute",
        ),
        (45102, "this api have been blocked temporarily.", "blocked for a while; tell an operator"),
        (45501, "", "temporarily blocked by a supervisor; tell an operator"),
    ):
        yield Rule(errcode, errmsg, Disposition.BACK_OFF, PermitFate.BACK, reason, _ALL)
    yield Rule(
        43108,
        "",
        Disposition.DELAY,
        PermitFate.BACK,
        "another message to this user was under way; this one was not taken",
        "S",
    )


def _recipient_rows() -> Iterator[Rule]:
    yield Rule(
        43101,
        "user refuse to accept the msg",
        Disposition.REFUSED,
        PermitFate.VOID_ALL,
        "not subscribed, cancelled or count used up: whatever we counted for it is not there",
        "SDO",
    )
    for errcode, errmsg, reason in (
        (43004, "require subscribe", "does not follow the account; nothing was sent"),
        (43019, "require remove blacklist", "on the account's own blacklist; nothing was sent"),
        (48002, "user block receive message", "blocks messages now; may allow them again"),
        (50005, "user is unsubscribed", "follows no more; nothing was sent"),
    ):
        yield Rule(errcode, errmsg, Disposition.REFUSED, PermitFate.BACK, reason, "O")
    for errcode, errmsg, reason, apis in (
        (40003, "invalid openid", "not a user of this app, so none of its permits is", "FSO"),
        (46004, "user no exist", "gone, and the permits with it", "O"),
        (49003, "not match openid with appid", "as 40003", "O"),
    ):
        yield Rule(errcode, errmsg, Disposition.INVALID_USER, PermitFate.VOID_ALL, reason, apis)
    for errcode, errmsg, reason, apis in (
        (45168, "keyword in blacklist", "a sensitive word; turned away before sending", "S"),
        (47003, "argument invalid!", "a value breaks its field's rule; the permit keeps", "SDO"),
    ):
        yield Rule(errcode, errmsg, Disposition.BAD_DATA, PermitFate.BACK, reason, apis)
    for errcode, errmsg, reason in (
        (
            40038,
            "invalid packaging type",
            "two sources give it two meanings, so the permit is lost",
        ),
        (
            43103,
            "the api only can cancel the subscription",
            "what triggers it is not documented, so the permit is lost",
        ),
    ):
        yield Rule(errcode, errmsg, Disposition.FAILED, PermitFate.VOID, reason, "S")
    for errcode, reason in (
        (9800001, "the device's sn is longer than 128 bytes; turned away before sending"),
        (9800002, "illegal characters in the device's sn; turned away before sending"),
        (9800003, "the device's model_id check failed; turned away before sending"),
        (9800006, "model_id and sn are not those subscribed with; turned away before sending"),
    ):
        yield Rule(errcode, "", Disposition.FAILED, PermitFate.BACK, reason, "D")


def _template_rows() -> Iterator[Rule]:
    """Yield what is wrong with the template, the page or the constant content."""
    for errcode, errmsg, reason, apis in (
        (40036, "invalid template_id size", "the same template_id for all", "O"),
        (
            40037,
            "invalid template_id",
            "unknown to the account; false ones were seen for minutes, so the breaker counts them",
            "FSDO",
        ),
        (40039, "invalid url size", "the same url for all", "O"),
        (40062, "invalid title size", "the same title for all", "O"),
        (40066, "invalid url", "the same url for all", "O"),
        (
            40138,
            "emphasis word can not be first neither remark",
            "the same emphasis_keyword for all",
            "FO",
        ),
        (40165, "invalid weapp pagepath", "the same page for all", "O"),
        (40166, "invalid weapp appid", "the mini-program is not linked to the account", "O"),
        (40249, "", "marketing content is forbidden, and the content is the template's", "O"),
        (41030, "invalid page", "the page is not in the released version", "FSD"),
        (43102, "the tempalte is not subscriptiontype", "a template of the wrong kind", "S"),
        (
            43105,
            "news has no binding relation with template_id",
            "the article and the template do not belong together",
            "O",
        ),
        (43107, "", "the account's subscribe messages, or this template, are banned", "S"),
        (43116, "", "the template is restricted for abuse", "O"),
        (45002, "content size out of limit", "the same content for all", "O"),
        (45012, "template size out of limit", "the same template for all", "FO"),
        (45013, "too many template args", "the same keywords for all", "FO"),
        (45014, "template message size out of limit", "the same content for all", "FO"),
        (48011, "disabled template id", "the template is disabled", "OS"),
    ):
        yield Rule(errcode, errmsg, Disposition.ABORT, PermitFate.BACK, reason, apis)


def _request_rows() -> Iterator[Rule]:
    """Yield what is wrong with the way the request was built: bugs of a client."""
    for errcode, errmsg, reason, apis in (
        (40002, "invalid grant_type", "a bug in the token call", "T"),
        (40008, "invalid message type", "the request is built wrongly", "O"),
        (40033, "invalid charset", "\\u escapes in the body", _POSTS),
        (41002, "appid missing", "a bug in the token or quota call", "TQ"),
        (41004, "appsecret missing", "a bug in the token or quota call", "TQ"),
        (43001, "require GET method", "the wrong method", _ALL),
        (43002, "require POST method", "the wrong method", _ALL),
        (43003, "require https", "plain http", _ALL),
        (44002, "empty post data", "no body", _POSTS),
        (47001, "data format error", "the body is no JSON", _POSTS),
        (
            47002,
            "data format error, do NOT use json unicode encode",
            "\\u escapes in the body",
            _POSTS,
        ),
    ):
        yield Rule(errcode, errmsg, Disposition.ABORT, PermitFate.BACK, reason, apis)
    for errcode in range(40230, 40241):
        yield Rule(
            errcode,
            "",
            Disposition.ABORT,
            PermitFate.BACK,
            "signed and encrypted calls are switched on in the console; ours are plain",
            _ALL,
        )


def _account_rows() -> Iterator[Rule]:
    """Yield what is wrong with the account, its settings or the API itself."""
    for errcode, errmsg, reason, apis in (
        (40013, "invalid appid", "the settings' appid is wrong", "TQ"),
        (40125, "invalid appsecret", "the settings' secret is wrong", "T"),
        (
            40164,
            "invalid ip, not in whitelist",
            "our address is not allowed; an operator acts",
            "T",
        ),
        (40243, "", "the AppSecret is frozen in the console", "T"),
        (43104, "this appid does not have permission", "the account may not send", "SO"),
        (43106, "not allow to add template, for punishment", "the account is punished", "N"),
        (45103, "This API has been unsupported", "seen since the form_id API was retired", "F"),
        (45109, "This API has been unsupported.", "uniform_send was withdrawn in 2023", ""),
        (
            46101,
            (
                "this api have been not supported since 2020-01-11 00:00:00, "
                "please use new api(subscribeMessage)!"
            ),
            "the form_id API was retired",
            "F",
        ),
        (48001, "api unauthorized", "the account lacks this API", _ALL),
        (
            48004,
            "api forbidden for irregularities, view detail on mp.weixin.qq.com",
            "the account is punished",
            _ALL,
        ),
        (48008, "no permission for this msgtype", "the account lacks this kind of message", "O"),
        (48009, "this api is expired", "the API is gone", _ALL),
        (50001, "api unauthorized or user unauthorized", "the account lacks this API", _ALL),
        (50002, "user limited", "the calling account is frozen or closed", _ALL),
        (
            50004,
            "user not allow to use accesstoken, maybe for punishment",
            "the account is punished",
            "T",
        ),
        (50007, "", "the account is frozen", "T"),
        (61004, "access clientip is not registered", "our address is not allowed", "O"),
        (89503, "", "the admin must confirm a call from this address", "T"),
        (89506, "", "the admin refused this address; asked again after 24 hours", "T"),
        (89507, "", "the admin refused this address; asked again after 1 hour", "T"),
    ):
        yield Rule(errcode, errmsg, Disposition.ABORT, PermitFate.BACK, reason, apis)


def _other_call_rows() -> Iterator[Rule]:
    def rows(apis: str, call: str, texts: Iterable[tuple[int, str]]) -> Iterator[Rule]:
        for errcode, errmsg in texts:
            reason = f"an error of {call}, which no send answers"
            yield Rule(errcode, errmsg, Disposition.NOT_A_SEND, PermitFate.VOID, reason, apis)

    yield from rows(
        "L",
        "login",
        ((40029, "invalid code"), (40163, "code been used"), (40226, "code blocked")),
    )
    yield from rows("L", "checksession", ((87009, "invalid signature"),))
    yield from rows(
        "",
        "callback/check",
        (
            (40201, "invalid check url"),
            (40202, "invalid check action"),
            (40203, "invalid check operator"),
        ),
    )
    yield from rows(
        "N",
        "template management",
        (
            (404, ""),
            (20001, ""),
            (20002, ""),
            (40400, "bad HTTP request"),
            (200001, "system error"),
            *((errcode, "") for errcode in (200002, *range(200011, 200015))),
            *((errcode, "") for errcode in (*range(200016, 200023), 200100)),
        ),
    )
    yield from rows(
        "O",
        "official-account template management",
        ((43100, "change template too frequently"), (45026, "template num exceeds limit")),
    )
    yield from rows(
        "F", "template management of 2018", ((45100, "invalid size of keyword_id_list"),)
    )
    yield from rows(
        "Q",
        "quota management",
        (
            (48006, "forbid to clear quota because of reaching the limit"),
            (76001, "rid not found, please check"),
            *((errcode, "") for errcode in (76002, 76003, 76004, 76021, 76022)),
        ),
    )
    yield from rows(
        "", "set_user_notify", ((errcode, "") for errcode in range(85431, 85463))
    )  # some of the range are not documented one by one


def _table() -> Mapping[int, Rule]:
    table: dict[int, Rule] = {}
    for row in _rows():
        if row.errcode in table:
            raise ValueError(f"errcode {row.errcode} has two rows")
        table[row.errcode] = row
    return MappingProxyType(table)


RULES: Final = _table()
"""Errcode → rule, for every errcode that is known."""


DAY_IS_OVER: Final = 45009
"""The day's quota of the API is used up."""


class BackOff(NamedTuple):
    """What a limit error wants of everyone; see `limits.limiter.Penalty`.

    Attributes:
        first_ms, most_ms: the first wait and the longest; it doubles while the errors last.
        span_ms: in spans of so long the app's lowered limit climbs back; 0: it is not lowered.
        minute: what is used up is a minute.
    """

    first_ms: int
    most_ms: int
    span_ms: int
    minute: bool = False


BACK_OFFS: Final[Mapping[int, BackOff]] = MappingProxyType(
    {
        # A second's limit is over in a second; five bound the loss when many workers share it.
        44990: BackOff(1_000, 5_000, 10_000),
        # "Retry next minute": at most that long, and often the minute is nearly over.
        45011: BackOff(5_000, 60_000, 60_000, minute=True),
        # Short first, since an operator may clear the quota; else until the reset, asked rarely.
        # A day that is used up says nothing of the pace.
        DAY_IS_OVER: BackOff(5_000, 600_000, 0),
        # "Blocked temporarily" lasts minutes, and asking often may prolong it.
        45102: BackOff(30_000, 600_000, 60_000),
        # As 45102, by a supervisor's hand.
        45501: BackOff(30_000, 600_000, 60_000),
    }
)
"""Errcode → how everyone holds back."""


def rule(errcode: int) -> Rule:
    """Return what an errcode means for a send.

    Args:
        errcode: as answered; a reply without one counts as 0 (WeChat docs, "return codes").

    Returns:
        Its row, or for an unknown one a row that fails the recipient and voids the permit.
    """
    return RULES.get(errcode) or Rule(
        errcode,
        "",
        Disposition.UNKNOWN,
        PermitFate.VOID,
        "not in the table: whether the permit was used is not known",
        "",
    )
