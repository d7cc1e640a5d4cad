"""Ports of this machine: which are free for a server that keeps its port when it starts again."""

import contextlib
import random
import socket
from typing import Final

HOST: Final = "127.0.0.1"
"""Nobody beyond this machine reaches what listens here."""

_PORTS: Final = (10_000, 30_000)
_LOT: Final = random.SystemRandom()


def free_port() -> int:
    """Return a free port, below those that the system gives to connections, at random.

    Two servers that start together would both take the first free one; and the port must stay
    free for a server that is killed and started again. By no seed: what is drawn after one (tests
    do) is drawn by others too.
    """
    while True:
        port = _LOT.randrange(*_PORTS)
        if is_free(port):
            return port


def is_free(port: int) -> bool:
    """Say whether nobody listens on a port."""
    with contextlib.suppress(OSError), socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((HOST, port))
        return True
    return False
