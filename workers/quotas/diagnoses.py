"""Diagnoses: what WeChat itself says of a refusal that nobody here knows.

An errcode that is not in the table fails its recipient, loudly. So that its operator has more than
a number, WeChat is asked about one such refusal by its rid: each errcode once a day, five a day of
an app, by all workers together. What is kept of the answer are names and numbers: which fields the
message had, what WeChat answered, from which address of ours. No openid, no value, no token.

Source: WeChat docs, openApi management (getRidInfo).
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import orjson
import redis

from producers import logs
from producers.logs.events import ErrcodeDiagnosed, StoreUnreachable
from producers.logs.redaction import redacted
from producers.settings import Settings
from producers.store import keys
from workers.limits.gate import Gate
from workers.quotas.asking import Asking, NoAnswerError

PATH: Final = "/cgi-bin/openapi/rid/get"

MOST: Final = 5
"""Questions a day for one app."""
_DAY_MS: Final = 86_400_000
_NAMES: Final = 12
"""Names of fields that are told."""


class Diagnoses:
    """Asks for one worker; belongs to one event loop.

    Args:
        settings: which apps are asked about.
        asking: asks.
        gates: app → what this worker knows, the refusals without a known reason among it.
    """

    def __init__(self, settings: Settings, asking: Asking, gates: Mapping[str, Gate]) -> None:
        self._settings = settings
        self._asking = asking
        self._gates = gates

    def due(self, now: float) -> bool:  # noqa: ARG002
        """Say whether there is anything to ask about."""
        return any(gate.unexplained for gate in self._gates.values())

    async def rest(self) -> None:
        """Sleep for a second: WeChat needs a moment, too, to know of its refusal."""
        await asyncio.sleep(1.0)

    async def run(self) -> None:
        """Ask about what is there, one after the other; lets nothing out."""
        for app, gate in list(self._gates.items()):
            while gate.unexplained:
                errcode, rid = gate.unexplained.popitem()
                own = self._settings.apps.get(app)
                if own is None or not own.read_quota or not self._asking.can(app):
                    continue
                try:
                    await self._diagnose(app, errcode, rid)
                except redis.RedisError as error:
                    logs.emit(StoreUnreachable("diagnosing", type(error).__name__, 1))

    async def _diagnose(self, app: str, errcode: int, rid: str) -> None:
        key = keys.diagnoses(app)
        if await self._asking.may(app, key, str(errcode), _DAY_MS, _DAY_MS, MOST) is None:
            return
        try:
            answer = await self._asking.call(app, PATH, {"rid": rid})
            said = in_words(answer.get("request"))
        except NoAnswerError as error:
            said = f"rid/get: {error}"
        await self._asking.jot(key, str(errcode), f"{rid} {said}")
        logs.emit(ErrcodeDiagnosed(app, errcode, rid, said))


def in_words(request: object) -> str:
    """Return what WeChat knows of a call, without what it was about.

    Args:
        request: as rid/get gives it: JSON in texts of ``request_body`` and ``response_body``.
    """
    known = request if isinstance(request, dict) else {}
    sent, answered = _object(known.get("request_body")), _object(known.get("response_body"))
    data = sent.get("data")
    parts = []
    if sent:
        parts.append(f"sent {_names(sent)}")
    if isinstance(data, dict):
        parts.append(f"data of {_names(data)}")
    if answered:
        text = str(answered.get("errmsg", "")).partition(" rid:")[0]
        parts.append(f"answered {answered.get('errcode')!s:.12} {redacted(text)[:120]}")
    if isinstance(known.get("cost_in_ms"), int):
        parts.append(f"in {known['cost_in_ms']} ms")
    ip = str(known.get("client_ip", ""))
    if ip and len(ip) <= 45 and all(letter in "0123456789abcdefABCDEF.:" for letter in ip):
        parts.append(f"from {ip}")
    return "; ".join(parts) or "nothing is known of it"


def _object(text: object) -> dict[str, Any]:
    """Return a JSON object that came as text; empty when it is none."""
    try:
        found = orjson.loads(text) if isinstance(text, str) else {}
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _names(fields: Mapping[str, Any]) -> str:
    """Return the names of fields, those that look like names."""
    names = [name for name in fields if name.isidentifier() and name.isascii() and len(name) <= 32]
    return ", ".join(sorted(names)[:_NAMES]) or "fields without names"
