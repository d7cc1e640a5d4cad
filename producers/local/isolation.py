"""Isolation: settings and environments that no variable of the shell can reach.

For deployments that are made on the spot and need no configuration: the demo, tests, benchmarks.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from producers.errors import SettingsError
from producers.settings import Settings, faults_of


class Isolated(Settings):
    """Settings that are made of what they are given, and of nothing else."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Leave the arguments as the only source."""
        return (init_settings,)


def isolated(fields: Mapping[str, Any]) -> Isolated:
    """Make settings of these fields.

    Raises:
        SettingsError: one is wrong or unknown; the message names the variable that it would be.
    """
    faults = [
        f"WXB_{name.upper()}: unknown; known are {', '.join(Settings.model_fields)}"
        for name in fields
        if name not in Settings.model_fields
    ]
    try:
        settings = Isolated(**fields)
    except ValidationError as error:
        faults += faults_of(error)
    else:
        if not faults:
            return settings
    raise SettingsError("\n".join(faults)) from None


def variables(fields: Mapping[str, Any]) -> dict[str, str]:
    """Return settings as the WXB_ variables that a process reads.

    Args:
        fields: values by the fields of `Settings`, JSON-ready.
    """
    return {
        f"WXB_{name.upper()}": value if isinstance(value, str) else orjson.dumps(value).decode()
        for name, value in fields.items()
    }


def environment(fields: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Return the shell's environment with WXB_ variables of these fields only."""
    clean = {name: text for name, text in os.environ.items() if not name.startswith("WXB_")}
    bin_dir = str(Path(sys.executable).parent)
    clean["PATH"] = os.pathsep.join((bin_dir, clean.get("PATH", os.defpath)))
    return clean | variables(fields or {})
