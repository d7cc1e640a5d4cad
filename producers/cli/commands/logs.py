"""``wxbroadcast logs``: log lines, readable."""

import os
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from producers.cli.session import guarded

_LEVELS = ("debug", "info", "warning", "error", "critical")
_COLOURS = {
    "warning": typer.colors.YELLOW,
    "error": typer.colors.RED,
    "critical": typer.colors.RED,
    "delivered": typer.colors.GREEN,
    "in_doubt": typer.colors.MAGENTA,
    "failed": typer.colors.RED,
}


def logs(
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="[LOGS…]", help="Files, patterns, or - for stdin, as by default."),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes.")] = False,
    app: Annotated[str | None, typer.Option("--app", "-a", help="Only of this app.")] = None,
    broadcast: Annotated[
        str | None, typer.Option("--broadcast", "-b", help="Only of this broadcast.")
    ] = None,
    openid: Annotated[str | None, typer.Option(help="Only of this user.")] = None,
    outcome: Annotated[
        str | None, typer.Option(help="Only sends that ended so: delivered,refused.")
    ] = None,
    event: Annotated[str | None, typer.Option(help="Only these events: limit_hit,gate_*.")] = None,
    level: Annotated[
        str, typer.Option(metavar="|".join(_LEVELS), help="Of this level or above.")
    ] = "debug",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the lines as they are, for another program.")
    ] = False,
) -> None:
    """Show log lines for people: coloured on a terminal, and only those that you ask for."""
    with guarded(as_json=False):
        import orjson

        from producers.errors import InvalidInputError
        from producers.reports.tail import followed, lines_of

        if level not in _LEVELS:
            raise InvalidInputError([f"level {level!r}: take one of {', '.join(_LEVELS)}"])
        if not files and sys.stdin.isatty():
            raise InvalidInputError(["logs: name files, or pipe lines in: wxbroadcast up | …"])
        wanted = _Wanted(
            {"app": app, "broadcast": broadcast, "openid": openid},
            _words(outcome),
            _words(event),
            _LEVELS.index(level),
        )
        colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        named = files or ["-"]
        for raw in followed(named) if follow else lines_of(named):
            start = raw.find(b"{")
            try:
                line = orjson.loads(raw[start:]) if start >= 0 else None
            except orjson.JSONDecodeError:
                line = None
            if not isinstance(line, dict) or not wanted.holds(line):
                continue
            text = raw.decode("utf-8", "replace") if as_json else _text(line, colour=colour)
            sys.stdout.write(text + "\n")
            if follow:
                sys.stdout.flush()


class _Wanted:
    """What a line must be."""

    def __init__(
        self,
        same: Mapping[str, str | None],
        outcomes: list[str],
        events: list[str],
        level: int,
    ) -> None:
        self._same = {name: value for name, value in same.items() if value is not None}
        self._outcomes = outcomes
        self._events = events
        self._levels = _LEVELS[level:]

    def holds(self, line: Mapping[str, Any]) -> bool:
        """Say whether a line is wanted."""
        from fnmatch import fnmatchcase

        event = str(line.get("event", ""))
        return (
            line.get("level", "info") in self._levels
            and all(line.get(name) == value for name, value in self._same.items())
            and (not self._outcomes or line.get("outcome") in self._outcomes)
            and (not self._events or any(fnmatchcase(event, one) for one in self._events))
        )


def _words(text: str | None) -> list[str]:
    return [one.strip() for one in (text or "").split(",") if one.strip()]


def _text(line: Mapping[str, Any], *, colour: bool) -> str:
    from producers.logs import spoken

    if not colour:
        return spoken.spoken(line)
    at, level, process, event = spoken.head(line)
    tone = _COLOURS.get(str(line.get("outcome", ""))) or _COLOURS.get(level)
    who = typer.style(f"{at} {process}", dim=True)
    return f"{who} {typer.style(event, fg=tone, bold=True)} {spoken.fields(line)}"
