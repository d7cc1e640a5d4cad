"""Paging: a script that walks something large, a page each run, so that none holds Redis for long.

Its answer begins with the cursor of the next page, '0' after the last one.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any


def pages(run: Callable[[str], Sequence[Any]]) -> Iterator[list[Any]]:
    """Yield what each page answers beyond its cursor.

    Args:
        run: runs the script for a cursor; what it raises ends the walk.
    """
    cursor = "0"
    while True:
        cursor, *answer = run(cursor)
        yield answer
        if cursor == "0":
            return


def sums(run: Callable[[str], Sequence[Any]]) -> list[int]:
    """Walk all pages; return the sums of the numbers that they answer."""
    return [sum(column) for column in zip(*(map(int, one) for one in pages(run)), strict=True)]
