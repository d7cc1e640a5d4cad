"""What requests and answers hold: the same models check the one and describe the other.

Answers that the library gives as dataclasses (`Status`, `UserCard`, …) go out as they are.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, WithJsonSchema

from producers import settings
from producers.access.door import MAX_UPLOADS
from producers.audiences import members as audiences
from producers.broadcasts import status
from producers.broadcasts.status import Status
from producers.openid import OPENID
from producers.permits.uploads import MAX_ITEMS
from producers.recipients import pages as recipients
from producers.recipients.pages import Recipient

_DIGITS: Final = r"[0-9]{1,9}"


class Model(BaseModel):
    """What every body and answer is: nothing unknown, nothing converted."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _number(text: object) -> object:
    """Take the digits of a query's number, and nothing that merely looks like one to Python."""
    if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) <= 9:
        return int(text)
    return text if isinstance(text, int) else "no number"


def _decimal(text: object) -> object:
    if isinstance(text, str) and text.isascii() and text.replace(".", "", 1).isdigit():
        return float(text)
    return text if isinstance(text, int | float) else "no number"


Number = BeforeValidator(_number)
Decimal = BeforeValidator(_decimal)
Cursor = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9_-]{0,200}$", description="next_cursor of the page before")
]
Channel = Annotated[
    Literal["template", "subscribe"],
    Field(
        description="which WeChat API: template spends form_ids and prepay_ids, subscribe accepts"
    ),
]
Openid = Annotated[str, Field(pattern=f"^{OPENID.pattern}$", description="the user")]

# -- permits --------------------------------------------------------------------------------------

_UPLOAD: Final[dict[str, Any]] = {
    "type": "object",
    "description": "What one phone hands over for one user. What is wrong in it is refused, item "
    "by item, in the answer: it costs the rest nothing. Keys that are not named here are left "
    "alone.",
    "properties": {
        "openid": {"description": "the user, 1-64 letters, digits, _ or -"},
        "formIds": {
            "description": f"up to {MAX_ITEMS:,} form_ids, each a text or "
            '{"formId": "…", "expire": epoch ms or s}'
        },
        "prepayIds": {"description": 'prepay_ids, each a text or {"prepayId": "…", "expire": …}'},
        "subscriptions": {
            "description": "the result of wx.requestSubscribeMessage: template_id → accept, "
            "reject, ban or filter"
        },
        "id": {"description": "a subscription with the same id counts once"},
        "at": {"description": "when the user chose, epoch ms or s"},
    },
    "examples": [
        {"openid": "oABC", "formIds": [{"formId": "1b2c…", "expire": 1577808000000}]},
        {"openid": "oDEF", "subscriptions": {"TEMPLATE_ID": "accept"}, "id": "7f3a"},
    ],
}
Uploads = Annotated[
    dict[str, Any] | list[Any],
    WithJsonSchema(
        {
            "title": "Uploads",
            "anyOf": [
                _UPLOAD,
                {
                    "type": "array",
                    "description": "several uploads; each is refused or stored by itself",
                    "items": {},
                    "examples": [_UPLOAD["examples"]],
                },
            ],
        }
    ),
]
_OWN_UPLOAD: Final[dict[str, Any]] = {
    **_UPLOAD,
    "properties": {
        **_UPLOAD["properties"],
        "openid": {"description": "may be left out; if it is there it is the ticket's user"},
        "id": {"description": "needed with subscriptions, so that they cannot be replayed"},
    },
    "examples": [{"formIds": ["1b2c…"]}, {"subscriptions": {"TEMPLATE_ID": "accept"}, "id": "7f3"}],
}
OwnUploads = Annotated[
    dict[str, Any] | Annotated[list[dict[str, Any]], Field(max_length=MAX_UPLOADS)],
    WithJsonSchema(
        {
            "title": "OwnUploads",
            "anyOf": [
                _OWN_UPLOAD,
                {"type": "array", "items": {"type": "object"}, "maxItems": MAX_UPLOADS},
            ],
        }
    ),
]


