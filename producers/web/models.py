"""What requests of several chapters hold: the same models check them and describe them.

Answers that the library gives as dataclasses (`Status`, `UserCard`, …) go out as they are.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool

from producers.audiences.expressions import MOST_TEXT
from producers.openid import OPENID


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


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _flag(text: object) -> object:
    """Take true and false, and nothing that merely looks like one to Python."""
    return {"true": True, "false": False}.get(text, text) if isinstance(text, str) else text


Flag = Annotated[StrictBool, BeforeValidator(_flag)]
"""Yes or no in a query."""

Whole = BeforeValidator(_whole)
"""After the bounds of a body's whole number: 3.0 is one in JSON."""

Life = Annotated[int, Field(ge=1, le=604_800), Whole]
"""Seconds, a week at the most."""

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


Whom = Annotated[
    str,
    Field(
        max_length=MOST_TEXT,
        pattern=r"^[A-Za-z0-9_.&|() -]+$",
        description="an audience, or several: `&` both, `|` one or the other, `-` not in, "
        "parentheses where `|` stands beside another; a blank before `-`",
        examples=["all", "vip", "vip & active - churned"],
    ),
]


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
