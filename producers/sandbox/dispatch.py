"""From a request to its answer: which call it is, what goes wrong, what WeChat says.

Everything here is synchronous: a call is processed whole at the moment it arrives, and only its
answer may take time. So a client that dies while it waits has sent its message.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from producers.sandbox.call import Call
from producers.sandbox.calls import (
    lists,
    login,
    quota_calls,
    subscribe_send,
    template_send,
    token_calls,
)
from producers.sandbox.faults import FaultAction, FaultRule
from producers.sandbox.http1 import Request
from producers.sandbox.memory.refusals import Refusal
from producers.sandbox.pushes.events import Event, make_receipt
from producers.sandbox.replies import RefusalError, refusal_body
from producers.sandbox.state import State

_JSON: Final = b"application/json; encoding=utf-8"
_TEXT: Final = b"text/plain"  # what /sns answers, JSON or not
_HTML: Final = b"text/html"
_GARBAGE: Final = b"<!-- upstream --> {errcode"


class Manner(StrEnum):
    """How an answer leaves."""

    WHOLE = "whole"
    CUT = "cut"
    """Not at all: the connection is closed."""
    DRIP = "drip"
    """Byte by byte over ``spread_ms``."""


class Answer(NamedTuple):
    """What a connection is to do.

    Attributes:
        body: the body.
        content_type: its type.
        status: HTTP status.
        delay_ms: to wait before.
        manner: how it leaves.
        spread_ms: of a drip.
        busy: the (appid, openid) that is being sent to until it has left.
        event: to push once it has left, or before.
    """

    body: bytes
    content_type: bytes = _JSON
    status: int = 200
    delay_ms: float = 0
    manner: Manner = Manner.WHOLE
    spread_ms: float = 0
    busy: tuple[str, str] | None = None
    event: Event | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One call of the API."""

    method: str
    handle: Callable[[State, Call], bytes]
    needs_token: bool = True
    is_send: bool = False
    content_type: bytes = _JSON


def _gone(_state: State, _call: Call) -> bytes:
    # withdrawn 2023-09-20
    raise RefusalError(45109)


def _is_path(path: str) -> bool:
    return path in ENDPOINTS


ENDPOINTS: Final[Mapping[str, Endpoint]] = MappingProxyType(
    {
        token_calls.CLASSIC_PATH: Endpoint("GET", token_calls.issue, needs_token=False),
        token_calls.STABLE_PATH: Endpoint("POST", token_calls.stable, needs_token=False),
        template_send.PATH: Endpoint("POST", template_send.send, is_send=True),
        subscribe_send.PATH: Endpoint("POST", subscribe_send.send, is_send=True),
        "/cgi-bin/message/wxopen/template/uniform_send": Endpoint("POST", _gone),
        login.PATH: Endpoint("GET", login.exchange, needs_token=False, content_type=_TEXT),
        lists.SUBSCRIBE_PATH: Endpoint("GET", lists.subscribe_templates),
        lists.CATEGORY_PATH: Endpoint("GET", lists.categories),
        lists.TEMPLATE_PATH: Endpoint("POST", lists.form_templates),
        lists.CALLBACK_IP_PATH: Endpoint("GET", lists.addresses),
        lists.API_IP_PATH: Endpoint("GET", lists.addresses),
        "/cgi-bin/openapi/quota/get": Endpoint(
            "POST", lambda state, call: quota_calls.get_quota(state, call, _is_path)
        ),
        "/cgi-bin/openapi/quota/clear": Endpoint(
            "POST", lambda state, call: quota_calls.clear_path_quota(state, call, _is_path)
        ),
        "/cgi-bin/clear_quota": Endpoint("POST", quota_calls.clear_quota),
        "/cgi-bin/clear_quota/v2": Endpoint(
            "POST", quota_calls.clear_quota_by_secret, needs_token=False
        ),
        "/cgi-bin/openapi/rid/get": Endpoint("POST", quota_calls.get_refusal),
    }
)
"""Path to call."""

_UNCOUNTED: Final = frozenset(
    {"/cgi-bin/clear_quota", "/cgi-bin/openapi/quota/clear", "/cgi-bin/openapi/quota/get"}
)
"""Calls that an app with a used-up quota must still be able to make."""

_NOT_FOUND: Final = Answer(b"<html><body>404 Not Found</body></html>", _HTML, 404)


