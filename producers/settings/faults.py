"""Faults: what is wrong with settings, a sentence each; no value is said, for it may be secret."""

import difflib
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from producers.settings.app import AppSettings


def unknown(name: str, known: Iterable[str]) -> str:
    """Say what was perhaps meant by a name that is not known, and which are."""
    close = difflib.get_close_matches(name, known, 1)
    meant = f"did you mean {close[0]}? " if close else ""
    return f"unknown; {meant}known are {', '.join(known)}"


def wanted(message: str, field: FieldInfo | None) -> str:
    """Say what a field wants, of pydantic's message."""
    wants = f" (set: {field.description})" if field and field.description else ""
    return f"{message.removeprefix('Value error, ')}{wants}"


def of_app(loc: tuple[Any, ...], message: str) -> str:
    """Say what is wrong in an app: ``loc`` begins with the name of its field."""
    if str(loc[0]) not in AppSettings.model_fields:
        return unknown(str(loc[0]), AppSettings.model_fields)
    return wanted(message, AppSettings.model_fields[str(loc[0])])


def of_apps(error: ValidationError) -> list[str]:
    """Say what is wrong with apps that were validated by themselves: ``shop.secret: …``."""
    said = []
    for item in error.errors(include_input=False, include_url=False):
        alias, *loc = item["loc"]
        place = ".".join(str(part) for part in (alias, *loc) if part != "[key]")
        if "[key]" in loc:
            said.append(f"{place}: an alias is 1-32 of a-z, 0-9, - and _, a letter or digit first")
        elif loc:
            said.append(f"{place}: {of_app(tuple(loc), item['msg'])}")
        else:
            said.append(f"{place}: {wanted(item['msg'], None)}")
    return said
