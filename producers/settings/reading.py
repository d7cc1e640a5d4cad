"""Reading the settings, and saying of each fault which variable it is and what it wants."""

import json
import os
from pathlib import Path
from typing import Final

from dotenv import dotenv_values
from pydantic import ValidationError
from pydantic_settings import SettingsError as SourceError

from producers import logs
from producers.errors import SettingsError
from producers.logs.events import SettingsLinksIgnored
from producers.logs.processors import Processor, imported
from producers.settings import faults as told
from producers.settings.links import links
from producers.settings.tree import APPS_FILE, PREFIX, Settings

_NAMED: Final = 20
"""Variables that one line names."""


def load(env_file: str | Path = ".env") -> Settings:
    """Read the settings from the environment and a ``.env`` file; the environment wins.

    Variables that Kubernetes sets for its Services are left out, with a line that names them.

    Args:
        env_file: path of the file; it may be absent.

    Raises:
        SettingsError: something is missing, wrong or unknown; the message names each variable
            and what to set.
    """
    try:
        from_file = dotenv_values(env_file) if Path(env_file).is_file() else {}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{env_file}: cannot be read as UTF-8 text ({error})") from None
    ignored = links(os.environ, PREFIX)
    if ignored:
        logs.emit(SettingsLinksIgnored(len(ignored), ", ".join(ignored[:_NAMED])))
    given = (*(os.environ.keys() - ignored), *from_file)
    names = {name.upper() for name in given if name.upper().startswith(PREFIX)}
    known = tuple(f"{PREFIX}{field.upper()}" for field in Settings.model_fields)
    faults = [
        f"{name}: {told.unknown(name, known)}"
        for name in sorted(names)
        if name not in known and not name.startswith(f"{PREFIX}APPS__")
    ]
    try:
        settings = Settings(_env_file=env_file)
    except ValidationError as error:
        faults += faults_of(error)
    except SourceError as error:
        nested = {**from_file, **os.environ}
        raise SettingsError(
            "\n".join(
                f'{name}: not JSON; lists and objects are written as JSON, such as ["a", "b"]'
                for name in sorted(names)
                if name.startswith(f"{PREFIX}APPS") and _is_broken_json(nested.get(name))
            )
            or f"{PREFIX}APPS: not JSON ({error.__cause__ or error})"
        ) from None
    else:
        if not faults:
            return settings
    raise SettingsError("\n".join(faults)) from None


def import_log_processors(settings: Settings) -> list[Processor]:
    """Return the application's log processors.

    Raises:
        SettingsError: one of them cannot be imported.
    """
    try:
        return imported(settings.log_processors)
    except ValueError as error:
        raise SettingsError(f"{PREFIX}LOG_PROCESSORS: {error}") from error


def faults_of(error: ValidationError) -> list[str]:
    """Return one sentence for each fault of settings: the variable, and what it wants."""
    return [
        sentence
        for item in error.errors(include_input=False, include_url=False)
        for sentence in _fault(item["loc"], item["msg"], item["type"])
    ]


def _is_broken_json(value: str | None) -> bool:
    """Say whether a variable looks like what must be JSON and is not."""
    try:
        json.loads(value or "")
    except json.JSONDecodeError:
        return True
    return False


def _fault(loc: tuple[int | str, ...], message: str, kind: str) -> list[str]:
    """Name the variable of a validation fault, and say what it wants; never its value."""
    if kind == APPS_FILE:
        return [f"{PREFIX}APPS_FILE: {line}" for line in message.splitlines()]
    variable = PREFIX + "__".join(str(part).upper() for part in loc if part != "[key]")
    if len(loc) > 2 and loc[0] == "apps":
        return [f"{variable}: {told.of_app(loc[2:], message)}"]
    field = Settings.model_fields.get(str(loc[0])) if loc else None
    return [f"{variable}: {told.wanted(message, field)}"]
