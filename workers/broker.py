"""The broker: Dramatiq's Redis broker, with a consumer of ours on the `send` queue.

The stock queues carry only edges (`split`), so their maintenance is off and they have no delay
queues: retries, delays and recovery are the protocol's own. On `send`, one message given to an
actor call is a batch whose permits are already claimed and whose slots are reserved.

Making the broker opens nothing; the runtime is opened at worker boot and closed at shutdown.
"""

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable
from types import FrameType
from typing import Any, Final, NoReturn

import redis
import uvloop
from dramatiq.asyncio import EventLoopThread, get_event_loop_thread, set_event_loop_thread
from dramatiq.broker import Broker, Consumer, MessageProxy
from dramatiq.brokers.redis import RedisBroker
from dramatiq.message import Message
from dramatiq.middleware import AsyncIO, Middleware

from producers import logs, settings, store
from producers.broadcasts.jobs import SEND
from producers.errors import StoreUnavailableError, WxbroadcastError
from producers.logs.events import BootFailed, StoreUnreachable
from producers.store import keys, trouble
from producers.store.retry import LOST, pause_s
from workers.runtime import END_S, Runtime

_BOOT_S: Final = 10.0
"""How long a boot waits for Redis; then the unit ends, to be started anew from outside."""

_IDLE_S: Final = 0.5
"""How often a consumer looks whether Dramatiq wants it to stop."""


class UvloopAsyncIO(AsyncIO):
    """Dramatiq's event loop thread, on uvloop."""

    def before_worker_boot(self, broker: Broker, worker: Any) -> None:  # noqa: ARG002
        """Start the loop."""
        thread = EventLoopThread(self.logger)
        thread.loop.close()
        thread.loop = uvloop.new_event_loop()
        thread.start(timeout=5.0)
        set_event_loop_thread(thread)


class Lifecycle(Middleware):
    """Opens the runtime at boot and drains it at shutdown.

    Dramatiq swallows what a hook raises, so a failed boot ends the process itself.
    """

    def __init__(self, broker: "WorkBroker") -> None:
        self._broker = broker

    def before_worker_boot(self, broker: Broker, worker: Any) -> None:  # noqa: ARG002
        """Load the settings, configure the logs, open everything."""
        _stop_once()
        process = f"worker-{os.getpid()}"
        logs.configure_unless_hosted(process)
        try:
            loaded = settings.load()
            if loaded.log_processors:
                logs.configure_unless_hosted(process, settings.import_log_processors(loaded))
            loop = get_event_loop_thread()
            assert loop is not None  # noqa: S101  (UvloopAsyncIO stands before this)
            self._broker.open(_open_runtime(loaded, loop.loop))
        except StoreUnavailableError as error:
            _end(str(error), os.EX_TEMPFAIL)
        except WxbroadcastError as error:
            _end(str(error), os.EX_CONFIG)
        except redis.RedisError as error:
            _end(trouble.in_words(error), os.EX_TEMPFAIL)
        except Exception as error:  # noqa: BLE001  (whatever it was, this process cannot work)
            _end(f"{type(error).__name__}: {error}", os.EX_SOFTWARE)

    def before_worker_shutdown(self, broker: Broker, worker: Any) -> None:  # noqa: ARG002
        """Take nothing more, and settle what is in hand.

        A thread that waits for a Redis that is away must not keep the process: it ends in time.
        """
        last = threading.Timer(END_S, _leave)
        last.daemon = True
        last.start()
        if self._broker.runtime:
            self._broker.runtime.stop()

    def after_worker_shutdown(self, broker: Broker, worker: Any) -> None:  # noqa: ARG002
        """Write the last lines: Dramatiq's child process runs nothing at exit."""
        logs.close()


