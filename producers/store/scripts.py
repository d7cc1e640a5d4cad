"""Lua scripts: ``name.lua`` beside ``name.py``, read once, with the pieces they share put in.

A line ``--@include room/name`` is replaced by ``producers/room/name.lua``. Every script that pops,
claims or counts carries a token chosen by the caller, and the same token again returns the first
answer; so a caller whose reply was lost simply asks again, and redis-py's own retries stay off.

A script that stops something, settles what was sent or frees memory begins with
``#!lua flags=allow-oom``: it runs on a Redis that is full. One that stores something begins with
``#!lua``, and is then refused before it writes anything; without that line Redis looks at its first
write alone, which may be one that frees (Redis docs, Lua API: script flags).
"""

import re
import uuid
from functools import cache
from importlib.resources import files
from typing import Final

_INCLUDE: Final = re.compile(r"^--@include ([\w/]+)$", re.MULTILINE)


@cache
def source(package: str, name: str) -> str:
    """Return the text of ``package/name.lua`` with its includes in place.

    Args:
        package: import package that holds the script; a module's own is ``__package__``.
        name: the script's name, without ``.lua``.
    """
    text = files(package).joinpath(f"{name}.lua").read_text("utf-8")
    return _INCLUDE.sub(
        lambda match: files("producers").joinpath(f"{match[1]}.lua").read_text("utf-8"), text
    )


def new_token() -> str:
    """Return a token that no other call has."""
    return uuid.uuid4().hex