class Refused(Model):
    """One refused item."""

    line: int = Field(description="which upload or line, from 1")
    reason: str = Field(description="one fixed word")
    detail: str = Field(description="what was found, what is accepted")


class Collected(Model):
    """What became of the items: what is counted here is stored."""

    lines: int = Field(description="uploads or lines read")
    new: int = Field(description="items stored")
    known: int = Field(description="items that were stored before, whatever they are now")
    refused: dict[str, int] = Field(description="reason → items")
    listed: list[Refused] = Field(description="the first 100 refusals")


# -- audiences ------------------------------------------------------------------------------------


class Members(Model):
    """Openids to add or to take out."""

    openids: list[str] = Field(min_length=1, max_length=10_000)


class BadRow(Model):
    """A row without an openid."""

    row: int = Field(description="from 1")
    detail: str


class Imported(Model):
    """What became of the rows."""

    rows: int = Field(description="rows read, without blank ones and a CSV header")
    added: int = Field(description="members that are new")
    known: int = Field(description="members that were there before")
    bad: int = Field(description="rows that hold no openid")
    removed: int = Field(description="members that a replacement left out")
    listed: list[BadRow] = Field(description="the first 100 bad rows")


class Removed(Model):
    """What became of the rows."""

    rows: int = Field(description="rows read, without blank ones and a CSV header")
    removed: int = Field(description="who was a member")
    unknown: int = Field(description="who was none")
    bad: int = Field(description="rows that hold no openid")
    listed: list[BadRow] = Field(description="the first 100 bad rows")


class Audience(Model):
    """An audience."""

    name: str
    members: int


class AudienceList(Model):
    """One page of audiences, `all` first, then by name."""

    audiences: list[Audience]
    next_cursor: str = Field(description="'' on the last page")


class Deleted(Model):
    """What was deleted."""

    members: int


class AudienceQuery(Model):
    """Which page."""

    cursor: Cursor = ""
    limit: Annotated[int, Number] = Field(
        100, ge=1, le=audiences.MOST, description="audiences on a page"
    )


# -- broadcasts -----------------------------------------------------------------------------------


class Value(Model):
    """A value as WeChat writes it."""

    value: str


class Content(Model):
    """What is sent."""

    channel: Channel
    template_id: str = Field(min_length=1, max_length=128, examples=["TEMPLATE_ID"])
    data: dict[str, str | Value] | str = Field(
        description="key → value, checked against WeChat's field rules; for the template channel "
        "also 'a,b,c'",
    )
    page: str = Field("", max_length=1024, description="page that a tap opens")
    emphasis_keyword: str = Field("", max_length=64, description="template channel: keyword1.DATA")
    miniprogram_state: Literal["developer", "trial", "formal"] = "formal"
    lang: Literal["zh_CN", "en_US", "zh_HK", "zh_TW"] = "zh_CN"

    @property
    def fields(self) -> dict[str, Any]:
        """What is sent, as `Spec.checked` takes it."""
        made = {name: getattr(self, name) for name in Content.model_fields}
        if isinstance(self.data, dict):
            made["data"] = {
                name: value.value if isinstance(value, Value) else value
                for name, value in self.data.items()
            }
        return made


Rate = Annotated[
    settings.Rate, Field(description="sends per second, within the app's; 0: the app's alone")
]


class NewBroadcast(Content):
    """One message to one audience."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "channel": "subscribe",
                    "template_id": "TEMPLATE_ID",
                    "audience": "all",
                    "data": {"thing1": "每日签到", "date2": "2026-11-24"},
                    "page": "pages/checkin/index",
                }
            ]
        }
    )
    audience: str = Field(
        max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", examples=["all", "vip"]
    )
    rate: Rate = 0
    expires_in_s: int = Field(
        604_800, ge=1, le=604_800, description="after so long the rest is late"
    )
    priority: bool = Field(False, description="served before the others")


class Created(Model):
    """A broadcast that runs."""

    id: str
    known: bool = Field(description="whether the Idempotency-Key had made it before")


class Change(Model):
    """What to change of a broadcast while it runs."""

    rate: Rate


class NewMessage(Content):
    """One message to one user."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "channel": "subscribe",
                    "template_id": "TEMPLATE_ID",
                    "openid": "oABC",
                    "data": {"thing1": "签到提醒", "time2": "20:00"},
                }
            ]
        }
    )
    openid: Openid
    expires_in_s: int = Field(3600, ge=1, le=86_400, description="after so long it is late")


