"""Several processes behind one port: the kernel spreads the connections (SO_REUSEPORT).

The parent reserves the port and keeps the processes running (see `producers.units`). SIGTERM drains
them all. If the parent itself is killed, the pipe that they hold from it closes, and they end
gracefully too: nobody is left on the port.
"""

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
from queue import SimpleQueue
from typing import Final

from producers import logs
from producers.units import Process, Units
from producers.web.server import Place, bind

_PATIENCE_S: Final = 11.5
"""SIGTERM to SIGKILL: a process drains in eight seconds, and closes in up to three."""
PIPE: Final = "WXBROADCAST_WEB_PIPE"
"""Variable that tells a child the descriptor of the parent's pipe."""


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
        ends: SimpleQueue[int] = SimpleQueue()  # a handler may interrupt whoever waits for it
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: ends.put(number))
        with contextlib.closing(_Processes()) as processes:
            for index in range(count):
                processes.start(f"web.{index + 1}", _command(shared))
            ends.get()
            return 1 if processes.stop(_PATIENCE_S) else 0


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


class _Processes(Units):
    """The processes, with a pipe from this one that closes when it is no more."""

    def __init__(self) -> None:
        super().__init__()
        self._pipe, self._held = os.pipe()
        os.set_inheritable(self._pipe, True)

    def close(self) -> None:
        """Close the pipe."""
        os.close(self._held)
        os.close(self._pipe)

    def _spawn(self, command: str) -> Process:
        # in this process group: what ends the group, ends the children
        return subprocess.Popen(  # noqa: S603 - our own command
            shlex.split(command),
            env={**os.environ, PIPE: str(self._pipe)},
            stdin=subprocess.DEVNULL,
            pass_fds=(self._pipe,),
        )


def _command(place: Place) -> str:
    one = ("web", "--host", place.host, "--port", str(place.port), "--processes", "1")
    return shlex.join((sys.executable, "-m", "producers.cli", *one))
