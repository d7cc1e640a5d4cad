"""The templates of an app.

Sources: https://developers.weixin.qq.com/miniprogram/dev/server/API/mp-message-management/
subscribe-message/ (gettemplate: priTmplId, title, content, example, type, keywordEnumValueList);
the 2018 page of templateMessage.getTemplateList (template_id, title, content, example).
"""

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from producers.words import Channel

_KEY: Final = re.compile(r"\{\{(\w+)\.DATA\}\}")
LONG_TERM: Final = 3


class Template(BaseModel):
    r"""One template.

    Attributes:
        template_id: what a send names (``priTmplId`` in gettemplate).
        channel: of which API it is (default subscribe).
        title: its title.
        content: its lines, for instance ``"会议时间:{{date2.DATA}}\n"``; the keys in it must all
            be in a subscribe message's data. Empty: any keys.
        example: its lines filled in.
        type: 2 one-off (default), 3 long-term: one accept, many messages.
        enums: key to the values that it may have.
        appid: of which app it is; '' (default): of every one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    template_id: str = Field(min_length=1)
    channel: Channel = Channel.SUBSCRIBE
    title: str = ""
    content: str = ""
    example: str = ""
    type: Literal[2, 3] = 2
    enums: dict[str, tuple[str, ...]] = {}
    appid: str = ""

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The keys that its content names."""
        return tuple(_KEY.findall(self.content))

    def first_missing(self, values: Mapping[str, str]) -> str | None:
        """Name the first key of the content that the data lacks."""
        return next((key for key in self.keys if key not in values), None)

    def first_unlisted(self, values: Mapping[str, str]) -> str | None:
        """Name the first enum key whose value is not in its list."""
        for key, listed in self.enums.items():
            if key in values and values[key] not in listed:
                return key
        return None

    def describe(self) -> dict[str, Any]:
        """Show it as gettemplate does."""
        described: dict[str, Any] = {
            "priTmplId": self.template_id,
            "title": self.title,
            "content": self.content,
            "example": self.example,
            "type": self.type,
        }
        if self.enums:
            described["keywordEnumValueList"] = [
                {"keywordCode": f"{key}.DATA", "enumValueList": list(values)}
                for key, values in self.enums.items()
            ]
        return described

    def describe_form(self) -> dict[str, str]:
        """Show it as wxopen/template/list does."""
        return {
            "template_id": self.template_id,
            "title": self.title,
            "content": self.content,
            "example": self.example,
        }
