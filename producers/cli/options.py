"""Options that several commands share, and what people write in them: durations, data."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final

import typer

from producers.errors import InvalidInputError

AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object as the last line on stdout.")
]
App = Annotated[str, typer.Option("--app", "-a", help="Alias of the app, a key of WXB_APPS.")]
WHOM: Final = 'To whom: an audience, `all`, or several: "vip & active - churned", "(a | b) - c".'
"""Help of --audience."""
File = Annotated[str, typer.Argument(metavar="FILE", help="Path of the file, or - for stdin.")]
BroadcastId = Annotated[
    str, typer.Argument(metavar="ID", help="Id of the broadcast, as `broadcast` printed it.")
]

_SHORT: Final = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_UNIT: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def duration(text: str) -> timedelta:
    """Read ``90s``, ``30m``, ``2h``, ``1d``, or ISO 8601 (``PT2H30M``).

    ISO 8601 is read by pydantic; the short ones by no library that is kept.

    Raises:
        InvalidInputError: it is none of these.
    """
    from pydantic import TypeAdapter, ValidationError

    text = text.strip()
    try:
        if short := _SHORT.fullmatch(text):
            return timedelta(**{_UNIT[short[2]]: float(short[1])})
        if text.upper().startswith("P"):
            return TypeAdapter(timedelta).validate_python(text.upper())
    except (OverflowError, ValidationError):
        pass  # longer than anything lives, or not ISO 8601
    raise InvalidInputError([f"{text!r} is no duration: 90s, 30m, 2h, 1d or ISO 8601 (PT2H30M)"])


def read_data(text: str | None, file: Path | None) -> str:
    """Return the data of a broadcast, from one of ``--data`` and ``--data-file``.

    Raises:
        InvalidInputError: both are given, or none, or the file cannot be read.
    """
    if (text is None) == (file is None):
        raise InvalidInputError(["data: give one of --data and --data-file"])
    if file is None:
        return text or ""
    try:
        return file.read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError([f"cannot read {file}: {error}"]) from error
