"""The last refusals, to be asked about by their rid."""

from collections import OrderedDict
from typing import Any, NamedTuple


class Refusal(NamedTuple):
    """One refused call."""

    appid: str
    at_s: float
    query: bytes
    request_body: bytes
    response_body: bytes

    def describe(self) -> dict[str, Any]:
        """Show it as rid/get does."""
        return {
            "invoke_time": int(self.at_s),
            "cost_in_ms": 30,
            "request_url": self.query.decode("latin-1"),
            "request_body": self.request_body.decode("utf-8", "replace"),
            "response_body": self.response_body.decode(),
            "client_ip": "127.0.0.1",
        }


class Refusals:
    """A bounded log; the oldest leave first."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._by_rid: OrderedDict[str, Refusal] = OrderedDict()

    def add(self, rid: str, refusal: Refusal) -> None:
        """Note a refusal."""
        self._by_rid[rid] = refusal
        if len(self._by_rid) > self._keep:
            self._by_rid.popitem(last=False)

    def find(self, rid: str) -> Refusal | None:
        """Look one up."""
        return self._by_rid.get(rid)