def _stop_once() -> None:
    """Let one SIGTERM stop the process, and no second one cut its draining short.

    systemd and a terminal signal the whole group, and Dramatiq's master passes the signal on: each
    stop comes twice. Dramatiq takes the second one as "at once", which leaves claims in hand, and
    then the process does not even end, for the loop's thread is no daemon. Draining is bounded.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    stops: dict[int, Any] = {
        number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)
    }

    def once(number: int, frame: FrameType | None) -> None:
        stop = stops.pop(number, None)
        stops.clear()
        if callable(stop):
            stop(number, frame)

    for number, stop in list(stops.items()):
        if callable(stop):
            signal.signal(number, once)


def _open_runtime(loaded: settings.Settings, loop: asyncio.AbstractEventLoop) -> Runtime:
    """Open a runtime, waiting a while for a Redis that is away just now, and for no other one."""
    deadline = time.monotonic() + _BOOT_S
    attempt = 0
    while True:
        try:
            return Runtime(loaded, loop)
        except (StoreUnavailableError, *LOST) as error:
            in_vain = trouble.is_about_settings(error.__cause__ or error)
            if in_vain or time.monotonic() > deadline:
                raise
            attempt += 1
            logs.emit(StoreUnreachable("booting", type(error).__name__, attempt))
            time.sleep(pause_s(attempt))


def _leave() -> NoReturn:
    """End a process whose time to stop is over; recovery has what is in its hands."""
    logs.close()
    os._exit(os.EX_OK)


def _end(why: str, code: int) -> NoReturn:
    """End a process that could not boot: a SystemExit, which Dramatiq lets through.

    Its code says whether to start it again: EX_CONFIG is the one that ends so every time.
    The loop's thread is no daemon and would keep the process from ending.
    """
    logs.emit(BootFailed(why))
    logs.close()
    os.write(2, f"wxbroadcast: {why}\n".encode())
    thread = get_event_loop_thread()
    if thread is not None:
        thread.stop()  # type: ignore[no-untyped-call]
    sys.exit(code)


class WorkBroker(RedisBroker):
    """See the module. ``runtime`` is None until a worker boots."""

    def __init__(self) -> None:
        self.runtime: Runtime | None = None
        super().__init__(  # type: ignore[no-untyped-call]
            client=redis.Redis(),  # connects to nothing; `open` gives it the real one
            namespace=keys.DRAMATIQ_NAMESPACE,
            maintenance_chance=0,
            middleware=[],
        )
        # the order matters: the loop before whatever needs it
        self.add_middleware(UvloopAsyncIO())
        self.add_middleware(Lifecycle(self))

    def open(self, runtime: Runtime) -> None:
        """Use a booted runtime."""
        self.runtime = runtime
        self.client = store.connect(runtime.settings, 16, role="worker", decode_responses=False)
        self.scripts = {
            name: self.client.register_script(one.script) for name, one in self.scripts.items()
        }

    def declare_queue(self, queue_name: str) -> None:
        """Declare a queue, without the delay queue that nothing here uses."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.emit_after("declare_queue", queue_name)

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> Consumer:
        """Return the consumer of a queue: ours on `send`, the stock one elsewhere."""
        if queue_name == SEND and self.runtime:
            return SendConsumer(self.runtime)
        return super().consume(queue_name, prefetch, timeout)


class SendConsumer(Consumer):
    """Gives batches of claimed messages, each as the arguments of one `send` actor call.

    Acks say nothing: what was settled is what was done. What Dramatiq still holds at shutdown is
    handed back to the front of its queue.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def __next__(self) -> MessageProxy | None:
        """Return a batch, or None after half a second without one."""
        batch = self._runtime.pump.next_batch(_IDLE_S)
        if batch is None:
            if self._runtime.hands.closing:
                time.sleep(_IDLE_S / 5)
            return None
        return MessageProxy(
            Message(queue_name=SEND, actor_name=SEND, args=(batch,), kwargs={}, options={})
        )

    def ack(self, message: MessageProxy) -> None:
        """Nothing to do."""

    def nack(self, message: MessageProxy) -> None:
        """Hand the batch back: its actor call failed before the batch was started."""
        self.requeue([message])

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Hand back batches that no actor call took."""
        for message in messages:
            self._runtime.hand_back(message.args[0])

    def close(self) -> None:
        """Nothing to close."""
