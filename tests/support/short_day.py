"""A zone whose clocks show what a test wants, so that a send window ends within seconds.

A window ends at a whole minute of its zone's clocks. A zone may be any number of seconds away from
UTC (RFC 9636, TZif: utoff is in seconds): so a file with one offset puts that minute where the test
needs it, and real workers find it by PYTHONTZPATH.
"""

import contextlib
import os
import struct
import zoneinfo
from collections.abc import Iterator
from pathlib import Path

_DAY_S = 86_400


@contextlib.contextmanager
def zone_showing(folder: Path, at_s: int, shows_s: int) -> Iterator[tuple[str, dict[str, str]]]:
    """Give the name of a zone, here and to processes with this environment.

    Args:
        folder: where its file may lie.
        at_s: a moment, epoch s.
        shows_s: seconds after midnight that its clocks show then.
    """
    name = f"Test/Shows{shows_s}At{at_s}"
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_zone_file((shows_s - at_s) % _DAY_S))
    searched = (str(folder), *zoneinfo.TZPATH)
    zoneinfo.reset_tzpath(searched)
    try:
        yield name, {"PYTHONTZPATH": os.pathsep.join(searched)}
    finally:
        zoneinfo.reset_tzpath()


def _zone_file(ahead_s: int) -> bytes:
    """Return a zone that is so far ahead of UTC, or behind, by at most half a day."""
    ahead_s -= _DAY_S if ahead_s > _DAY_S // 2 else 0
    hours, rest_s = divmod(abs(ahead_s), 3600)
    sign = "-" if ahead_s > 0 else "+"  # POSIX counts to the west
    footer = f"\n<SHORT>{sign}{hours}:{rest_s // 60:02}:{rest_s % 60:02}\n"
    names = b"SHORT\0"
    counts = struct.pack(">6l", 0, 0, 0, 0, 1, len(names))
    only = b"TZif2" + bytes(15) + counts + struct.pack(">lbb", ahead_s, 0, 0) + names
    return only + only + footer.encode()
