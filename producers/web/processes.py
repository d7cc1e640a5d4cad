"""Several processes behind one port: the kernel spreads the connections (SO_REUSEPORT).

The parent reserves the port, starts the processes, and starts one again that ends, after a pause
that grows while they end young. SIGTERM drains them all. If the parent itself is killed, the pipe
that they hold from it closes, and they end gracefully too: nobody is left on the port.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Final

from producers import logs
from producers.events import UnitEnded
from producers.web.server import Place, bind

_PATIENCE_S: Final = 11.5
"""SIGTERM to SIGKILL: a process drains in eight seconds, and closes in up to three."""
_SETTLED_S: Final = 10.0
_LONGEST_PAUSE_S: Final = 5.0
_LOOK_S: Final = 0.1
PIPE: Final = "WXBROADCAST_WEB_PIPE"
"""Variable that tells a child the descriptor of the parent's pipe."""


@dataclass
class _Child:
    name: str
    process: "subprocess.Popen[bytes] | None" = None
    started_at: float = 0.0
    again_at: float = 0.0
    pause_s: float = 0.1
    restarts: int = field(default=0)


def run(place: Place, count: int) -> int:
    """Run the processes until SIGTERM or SIGINT.

    Args:
        place: where they listen.
        count: how many.

    Returns:
        The exit code: 0, or 1 when one had to be killed.

    Raises:
        InvalidInputError: cannot listen there.
    """
    logs.configure(f"web-{os.getpid()}", descriptor=1)
    with contextlib.closing(_reserve(place)) as reserved:
        shared = Place(place.host, reserved.getsockname()[1], shared=True)
        return _Parent(shared, count).run()


def child_pipe() -> int | None:
    """Return the descriptor of the parent's pipe, in a process that has a parent."""
    text = os.environ.get(PIPE, "")
    return int(text) if text.isdecimal() else None


def _reserve(place: Place) -> socket.socket:
    """Hold the port, without listening, so that it is ours between restarts.

    First alone: a second deployment must not share the port unnoticed.
    """
    with contextlib.closing(bind(place)) as alone:
        port = alone.getsockname()[1]
    return bind(Place(place.host, port, shared=True))


class _Parent:
    def __init__(self, place: Place, count: int) -> None:
        self._place = place
        self._children = [_Child(f"web.{number + 1}") for number in range(count)]
        self._ended = threading.Event()
        self._pipe, self._held = os.pipe()
        os.set_inheritable(self._pipe, True)

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        try:
            while not self._ended.is_set():
                for child in self._children:
                    self._keep(child)
                self._ended.wait(_LOOK_S)
            return self._stop()
        finally:
            os.close(self._held)
            os.close(self._pipe)

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        self._ended.set()

    def _keep(self, child: _Child) -> None:
        """Start a child that does not run, when its pause is over."""
        now = time.monotonic()
        if child.process is not None:
            exit_code = child.process.poll()
            if exit_code is None:
                return
            child.restarts += 1
            logs.emit(UnitEnded(child.name, child.process.pid, exit_code, child.restarts))
            if now - child.started_at > _SETTLED_S:
                child.pause_s = 0.1
            child.again_at = now + child.pause_s
            child.pause_s = min(2 * child.pause_s, _LONGEST_PAUSE_S)
            child.process = None
        if now >= child.again_at:
            child.started_at = now
            child.process = self._spawn()

    def _spawn(self) -> "subprocess.Popen[bytes]":
        # in this process group: what ends the group, ends the children
        return subprocess.Popen(  # noqa: S603 - our own command
            _command(self._place),
            env={**os.environ, PIPE: str(self._pipe)},
            stdin=subprocess.DEVNULL,
            pass_fds=(self._pipe,),
        )

    def _stop(self) -> int:
        running = [one.process for one in self._children if one.process is not None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + _PATIENCE_S
        code = 0
        for process in running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                code = 1
        return code


def _command(place: Place) -> Sequence[str]:
    return (
        sys.executable,
        "-m",
        "producers.cli",
        "web",
        "--host",
        place.host,
        "--port",
        str(place.port),
        "--processes",
        "1",
    )
