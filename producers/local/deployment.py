"""Local: a whole deployment on this machine, for tests of what uses it.

A real Valkey, the sandbox on a thread, a producer, and units by the Procfile's own commands: a
worker as soon as something is waited for, the HTTP service on demand. Nothing of the shell's WXB_
variables reaches it, and nothing of it reaches WeChat. `clean` makes it new for the next test,
with the same units.

Needs ``pip install 'wxbroadcast[local]'``. With pytest see `producers.testing`; without::

    with Local() as local:
        local.producer.collect("shop", [{"openid": "oA", "subscriptions": {"T": "accept"}}])
        broadcast = local.producer.broadcast(
            app="shop", channel="subscribe", template_id="T", audience="all", data={"thing1": "hi"}
        )
        assert local.wait(broadcast.id).outcomes == {"delivered": 1}
        assert local.wechat.received("oA")[0]["data"] == {"thing1": {"value": "hi"}}
"""

import re
import tempfile
import time
from contextlib import ExitStack, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self
from urllib.request import urlopen

from producers import store
from producers.access.api_keys import ANY_APP, ApiKeys, Scope
from producers.broadcasts.messages import MessageStatus
from producers.broadcasts.status import Status
from producers.errors import IllegalMoveError, WxbroadcastError
from producers.local import embedded, isolation, ports, procfile
from producers.local.supervisor import Supervisor
from producers.producer import Producer
from producers.sandbox import SandboxConfig
from producers.sandbox.thread import SandboxThread
from producers.settings import Settings
from producers.store import keys
from producers.words import ENDED, State

_APP: Final = {"secret": "local", "rate_per_second": 0, "daily_limit": 0}
"""Fields of an app that are not given: no limit, for a test should not wait."""

_START_S: Final = 30.0
"""Longest start of a worker unit: imports on a busy machine."""

_CALM_S: Final = 30.0
"""Until nothing is in flight any more: a POST's timeout, or a dead unit's recovery."""

_WEB: Final = "web.1"
_EVERY_S: Final = 0.02
_PAGE: Final = 1000
_SHOWN: Final = 3000

_KEPT: Final = (keys.DEPLOYMENT, keys.WORKERS, keys.SERVER, keys.SEEN)
"""What units that run have a right to find again, beside fence tokens and wishes for webhooks.

Without `SEEN` a server that restarts within the next second passes for an old backup.
"""

_WAITING: Final = re.compile(":(queue|delayed):")
"""Keys of messages that nobody has taken yet."""
_NOBODY: Final = {"-", "aside"}
"""Who has a message in flight that waits, resumed, in a queue or for an operator."""


class LocalError(WxbroadcastError):
    """A part did not start, or what was waited for did not come; the message says how far it is."""


