"""Silence: nodes that do not answer, so that one of them holds nobody who could go on elsewhere.

A node that stands still takes connections and commands, and every call to it waits for its whole
timeout; one that is gone is tried again and again. Threads that serve all nodes in turn would stand
still with it. So a call that was lost has the node asked for a sign of life, past all pools. Until
it gives one, calls to it are refused at once (`SilentError`): nothing was asked. Any byte is a
sign, the refusal of a command too, and so is the end of a connection that it took.

What one impatient caller met concerns nobody: only the silence after the question counts.
"""

import contextlib
import socket
import threading
import time
from typing import Final

from producers.store import trouble
from producers.store.patience import Place, patience_s
from producers.store.primary import NotDoneError

LOOK_S: Final = 0.005
UNEASY_S: Final = 1.0
"""Who waits so long for one node of several has it asked, and waits no longer than it is silent."""
_WAIT_S: Final = 1.0
"""A node that runs a long script or writes its file answers sooner."""
_EVERY_S: Final = 0.1
_GIVE_UP_S: Final = 600.0
"""Then a call finds out anew: the node may be of no cluster any more."""


class SilentError(NotDoneError):
    """The node did not answer the calls before; nothing was asked of it.

    Attributes:
        seconds: for how long it has not answered.
    """

    def __init__(self, place: Place, seconds: float) -> None:
        super().__init__(f"{place[0]}:{place[1]} has not answered for {seconds:.1f} s")
        self.seconds = seconds


class Silence:
    """What one client knows of its nodes' silence; may be asked from any thread."""

    def __init__(self) -> None:
        self._silent: set[Place] = set()
        self._asked: dict[Place, float] = {}

    def __contains__(self, place: Place) -> bool:
        return place in self._silent

    def is_asked(self, place: Place) -> bool:
        """Say whether a node is being asked, and it is not known yet whether it is silent."""
        return place in self._asked and place not in self._silent

    def refusal(self, place: Place) -> SilentError:
        """Return what a call to a silent node raises."""
        now = time.monotonic()
        error = SilentError(place, now - self._asked.get(place, now))
        trouble.at_node(error, place)
        return error

    def await_verdict(self, place: Place) -> None:
        """Wait until it is known, for about a second at the most.

        Raises:
            redis.TimeoutError: the call's time is over.
        """
        while self.is_asked(place):
            time.sleep(min(LOOK_S, patience_s(LOOK_S)))

    def suspect(self, place: Place) -> None:
        """A call to a node was lost: have it asked for a sign, once at a time."""
        if place in self._asked:
            return
        self._asked[place] = time.monotonic()
        name = f"silence of {place[0]}:{place[1]}"
        threading.Thread(target=self._ask, args=(place,), name=name, daemon=True).start()

    def _ask(self, place: Place) -> None:
        ends = time.monotonic() + _GIVE_UP_S
        try:
            while time.monotonic() < ends and not gives_a_sign(place, _WAIT_S):
                self._silent.add(place)
                time.sleep(_EVERY_S)
        finally:
            self._silent.discard(place)
            self._asked.pop(place, None)


def gives_a_sign(place: Place, seconds: float) -> bool:
    """Say whether a node is there, and does anything but keep silent when it is asked."""
    try:
        connection = socket.create_connection(place, seconds)
    except OSError:
        return False
    with contextlib.closing(connection):
        try:
            connection.settimeout(seconds)
            connection.sendall(b"PING\r\n")
            connection.recv(1)
        except TimeoutError:
            return False
        except OSError:
            return True
        return True
