"""A client of the sandbox's control API, over one connection."""

from http.client import HTTPConnection, HTTPException
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

_TIMEOUT_S: Final = 30.0


class SandboxClient:
    """Tells a sandbox things, and asks it; for one thread.

    Attributes:
        url: where the sandbox listens.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        parts = urlsplit(url)
        self._connection = HTTPConnection(parts.hostname or "", parts.port, timeout=_TIMEOUT_S)

    def get(self, question: str) -> Any:
        """Return the answer to a question, for instance ``stats``.

        Raises:
            OSError: no answer, or not a good one.
        """
        return self._call("GET", question, None)

    def lines(self, question: str) -> list[Any]:
        """Return an NDJSON answer, for instance ``counts``, line by line; raises as `get`."""
        return [orjson.loads(line) for line in self._text("GET", question, None).splitlines()]

    def post(self, order: str, document: object) -> Any:
        """Give an order, for instance ``permits``; raises as `get`."""
        return self._call("POST", order, orjson.dumps(document))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _call(self, method: str, name: str, body: bytes | None) -> Any:
        return orjson.loads(self._text(method, name, body))

    def _text(self, method: str, name: str, body: bytes | None) -> bytes:
        try:
            self._connection.request(method, f"/_sandbox/{name}", body)
            response = self._connection.getresponse()
            text = response.read()
        except HTTPException as error:
            raise OSError(f"the sandbox did not answer {name}: {type(error).__name__}") from error
        if response.status != 200:
            raise OSError(f"the sandbox refused {name}: {text[:500].decode(errors='replace')}")
        return text
