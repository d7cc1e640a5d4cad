"""Known defects, put back one at a time: what finds them is known to look.

A defect is a piece of a script's text and what stands in its place, or something of a Python module
and what stands in its place. `put_back` is the context in which the product has it again.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Final
from unittest import mock

from producers.store import scripts

Patch = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True)
class Defect:
    """One defect.

    Attributes:
        about: what went wrong, in one sentence.
        world: in which it is found.
        lua: what the text of scripts says → what it says with the defect. Wherever it stands,
            pieces that scripts include among it.
        python: a context in which something of Python has the defect.
    """

    about: str
    world: str
    lua: dict[str, str] = field(default_factory=dict)
    python: Patch = contextlib.nullcontext


class StaleDefectError(AssertionError):
    """No script has the text any more in whose place the defect would stand."""


@contextlib.contextmanager
def put_back(name: str) -> Iterator[None]:
    """Give the product a defect again; '' none.

    Raises:
        StaleDefectError: at the end, when a text that it replaces was in no script.
    """
    if not name:
        yield
        return
    defect = DEFECTS[name]
    whole, met = scripts.source, set[str]()

    def source(package: str, script: str) -> str:
        text = whole(package, script)
        for sound, broken in defect.lua.items():
            if sound in text:
                met.add(sound)
                text = text.replace(sound, broken)
        return text

    with mock.patch.object(scripts, "source", source), defect.python():
        yield
        if met != defect.lua.keys():
            raise StaleDefectError(f"{name}: {defect.lua.keys() - met}")


def replaced(target: object, name: str, by: object) -> Patch:
    """Return a patch that puts something in place of an attribute."""
    return lambda: mock.patch.object(target, name, by)


DEFECTS: Final = {
    "swap-sure": Defect(
        "a swap forgot that Redis may have forgotten: the next permit was thought unused",
        "restart-swap",
        lua={"member, expires, token, one.unsure and 1 or 0)": "member, expires, token, 0)"},
    ),
    "settled-by-anyone": Defect(
        "a settle did not look at the fence: who was thought dead settled what another one sent",
        "ci",
        lua={"or held.worker ~= worker or held.fence ~= token then": "then"},
    ),
}
