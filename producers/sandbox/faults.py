"""Faults by rule: what goes wrong, for which calls, and how often.

Rules are tried in order; the first whose conditions all hold, whose ``skip`` is over and whose
``count`` is not, is the call's fault. A rule that lets a call pass leaves it to the rules after it.
"""

import random
from collections.abc import Iterable
from enum import StrEnum
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from producers.sandbox.call import Call


class FaultAction(StrEnum):
    """What goes wrong."""

    ERRCODE = "errcode"
    """Answer ``errcode``, with ``errmsg`` or its usual text."""
    DELAY = "delay"
    """Answer truly, ``ms`` later."""
    CUT_BEFORE = "cut_before"
    """Close the connection; the call did nothing."""
    CUT_AFTER = "cut_after"
    """Do what was asked, then close the connection without an answer."""
    STATUS = "status"
    """Answer an HTML page with the HTTP ``status``, as a proxy in trouble does."""
    GARBAGE = "garbage"
    """Answer HTTP 200 with something that is not JSON."""
    SLOW_DRIP = "slow_drip"
    """Answer truly, byte by byte, over ``ms``."""
    HANG = "hang"
    """Answer nothing for ``ms`` (60 s at most), then close."""


_ACCEPTS = frozenset({FaultAction.DELAY, FaultAction.CUT_AFTER, FaultAction.SLOW_DRIP})


class FaultRule(BaseModel):
    """One rule.

    Attributes:
        api: the path or the end of it; None matches every call.
        openid: the receiver (``touser``), one or several; None matches every one.
        template_id: the template; None matches every one.
        probability: of a matching call to be hit (default 1).
        skip: how many matching calls pass first (default 0).
        count: how many calls are hit before the rule ends; None never ends.
        action: what goes wrong.
        errcode: of ``errcode``.
        errmsg: of ``errcode``; None is the usual text.
        ms: of ``delay`` and ``slow_drip`` (default 1000) and ``hang`` (default 60000).
        status: of ``status`` (default 502).
        accept: whether the call does its work before the fault shows; None is what the action's
            description says. ``errcode`` -1 with ``accept`` is a delivery that reports failure.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    api: str | None = None
    openid: str | frozenset[str] | None = None
    template_id: str | None = None
    probability: float = Field(default=1, ge=0, le=1)
    skip: int = Field(default=0, ge=0)
    count: int | None = Field(default=None, ge=1)
    action: FaultAction
    errcode: int | None = None
    errmsg: str | None = None
    ms: float | None = Field(default=None, ge=0, le=60_000)
    status: int = Field(default=502, ge=400, le=599)
    accept: bool | None = None

    @model_validator(mode="after")
    def _errcode_is_given(self) -> Self:
        if self.action is FaultAction.ERRCODE and self.errcode is None:
            message = "action errcode needs an errcode, for instance 45009"
            raise ValueError(message)
        return self

    @property
    def accepts(self) -> bool:
        """Whether the call does its work before the fault shows."""
        return self.accept if self.accept is not None else self.action in _ACCEPTS

    @property
    def spell_ms(self) -> float:
        """Milliseconds that a delay, a drip or a hang lasts."""
        if self.ms is not None:
            return self.ms
        return 60_000 if self.action is FaultAction.HANG else 1_000

    def concerns(self, call: Call) -> bool:
        """Whether the conditions on api, openid and template hold for this call."""
        if self.api is not None and not call.path.endswith(self.api):
            return False
        if self.openid is not None:
            openid = call.peek("touser")
            wanted = self.openid
            if openid != wanted if isinstance(wanted, str) else openid not in wanted:
                return False
        return self.template_id is None or call.peek("template_id") == self.template_id


class Fault:
    """A rule at work: the rule, how many calls it concerned and how many it hit."""

    __slots__ = ("hits", "rule", "seen")

    def __init__(self, rule: FaultRule) -> None:
        self.rule = rule
        self.seen = 0
        self.hits = 0

    def strikes(self, call: Call, rng: random.Random) -> bool:
        """Whether this call is hit; counts it."""
        rule = self.rule
        if rule.count is not None and self.hits >= rule.count:
            return False
        if not rule.concerns(call):
            return False
        self.seen += 1
        if self.seen <= rule.skip:
            return False
        if rule.probability < 1 and rng.random() >= rule.probability:
            return False
        self.hits += 1
        return True


class Faults:
    """The rules in force."""

    def __init__(self, rules: Iterable[FaultRule] = ()) -> None:
        self._faults = [Fault(rule) for rule in rules]

    def __bool__(self) -> bool:
        return bool(self._faults)

    def strike(self, call: Call, rng: random.Random) -> FaultRule | None:
        """Find the rule that hits this call, if any."""
        for fault in self._faults:
            if fault.strikes(call, rng):
                return fault.rule
        return None

    def describe(self) -> list[dict[str, object]]:
        """List the rules with ``seen`` (calls concerned) and ``hits``."""
        return [
            {
                **fault.rule.model_dump(mode="json", exclude_none=True),
                "seen": fault.seen,
                "hits": fault.hits,
            }
            for fault in self._faults
        ]
