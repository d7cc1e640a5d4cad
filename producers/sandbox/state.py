"""All that one sandbox knows, in one place, in memory.

Handlers get the state and a call; nothing else keeps anything. The clock and the randomness are
its own, so that a test can hold both.
"""

import random
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from enum import StrEnum
from typing import Any

from producers.sandbox.config import SandboxConfig, Taking
from producers.sandbox.faults import Faults
from producers.sandbox.memory.apps import Apps
from producers.sandbox.memory.arrivals import Arrivals
from producers.sandbox.memory.codes import Codes
from producers.sandbox.memory.deliveries import Deliveries
from producers.sandbox.memory.permits import Permits
from producers.sandbox.memory.quota import Usages
from producers.sandbox.memory.refusals import Refusals
from producers.sandbox.memory.templates import Template
from producers.sandbox.memory.tokens import Tokens
from producers.words import Channel


class Part(StrEnum):
    """What can be reset on its own."""

    CONFIG = "config"
    """Back to the config that the sandbox started with, its faults included."""
    FAULTS = "faults"
    """No faults."""
    PERMITS = "permits"
    """Permits, codes and whose the openids are."""
    TOKENS = "tokens"
    """Every token stops."""
    QUOTAS = "quotas"
    """Every quota is whole."""
    DELIVERIES = "deliveries"
    """What users received, and every count in the stats."""


class State:
    """The state of a sandbox."""

    def __init__(self, config: SandboxConfig, now: Callable[[], float], rng: random.Random) -> None:
        self._first_config = config
        self.now = now
        self.rng = rng
        self.sending: set[tuple[str, str]] = set()
        self.next_msgid = (1 << 60) + rng.getrandbits(59)
        self.config = config
        self.reset(frozenset(Part))

    def configure(self, changes: Mapping[str, Any]) -> None:
        """Change the config; each key given replaces its old value whole.

        Raises:
            pydantic.ValidationError: the new config is none; nothing changed.
        """
        fields = {name: getattr(self.config, name) for name in SandboxConfig.model_fields}
        self._use(SandboxConfig.model_validate({**fields, **changes}))
        if "faults" in changes:
            self.faults = Faults(self.config.faults)

    def reset(self, parts: Collection[Part]) -> None:
        """Forget what these parts hold."""
        if Part.CONFIG in parts:
            self._use(self._first_config)
            self.faults = Faults(self.config.faults)
        elif Part.FAULTS in parts:
            self.faults = Faults()
        if Part.PERMITS in parts:
            self.apps = Apps()
            self.permits = Permits()
            self.codes = Codes()
            self._own()
        if Part.TOKENS in parts:
            self.tokens = Tokens(self.rng)
        if Part.QUOTAS in parts:
            self.usages = Usages()
        if Part.DELIVERIES in parts:
            config = self.config
            self.deliveries = Deliveries(config.keep_per_openid, config.keep_messages)
            self.arrivals = Arrivals(config.keep_arrivals)
            self.refusals = Refusals(config.keep_refusals)
            self.requests: Counter[str] = Counter()
            self.errcodes: dict[str, Counter[int]] = {}

    def template(self, channel: Channel, appid: str, template_id: str) -> Template | None:
        """Return an app's template; None when it has no such one."""
        named = self._templates[channel]
        return named.get((appid, template_id)) or named.get(("", template_id))

    def templates_of(self, channel: Channel, appid: str) -> list[Template]:
        """Return an app's templates."""
        named = self._templates[channel]
        return [one for one in named.values() if one.appid in {"", appid}]

    def lists(self, channel: Channel, appid: str) -> bool:
        """Say whether an app's templates are configured; where none are, every one is good."""
        return (channel, "") in self._listing or (channel, appid) in self._listing

    def _use(self, config: SandboxConfig) -> None:
        self.config = config
        self.any_permit = config.permits is Taking.ANY
        self._templates: dict[Channel, dict[tuple[str, str], Template]]
        self._templates = {channel: {} for channel in Channel}
        for template in config.templates:
            name = template.appid, template.template_id
            self._templates[template.channel][name] = template
        self._listing = {(one.channel, one.appid) for one in config.templates}
        if hasattr(self, "apps"):
            self._own()

    def _own(self) -> None:
        for openid, appid in self.config.openids.items():
            self.apps.own(appid, (openid,))
