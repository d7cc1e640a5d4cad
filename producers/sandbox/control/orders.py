r"""The control API: what a test tells a sandbox, and asks it.

All under ``/_sandbox/``, JSON in and out; a wrong request is answered 400 with ``{"error": "…"}``
and changes nothing. It has no password: bind the sandbox to a loopback address.

============================  ====================================================================
``POST /_sandbox/permits``    hand out: ``{"form_ids": [{"openid", "form_id", "expires_at_ms"?}],
                              "prepay_ids": [{"openid", "prepay_id", "expires_at_ms"?}],
                              "subscriptions": [{"openid", "template_id", "count"?: 1}],
                              "unsubscriptions": [{"openid", "template_id"}]}``; answers what was
                              new: ``{"form_ids": n, "prepay_ids": n, "subscriptions": n}``
``POST /_sandbox/codes``      hand out a login code: ``{"code", "openid"}``
``POST /_sandbox/openids``    make openids an app's own: ``{"appid", "openids": […]}``
``POST /_sandbox/faults``     replace the rules: ``[{rule}, …]``; see ``faults.FaultRule``
``GET /_sandbox/faults``      the rules, with ``seen`` and ``hits``
``POST /_sandbox/config``     change the config: each key given replaces its old value whole
``GET /_sandbox/config``      the config
``POST /_sandbox/events``     push an event: ``{"appid", "openid", "event", "items": [{…}]}``
``POST /_sandbox/revoke``     stop every access token at once: ``{"revoked": n}``
``POST /_sandbox/reset``      forget all, or only some parts: ``{"parts"?: ["config", "faults",
                              "permits", "tokens", "quotas", "deliveries"]}``
``GET /_sandbox/received``    ``?openid=``: the last messages to it: ``[{"at_ms", "channel",
                              "template_id", "page", "data", "form_id" | "msgid"}]``
``GET /_sandbox/counts``      every recipient, NDJSON: ``{"openid", "deliveries"}``
``GET /_sandbox/permit``      ``?id=``: how many messages a form_id or prepay_id delivered
``GET /_sandbox/stats``       all counts; see ``stats.describe``
``GET /_sandbox/windows``     ``?ms=``: the most sends that arrived in any window of this length
============================  ====================================================================
"""

from collections.abc import Callable, Iterable
from typing import Any, Final
from urllib.parse import parse_qs

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from producers.sandbox.control.grants import Grants
from producers.sandbox.control.stats import describe
from producers.sandbox.faults import FaultRule, Faults
from producers.sandbox.http1 import CONTROL_PREFIX, Request, Sheet
from producers.sandbox.memory.permits import LIFETIME_S
from producers.sandbox.pushes.events import Event
from producers.sandbox.state import Part, State
from producers.words import PermitKind

_JSON: Final = b"application/json"
_RULES: Final = TypeAdapter(list[FaultRule])


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _CodeGrant(_Model):
    code: str = Field(min_length=1)
    openid: str


class _Owning(_Model):
    appid: str
    openids: tuple[str, ...]


class _EventOrder(_Model):
    appid: str
    openid: str
    event: str
    items: tuple[dict[str, str], ...]


class _ResetOrder(_Model):
    parts: frozenset[Part] = frozenset(Part)


