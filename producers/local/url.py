"""The URL of an embedded Valkey: whose it is, and what to start when nobody answers there.

It ends with ``#`` and the data directory, which no client reads; so whoever still has it after the
server's end knows what to start. It lies in the file `url` of the directory, and so does what the
next start needs to have the same: the port, unless somebody else has it by then, and the password.
"""

import contextlib
import fcntl
import secrets
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from producers.local.ports import HOST, free_port, is_free

DATA_DIR: Final = ".wxbroadcast"
"""The data directory of `wxbroadcast up`, in the current one."""


def url_of(data_dir: Path, port: int, password: str) -> str:
    """Return the URL of the directory's server at a port; the password is in it."""
    return f"redis://:{password}@{HOST}:{port}/0#{quote(str(data_dir.resolve()))}"


def url_file(data_dir: Path) -> Path:
    """Return the file that holds the URL of the directory's server, for other commands."""
    return data_dir / "url"


def is_of(url: str, data_dir: Path) -> bool:
    """Say whether a URL is none at all, or that of the directory's own server."""
    return not url or directory_of(url) == data_dir.resolve()


def directory_of(url: str) -> Path | None:
    """Return the data directory of an embedded Valkey's URL; None for any other URL."""
    try:
        parts = urlsplit(url)
    except ValueError:  # the settings say what is wrong with it
        return None
    return Path(unquote(parts.fragment)) if parts.hostname == HOST and parts.fragment else None


def what_ended(url: str) -> str:
    """Return a sentence on the embedded Valkey that was at a URL; '' if it answers, or is none."""
    directory = directory_of(url)
    port = urlsplit(url).port if directory else None
    if directory is None or port is None or not is_free(port):
        return ""
    by_default = directory.name == DATA_DIR
    command = "wxbroadcast up" if by_default else f"wxbroadcast up --data-dir {directory}"
    where = f" in {directory.parent}" if by_default else ""
    nothing = f"nothing answers at {HOST}:{port}"
    if _is_locked(directory):
        return f"{nothing}: `{command}`{where} is starting its Valkey; try again in a moment"
    return f"{nothing}: that was `{command}`{where}; start it again"


def known(data_dir: Path) -> tuple[int, str]:
    """Return the port and the password that a directory's server had, or new ones."""
    try:
        parts = urlsplit(url_file(data_dir).read_text().strip())
        port, password = parts.port, parts.password
    except (OSError, ValueError):
        port = password = None
    if port is None or not is_free(port):
        port = free_port()
    return port, password or secrets.token_urlsafe(24)


def _is_locked(data_dir: Path) -> bool:
    """Say whether whoever runs the directory's server is still there."""
    with contextlib.suppress(OSError), (data_dir / "lock").open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
