"""Plain: one command that writes to a key of a lane, and is refused where the lane was divided.

A lane that is being divided refuses scripts, and no commands (`fence`): what a command wrote after
its key was copied would be lost. So whatever writes to a key of a lane, and is no script of its
own, is this one.
"""

from typing import Final, Literal, NamedTuple

from producers.store.scripts import Script


class PlainKeys(NamedTuple):
    """KEYS of plain.lua; further ones that are to go come after it."""

    key: str


class PlainArgs(NamedTuple):
    """ARGV of plain.lua; what follows the key comes after it."""

    command: Literal["HSET", "HDEL", "UNLINK"]


PLAIN: Final = Script(__package__, "plain", PlainKeys, PlainArgs)
"""``PLAIN.on(client)(PlainKeys(key), PlainArgs("HSET"), [field, value])``.

Also ``into`` a pipeline, or as a `Call` in a trip; without a token, for each of its commands
changes nothing the second time.
"""