class Posted(Model):
    """A message that is on its way."""

    id: str
    known: bool = Field(description="whether the Idempotency-Key had posted it before")


class Reason(Model):
    """Why a broadcast is paused."""

    reason: str = Field("asked for", min_length=1, max_length=200)


class Resume(Model):
    """How to go on."""

    after_restore: bool = Field(
        False,
        description="needed when it was paused because Redis may be an old backup: whoever was "
        "sent to since then may be sent to again",
    )


class Moved(Model):
    """The state after a move."""

    id: str
    state: str


class BroadcastQuery(Model):
    """Which page."""

    cursor: Cursor = ""
    limit: Annotated[int, Number] = Field(
        20, ge=1, le=status.MOST, description="broadcasts on a page"
    )


class BroadcastList(Model):
    """One page of broadcasts, the newest first."""

    broadcasts: list[Status]
    next_cursor: str = Field(description="'' on the last page")


class RecipientQuery(Model):
    """Which recipients, and how."""

    outcome: (
        Literal[
            "delivered",
            "no_permit",
            "refused",
            "invalid_user",
            "bad_data",
            "in_doubt",
            "failed",
            "queued",
            "in_flight",
        ]
        | None
    ) = Field(None, description="of this outcome alone")
    cursor: Cursor = ""
    limit: Annotated[int, Number] = Field(
        1000, ge=1, le=recipients.MOST, description="recipients on a page, at the most"
    )
    format: Literal["json", "csv", "ndjson"] = Field(
        "json", description="csv and ndjson export all of them, whatever cursor and limit say"
    )


class RecipientList(Model):
    """One page of recipients; it may hold fewer than asked for, and not be the last."""

    recipients: list[Recipient]
    next_cursor: str = Field(description="'' on the last page")


# -- users ----------------------------------------------------------------------------------------


class ForecastQuery(Model):
    """What for."""

    channel: Channel
    template_id: str = Field("", max_length=128, description="subscribe: the template")
    audience: str = Field(
        "all", max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="to whom"
    )
    rate: Annotated[float | None, Decimal] = Field(
        None, ge=0, le=1_000_000, description="sends per second to reckon with; default: as lately"
    )


class PlanQuery(Model):
    """For whom."""

    openid: Openid | None = Field(None, description="with an API key: the user")
    most: Annotated[int, Number] = Field(3, ge=1, le=5, description="templates at the most")


class Login(Model):
    """A login."""

    code: str = Field(pattern=r"^[\x21-\x7e]{1,128}$", description="as wx.login gave it")


class Ticket(Model):
    """A collector ticket: send it as `Authorization: Bearer …`."""

    token: str
    expires_in_s: int


class PushQuery(BaseModel):
    """What WeChat adds to the URL."""

    model_config = ConfigDict(extra="allow", frozen=True)

    signature: str = Field("", description="plain mode, and the URL check")
    msg_signature: str = Field("", description="secure mode")
    timestamp: str = Field("", description="epoch s")
    nonce: str = Field("", description="as it came")
    encrypt_type: str = Field("", description="aes in secure mode")
    echostr: str = Field("", description="the URL check: to be answered as it is")

    @property
    def values(self) -> dict[str, str]:
        """What was there."""
        return {name: str(value) for name, value in self.model_dump(exclude_unset=True).items()}


# -- health ---------------------------------------------------------------------------------------


class Health(Model):
    """Whether it works."""

    status: Literal["ok", "not_ready"]
    faults: list[str] = Field(description="what is wrong, one sentence each")


UPLOADS: Final[TypeAdapter[Any]] = TypeAdapter(Uploads)
OWN_UPLOADS: Final[TypeAdapter[Any]] = TypeAdapter(OwnUploads)
