r"""The envelope: what all messages of a broadcast have in common, written once.

Bodies are UTF-8 without ``\u`` escapes: errcodes 47002 and 40033 exist for those.

Sources: WeChat docs, templateMessage.send (2018) and subscribeMessage.send.
"""

from dataclasses import dataclass
from typing import Any, Final

import orjson

from producers.broadcasts.spec import Spec
from producers.words import Channel

TEMPLATE_SEND: Final = "/cgi-bin/message/wxopen/template/send"
SUBSCRIBE_SEND: Final = "/cgi-bin/message/subscribe/send"


@dataclass(frozen=True, slots=True)
class Envelope:
    """A broadcast's message, ready but for its recipient and permit.

    Attributes:
        path: which API.
        rest: the JSON after the recipient's fields, without the opening brace.
    """

    path: str
    rest: bytes

    @classmethod
    def of(cls, spec: Spec) -> "Envelope":
        """Build the constant part of every message of a broadcast."""
        fields: dict[str, Any] = {"template_id": spec.template_id}
        if spec.page:
            fields["page"] = spec.page
        fields["data"] = {key: {"value": value} for key, value in spec.data.items()}
        if spec.channel is Channel.TEMPLATE:
            if spec.emphasis_keyword:
                fields["emphasis_keyword"] = spec.emphasis_keyword
            return cls(TEMPLATE_SEND, orjson.dumps(fields)[1:])
        fields["miniprogram_state"] = spec.miniprogram_state
        fields["lang"] = spec.lang
        return cls(SUBSCRIBE_SEND, orjson.dumps(fields)[1:])

    def body(self, openid: str, permit_id: str) -> bytes:
        """Return the JSON body for one recipient.

        Args:
            openid: the recipient.
            permit_id: form_id or prepay_id; the subscribe API takes none.
        """
        to = orjson.dumps(openid)
        if self.path is SUBSCRIBE_SEND:
            return b'{"touser":%b,%b' % (to, self.rest)
        return b'{"touser":%b,"form_id":%b,%b' % (to, orjson.dumps(permit_id), self.rest)
