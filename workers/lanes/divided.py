"""Lanes that are divided while a keeper is at work: what concerns them comes again in a moment.

It is no failure, and what concerns the other lanes goes on.
"""

import contextlib
from collections.abc import Iterator
from typing import Final

from producers.errors import LaneDividedError
from producers.settings import Settings
from producers.store import deadline
from producers.store.lanes.fence import is_refusal

_ALLOWED_S: Final = 3.0
"""What a broadcast wants may take so long while lanes are added: a keeper's leases last longer."""


def is_divided(error: BaseException | None) -> bool:
    """Say whether an error means that a lane was divided, or is being divided."""
    if error is None:
        return False
    return isinstance(error, LaneDividedError) or is_refusal(error) or is_refusal(error.__cause__)


@contextlib.contextmanager
def not_waiting(settings: Settings) -> Iterator[None]:
    """Give a block that waits for no lane that is being divided: others wait for its thread."""
    if not settings.layout.towards:
        yield
        return
    with deadline.within(_ALLOWED_S, waits=False):
        yield


class Apart:
    """Does what lanes want apart from each other.

    Attributes:
        met: whether something was left undone, for its lane is being divided.
    """

    def __init__(self) -> None:
        self.met = False

    @contextlib.contextmanager
    def from_others(self) -> Iterator[None]:
        """Give a block that ends quietly where it meets such a lane."""
        try:
            yield
        except Exception as error:
            if not is_divided(error):
                raise
            self.met = True

    def end(self) -> None:
        """Say so, now that the rest is done.

        Raises:
            LaneDividedError: something is to be done again.
        """
        if self.met:
            raise LaneDividedError