class Local:
    """See the module. A context manager; `close` it otherwise.

    Args:
        folder: where Valkey's data and the units' lines lie; None: gone at the end.
        **fields: fields of `Settings`, JSON-ready. Default: one app, `shop`; `secret` of an app
            need not be given, and without limits of its own it has none.

    Attributes:
        wechat: the sandbox. Any permit is good to it, once; `configure` it otherwise.
        variables: the WXB_ variables that lead other processes, and ``Producer()``, here.
        settings: the same, as `Producer` takes them.

    Raises:
        SettingsError: a field is wrong, or `wxbroadcast[local]` is not installed.
        StoreUnavailableError: Valkey did not start.
    """

    def __init__(self, folder: Path | None = None, **fields: Any) -> None:
        with ExitStack() as stack:
            if folder is None:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wxb-")))
            self._folder = folder
            redis_url = stack.enter_context(embedded.valkey(folder / "valkey"))
            config = SandboxConfig.model_validate({"permits": "any"})
            self.wechat = stack.enter_context(SandboxThread(config))
            given = _fields(fields, redis_url, self.wechat.url)
            self.variables = isolation.variables(given)
            self.settings: Settings = isolation.isolated(given)
            output = stack.enter_context((folder / "units.log").open("ab"))
            self._supervisor = Supervisor(
                isolation.environment(given), folder, output, on_end=lambda _: None
            )
            stack.callback(self._supervisor.stop)
            self._client = store.connect(self.settings)
            stack.callback(self._client.connection_pool.disconnect)
            self._stack = stack.pop_all()

    @cached_property
    def producer(self) -> Producer:
        """A producer of this deployment."""
        return self._stack.enter_context(Producer(self.settings))

    def work(self, units: int = 1) -> None:
        """Have so many worker units at least, and wait until each beats.

        Raises:
            LocalError: one did not start; the message has what it said.
        """
        running = sum(name != _WEB for name in self._supervisor.units)
        if running >= units:
            return
        command = procfile.read()["worker"]
        for number in range(running, units):
            self._supervisor.start(f"worker.{number + 1}", command)
        deadline = time.monotonic() + _START_S
        while self._client.zcard(keys.WORKERS) < units:
            if self._supervisor.hopeless or time.monotonic() > deadline:
                raise LocalError(f"no {units} workers within {_START_S:.0f} s: {self._said()}")
            time.sleep(_EVERY_S)

    def serve(self) -> str:
        """Have the HTTP service run, and wait until it is ready.

        Returns:
            Its URL, without a slash at the end; the callbacks of app ``shop`` are at
            ``/wechat/shop`` of it.

        Raises:
            LocalError: it did not start; the message has what it said.
        """
        url = f"http://127.0.0.1:{self.settings.web_port}"
        if _WEB not in self._supervisor.units:
            self._supervisor.start(_WEB, procfile.read()["web"])
        deadline = time.monotonic() + _START_S
        while not _answers(f"{url}/readyz"):
            if self._supervisor.hopeless or time.monotonic() > deadline:
                raise LocalError(f"no service within {_START_S:.0f} s: {self._said()}")
            time.sleep(_EVERY_S)
        return url

    def api_key(self, *scopes: str) -> str:
        """Make a key to the HTTP service, good until the next `clean`.

        Args:
            *scopes: of `producers.access.api_keys.Scope`; none: all of them.

        Returns:
            The token: ``Authorization: Bearer …``.
        """
        keyring = ApiKeys(self._client, self.settings)
        return keyring.create("local", [ANY_APP], scopes or [*Scope]).token

    def wait(self, broadcast: str = "", within_s: float = 30) -> Status:
        """Let a worker unit send, until a broadcast has ended or is paused.

        Args:
            broadcast: its id; '': every broadcast of every app.
            within_s: how long it may take.

        Returns:
            Its status; of the newest when none is named.

        Raises:
            NotFoundError: no such broadcast.
            LocalError: it took longer, or there is no broadcast at all.
        """
        self.work()
        deadline = time.monotonic() + within_s
        while True:
            found = [self.producer.status(broadcast)] if broadcast else self._statuses()
            if not found:
                raise LocalError("there is no broadcast to wait for")
            if all(map(_is_still, found)):
                return max(found, key=lambda one: one.created_at_ms)
            if time.monotonic() > deadline:
                moving = [one for one in found if not _is_still(one)]
                raise LocalError(f"not over within {within_s:g} s: {moving}; {self._said()}")
            time.sleep(_EVERY_S)

    def wait_message(self, message: str, within_s: float = 30) -> MessageStatus:
        """Let a worker unit send, until a single message has its outcome.

        Raises:
            NotFoundError: no such message.
            LocalError: it took longer.
        """
        self.work()
        deadline = time.monotonic() + within_s
        while (status := self.producer.message_status(message)).state != "ended":
            if time.monotonic() > deadline:
                raise LocalError(f"not over within {within_s:g} s: {status}; {self._said()}")
            time.sleep(_EVERY_S)
        return status

    def clean(self) -> None:
        """Forget every permit, broadcast and message; units that run stay.

        Raises:
            LocalError: a message stays in flight.
        """
        self.wechat.fail()
        for status in self._statuses():
            if status.state not in ENDED:
                with suppress(IllegalMoveError):  # it ended meanwhile
                    self.producer.cancel(status.id)
        deadline = time.monotonic() + _CALM_S
        self._forget(_WAITING)
        while self._in_hands():
            if time.monotonic() > deadline:
                raise LocalError(f"still in flight after {_CALM_S:.0f} s: {self._said()}")
            time.sleep(_EVERY_S)
            self._forget(_WAITING)
        self._forget(re.compile(""))
        self.wechat.reset()

    def close(self) -> None:
        """End everything."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _statuses(self) -> list[Status]:
        """Return the status of every broadcast that a test may have made."""
        return [
            one
            for app in self.settings.apps
            for one in self.producer.broadcasts(app, limit=_PAGE).broadcasts
        ]

    def _in_hands(self) -> bool:
        """Say whether a unit has a message that WeChat may be about to get."""
        return any(
            entry.partition(" ")[0] not in _NOBODY
            for key in self._client.scan_iter(match=f"{keys.PREFIX}:*:flight:*", count=_PAGE)
            for entry in self._client.hvals(key)
        )

    def _forget(self, which: re.Pattern[str]) -> None:
        """Delete keys, but for what units that run have a right to find again."""
        lanes = self.settings.layout.lanes
        kept = {*_KEPT, *map(keys.fence, lanes), *map(keys.hooks, lanes)}
        for key in self._client.scan_iter(count=_PAGE):
            if key in kept or key.startswith(keys.DRAMATIQ_NAMESPACE):
                continue
            if which.search(key):
                self._client.unlink(key)

    def _said(self) -> str:
        """Return the last lines of the units."""
        text = (self._folder / "units.log").read_text(errors="replace")
        return f"the units said: …{text[-_SHOWN:]}" if text else "the units said nothing"


def _fields(given: dict[str, Any], redis_url: str, wechat_url: str) -> dict[str, Any]:
    """Return the fields of the settings; every app is led to the sandbox, whatever it says."""
    apps = given.get("apps", {"shop": {}})
    led = {
        alias: {"appid": f"wx{number:016x}", **_APP, **app, "wechat_url": wechat_url}
        for number, (alias, app) in enumerate(apps.items(), 1)
    }
    own: dict[str, Any] = {"redis_url": redis_url, "wechat_url": wechat_url, "apps": led}
    own["web_port"] = ports.free_port()
    return {"lanes": 1, "buckets": 256, **given, **own}


def _answers(url: str) -> bool:
    """Say whether somebody answers 200."""
    try:
        with urlopen(url, timeout=_START_S) as response:  # noqa: S310 - our own service
            return bool(response.status == 200)
    except OSError:
        return False


def _is_still(status: Status) -> bool:
    """Say whether a broadcast does not go on by itself."""
    if status.state is State.PAUSED:
        return status.in_flight == 0
    return status.state in ENDED and status.complete
