"""Subscriptions: what of a user's accepts is read outside of the scripts (see permit.lua)."""

from collections.abc import Mapping
from typing import Final

MOST_SUBSCRIPTIONS: Final = 1000
"""Fields of a user's accepts that one look reads. There are 50 at the most (collect.lua), but for
what an older layout left, whose fields with a colon are no templates."""


def withdrawn_at_ms(marks: Mapping[str, str]) -> dict[str, int]:
    """Return when each template was last withdrawn, by the user or by WeChat, from their marks."""
    return {
        template: int(mark.split(" ", 2)[1])
        for template, mark in marks.items()
        if not mark.startswith("0 0 ")
    }
