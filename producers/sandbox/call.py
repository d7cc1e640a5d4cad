"""One call of WeChat's API, as the handlers see it."""

import re
from functools import lru_cache
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson

from producers.sandbox.replies import RefusalError

_ESCAPE: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u[0-9a-fA-F]{4}")


@lru_cache(maxsize=1024)
def _parameters(query: bytes) -> dict[str, str]:
    return dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True))


class Call:
    """One call.

    Attributes:
        method: the HTTP method, upper case.
        path: the path, without its query.
        query: the query, raw.
        body: the body, raw.
        at_s: epoch seconds of its arrival.
        appid: whose token it carries, once that is known.
        busy: the (appid, openid) that is being sent to until the answer has left.
        msgid: of an accepted subscribe message; 0 otherwise.
    """

    __slots__ = ("_document", "appid", "at_s", "body", "busy", "method", "msgid", "path", "query")

    def __init__(self, method: str, path: str, query: bytes, body: bytes, at_s: float) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.body = body
        self.at_s = at_s
        self.appid = ""
        self.busy: tuple[str, str] | None = None
        self.msgid = 0
        self._document: dict[str, Any] | None = None

    def parameter(self, name: str) -> str:
        """One parameter of the query, empty when absent."""
        return _parameters(self.query).get(name, "")

    def document(self, *, strict: bool) -> dict[str, Any]:
        r"""The body as a JSON object.

        Args:
            strict: refuse ``\uXXXX`` escapes, as WeChat's errcode 47002 says.

        Raises:
            RefusalError: 44002 no body, 47001 no JSON object, 47002 escapes.
        """
        if self._document is None:
            if not self.body:
                raise RefusalError(44002)
            try:
                document = orjson.loads(self.body)
            except orjson.JSONDecodeError:
                raise RefusalError(47001) from None
            if not isinstance(document, dict):
                raise RefusalError(47001)
            self._document = document
        if strict and b"\\u" in self.body and _ESCAPE.search(self.body):
            raise RefusalError(47002)
        return self._document

    def peek(self, name: str) -> Any:
        """One field of the body; None when there is none or the body is no JSON object."""
        try:
            return self.document(strict=False).get(name)
        except RefusalError:
            return None
