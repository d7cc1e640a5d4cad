"""Shares: places that several apps fill, so that none can fill them all.

Each app may hold at most twice what is left free: alone two thirds of all places, and n apps that
all want more hold 2 / (2n + 1) each. So idle apps lend theirs without being asked, an app that
comes finds some free at once, however long the others hang, and nobody keeps a list of who wants
what. (The dynamic thresholds of switches that share a buffer; Choudhury and Hahne, 1998.) Where
there is one app alone, all is its own.
"""

from typing import Final

_LENT: Final = 2
"""Places of one app per free one."""


def share(places: int, others: int, *, alone: bool) -> int:
    """Return how many places one app may fill.

    Args:
        places: in all.
        others: filled by other apps.
        alone: there is no other app.
    """
    left = places - others
    if alone or left <= 0:
        return max(0, left)
    return max(1, left * _LENT // (_LENT + 1))


def worth(room: int, most: int, enough: int) -> int:
    """Return the room, or 0 while it is too little to be worth asking Redis.

    Args:
        room: places that one app may still fill.
        most: that it may fill in all.
        enough: what is worth it in any case.
    """
    return room if room >= max(1, min(enough, most // 8)) else 0
