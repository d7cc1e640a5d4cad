"""A sandbox on a thread of this process: told, and asked, from any other thread.

For tests: it starts at once, ends with the process, and leaves the caller's event loop alone.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, Self, TypeVar

from producers.sandbox import FaultRule, Grants, Part, Sandbox, SandboxConfig
from producers.sandbox.pushes.events import Event

Result = TypeVar("Result")

_TIMEOUT_S: Final = 60.0
"""For one order: an event may be pushed four times, and wait 5 s for each answer."""


class SandboxThread:
    """A local WeChat. A context manager; `close` it otherwise.

    Args:
        config: what it is told; the defaults when None.
        port: of the loopback address; 0: a free one.

    Raises:
        OSError: it cannot listen.
    """

    def __init__(self, config: SandboxConfig | None = None, port: int = 0) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="sandbox", daemon=True)
        self._thread.start()
        self._sandbox = Sandbox(config, port=port)
        try:
            self._await(self._sandbox.start())
        except BaseException:
            self._end()
            raise

    @property
    def url(self) -> str:
        """Where it listens: WXB_WECHAT_URL."""
        return self._sandbox.url

    def received(self, openid: str) -> list[dict[str, Any]]:
        """Return the last messages to a user, the oldest first.

        Returns:
            Each with ``at_ms``, ``channel``, ``template_id``, ``page``, ``data`` (keyword →
            ``{"value": …}``), and ``form_id``, or ``msgid`` and
            ``miniprogram_state``.
        """
        return self._call(lambda: self._sandbox.state.deliveries.of(openid))

    def counts(self) -> dict[str, int]:
        """Return openid → messages received, of every recipient."""
        return self._call(lambda: dict(self._sandbox.state.deliveries.counts))

    def stats(self) -> dict[str, Any]:
        """Return all counts; see ``producers.sandbox.control.stats``."""
        return self._call(self._sandbox.orders.stats)

    def give(self, **grants: Any) -> dict[str, int]:
        """Hand out permits, which matters where only given ones are good.

        Args:
            **grants: ``form_ids``, ``prepay_ids``, ``subscriptions``, ``unsubscriptions``, as
                ``producers.sandbox.control`` describes them.

        Raises:
            pydantic.ValidationError: they are none.
        """
        given = Grants.model_validate(grants)
        return self._call(lambda: self._sandbox.orders.give(given))

    def give_code(self, code: str, openid: str) -> None:
        """Hand out a login code (``wx.login``), good once, for `openid`."""
        state = self._sandbox.state
        self._call(lambda: state.codes.give(code, openid, state.now()))

    def fail(self, *rules: dict[str, Any]) -> None:
        """Let calls go wrong from now on, by these rules alone; none: all goes well.

        Args:
            *rules: for instance ``{"action": "errcode", "errcode": 43101, "openid": "o1"}``; see
                ``producers.sandbox.faults``.

        Raises:
            pydantic.ValidationError: one is none; nothing changed.
        """
        found = [FaultRule.model_validate(rule) for rule in rules]
        self._call(lambda: self._sandbox.orders.set_faults(found))

    def configure(self, **changes: Any) -> None:
        """Change the config; each field given replaces its old value whole.

        Raises:
            pydantic.ValidationError: the new config is none; nothing changed.
        """
        self._call(lambda: self._sandbox.orders.configure(changes))

    def push(self, appid: str, openid: str, event: str, *items: dict[str, str]) -> None:
        """Push an event to the configured ``callback``, and wait until it is answered or given up.

        Args:
            appid: whose it is.
            openid: the user.
            event: for instance ``subscribe_msg_popup_event``.
            *items: of its ``List``: ``{"TemplateId": …, "SubscribeStatusString": "accept"}``.

        Raises:
            ValueError: no callback is configured.
        """

        async def pushed() -> None:
            if self._sandbox.state.config.callback is None:
                raise ValueError("configure(callback={…}) first: it says where events go")
            at_s = self._sandbox.state.now()
            self._sandbox.announce(Event(appid, openid, event, items, at_s))
            await self._sandbox.drain_events()

        self._await(pushed())

    def reset(self) -> None:
        """Forget all but the tokens, which a worker may go on using."""
        parts = frozenset(Part) - {Part.TOKENS}
        self._call(lambda: self._sandbox.orders.reset(parts))

    def close(self) -> None:
        """Stop it. Harmless when repeated."""
        if not self._loop.is_closed():
            self._await(self._sandbox.stop())
            self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, work: Callable[[], Result]) -> Result:
        async def called() -> Result:
            return work()

        return self._await(called())

    def _await(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_TIMEOUT_S)

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_TIMEOUT_S)
        self._loop.close()