def respond(state: State, request: Request) -> Answer:
    """Process one request, and say how it is answered."""
    path = request.path
    endpoint = ENDPOINTS.get(path)
    if endpoint is None:
        return _NOT_FOUND
    call = Call(request.method, path, request.query, request.body, state.now())
    state.requests[path] += 1
    if endpoint.is_send:
        state.arrivals.add(call.at_s)
    delay_ms = state.config.latency.draw_ms(state.rng)
    rule = state.faults.strike(call, state.rng) if state.faults else None
    if rule is not None:
        return _fail(state, endpoint, call, rule, delay_ms)
    errcode, body = _process(state, endpoint, call)
    _count(state, path, errcode)
    event = _event(state, call) if call.msgid else None
    return Answer(body, endpoint.content_type, delay_ms=delay_ms, busy=call.busy, event=event)


def _process(state: State, endpoint: Endpoint, call: Call) -> tuple[int, bytes]:
    try:
        _admit(state, endpoint, call)
        return 0, endpoint.handle(state, call)
    except RefusalError as refusal:
        return refusal.errcode, _refuse(state, call, refusal)


def _admit(state: State, endpoint: Endpoint, call: Call) -> None:
    if call.method != endpoint.method:
        raise RefusalError(43001 if endpoint.method == "GET" else 43002)
    if endpoint.needs_token:
        call.appid = state.tokens.authorise(call.parameter("access_token"), call.at_s)
        if call.path not in _UNCOUNTED:
            quota = state.config.quotas.get(call.path)
            state.usages.spend(call.appid, call.path, quota, call.at_s)


def _refuse(state: State, call: Call, refusal: RefusalError) -> bytes:
    era = state.config.errmsg_era
    rid, body = refusal_body(call.path, refusal, call.at_s, state.rng, era)
    if rid:
        entry = Refusal(call.appid, call.at_s, call.query, call.body, body)
        state.refusals.add(rid, entry)
    return body


def _count(state: State, path: str, errcode: int) -> None:
    counts = state.errcodes.get(path)
    if counts is None:
        counts = state.errcodes[path] = Counter()
    counts[errcode] += 1


def _event(state: State, call: Call) -> Event | None:
    callback = state.config.callback
    if callback is None:
        return None
    return make_receipt(
        callback,
        appid=call.appid,
        openid=call.peek("touser"),
        template_id=call.peek("template_id"),
        msgid=call.msgid,
        at_s=call.at_s,
        rng=state.rng,
    )


def _sign(state: State, endpoint: Endpoint, call: Call) -> None:
    """Note whose call it is, if its token says so: rid/get answers nobody else."""
    if endpoint.needs_token:
        with contextlib.suppress(RefusalError):
            call.appid = state.tokens.authorise(call.parameter("access_token"), call.at_s)


def _fail(state: State, endpoint: Endpoint, call: Call, rule: FaultRule, delay_ms: float) -> Answer:
    body = b""
    errcode = rule.errcode if rule.action is FaultAction.ERRCODE else None
    _sign(state, endpoint, call)
    if rule.accepts:
        verdict, body = _process(state, endpoint, call)
        errcode = verdict if errcode is None else errcode
    if errcode is not None:
        _count(state, call.path, errcode)
    event = _event(state, call) if call.msgid else None
    answer = Answer(body, endpoint.content_type, delay_ms=delay_ms, busy=call.busy, event=event)
    changes: dict[str, Any] = {}
    match rule.action:
        case FaultAction.ERRCODE:
            refusal = RefusalError(rule.errcode or 0, rule.errmsg)
            changes = {"body": _refuse(state, call, refusal)}
        case FaultAction.DELAY:
            changes = {"delay_ms": delay_ms + rule.spell_ms}
        case FaultAction.CUT_BEFORE | FaultAction.CUT_AFTER:
            changes = {"manner": Manner.CUT}
        case FaultAction.HANG:
            changes = {"manner": Manner.CUT, "delay_ms": rule.spell_ms}
        case FaultAction.STATUS:
            page = b"<html><body><h1>%d</h1></body></html>" % rule.status
            changes = {"body": page, "content_type": _HTML, "status": rule.status}
        case FaultAction.GARBAGE:
            changes = {"body": _GARBAGE}
        case FaultAction.SLOW_DRIP:
            drip = {"manner": Manner.DRIP, "spread_ms": rule.spell_ms}
            changes = {"body": body or _GARBAGE, **drip}
    return answer._replace(**changes)