class Control:
    """The control API over a state.

    Args:
        state: what is told and asked.
        reconfigured: called after the config changed.
        announce: pushes an event.
        pushes: the pusher's counts.
    """

    def __init__(
        self,
        state: State,
        reconfigured: Callable[[], None],
        announce: Callable[[Event], None],
        pushes: Callable[[], dict[str, int]],
    ) -> None:
        self._state = state
        self._reconfigured = reconfigured
        self._announce = announce
        self._pushes = pushes
        self._orders: dict[str, Callable[[bytes], Any]] = {
            "permits": lambda body: self.give(Grants.model_validate_json(body)),
            "codes": self._give_code,
            "openids": self._own,
            "faults": lambda body: self.set_faults(_RULES.validate_json(body)),
            "config": lambda body: self.configure(_object(body)),
            "events": self._push,
            "revoke": lambda _: {"revoked": state.tokens.revoke(state.now())},
            "reset": lambda body: self.reset(_ResetOrder.model_validate_json(body or b"{}").parts),
        }
        self._questions: dict[str, Callable[[dict[str, str]], Any]] = {
            "faults": lambda _: state.faults.describe(),
            "config": lambda _: state.config.model_dump(mode="json"),
            "received": lambda query: state.deliveries.of(query["openid"]),
            "permit": lambda query: {"deliveries": state.permits.uses_of(query["id"])},
            "stats": lambda _: self.stats(),
            "windows": lambda query: {
                "max": state.arrivals.max_in(float(query["ms"]) / 1000),
                "count": state.arrivals.count,
                "dropped": state.arrivals.dropped,
            },
        }

    def handle(self, request: Request) -> Sheet:
        """Answer one control request."""
        name = request.path.removeprefix(CONTROL_PREFIX)
        if request.method == "GET" and name == "counts":
            return Sheet(200, b"application/x-ndjson", self._state.deliveries.lines())
        order = self._orders.get(name) if request.method == "POST" else None
        question = self._questions.get(name) if request.method == "GET" else None
        try:
            if order is not None:
                return _sheet(200, order(request.body))
            if question is not None:
                query = parse_qs(request.query.decode("latin-1"))
                return _sheet(200, question({key: values[0] for key, values in query.items()}))
        except KeyError as error:
            return _sheet(400, {"error": f"the query needs {error.args[0]}"})
        except (ValidationError, ValueError) as error:
            return _sheet(400, {"error": str(error)})
        return _sheet(404, {"error": f"no {request.method} {request.path} in the control API"})

    def give(self, grants: Grants) -> dict[str, int]:
        """Hand out permits.

        Returns:
            How many were new, by list.
        """
        state = self._state
        ends_ms = (state.now() + LIFETIME_S) * 1000
        permits, meet = state.permits, state.apps.meet
        new = {"form_ids": 0, "prepay_ids": 0, "subscriptions": 0}
        for form in grants.form_ids:
            meet(form["openid"])
            until_s = form.get("expires_at_ms", ends_ms) / 1000
            kind = PermitKind.FORM_ID
            new["form_ids"] += permits.give(kind, form["openid"], form["form_id"], until_s)
        for pay in grants.prepay_ids:
            meet(pay["openid"])
            until_s = pay.get("expires_at_ms", ends_ms) / 1000
            kind = PermitKind.PREPAY_ID
            new["prepay_ids"] += permits.give(kind, pay["openid"], pay["prepay_id"], until_s)
        for accept in grants.subscriptions:
            meet(accept["openid"])
            count = accept.get("count", 1)
            permits.subscribe(accept["openid"], accept["template_id"], count)
            new["subscriptions"] += count
        for refusal in grants.unsubscriptions:
            permits.unsubscribe(refusal["openid"], refusal["template_id"])
        return new

    def set_faults(self, rules: Iterable[FaultRule]) -> list[dict[str, object]]:
        """Replace the rules, their counts at nothing."""
        self._state.faults = Faults(rules)
        return self._state.faults.describe()

    def configure(self, changes: dict[str, Any]) -> dict[str, Any]:
        """Change the config; each key given replaces its old value whole."""
        self._state.configure(changes)
        self._reconfigured()
        return self._state.config.model_dump(mode="json")

    def reset(self, parts: Iterable[Part] = Part) -> dict[str, Any]:
        """Forget all, or only some parts."""
        self._state.reset(frozenset(parts))
        self._reconfigured()
        return {"reset": sorted(parts)}

    def stats(self) -> dict[str, Any]:
        """Gather the counts; see ``stats.describe``."""
        return describe(self._state, self._pushes())

    def _give_code(self, body: bytes) -> dict[str, Any]:
        grant = _CodeGrant.model_validate_json(body)
        self._state.codes.give(grant.code, grant.openid, self._state.now())
        return {"code": grant.code}

    def _own(self, body: bytes) -> dict[str, Any]:
        owning = _Owning.model_validate_json(body)
        self._state.apps.own(owning.appid, owning.openids)
        return {"openids": len(owning.openids)}

    def _push(self, body: bytes) -> dict[str, Any]:
        order = _EventOrder.model_validate_json(body)
        if self._state.config.callback is None:
            message = 'no callback is configured: POST /_sandbox/config {"callback": {…}} first'
            raise ValueError(message)
        at_s = self._state.now()
        self._announce(Event(order.appid, order.openid, order.event, order.items, at_s))
        return {"event": order.event}


def _object(body: bytes) -> dict[str, Any]:
    document = orjson.loads(body)
    if not isinstance(document, dict):
        message = "the body is no JSON object"
        raise ValueError(message)  # noqa: TRY004 - a wrong request, answered 400
    return document


def _sheet(status: int, document: Any) -> Sheet:
    return Sheet(status, _JSON, orjson.dumps(document))
