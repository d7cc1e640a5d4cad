"""Shadows: packages of the user's own that Python would import in place of ours.

Ours are called `producers` and `workers`. Where a directory that comes first holds one of the same
name, what was meant for ours goes to it, and nothing of ours runs that could say so. Only
`dramatiq` puts the current directory first, unless it is told ``--path``.
"""

import importlib.util
import os
from collections.abc import Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Final

_OURS: Final = Path(__file__).parents[2]
_NAMES: Final = ("producers", "workers")


def here(directory: Path) -> list[Path]:
    """Return what a directory has under our names, and is not ours."""
    return [path for name in _NAMES if (path := _found(name, str(directory)))]


def ahead(env: Mapping[str, str]) -> list[Path]:
    """Return what a process with this environment would import in place of ours, wherever it is.

    Of what was installed beside us, only when this process would import it too.
    """
    places = [place for place in env.get("PYTHONPATH", "").split(os.pathsep) if place]
    found = [path for place in places for path in here(Path(place))]
    installed = importlib.util.find_spec("workers")
    origin = Path(installed.origin) if installed and installed.origin else None
    if origin and not _is_ours("workers", origin) and origin.parent.parent != Path.cwd():
        found.append(_shown("workers", origin))
    return found


def _found(name: str, place: str) -> Path | None:
    spec = PathFinder.find_spec(name, [place])
    if spec is None or spec.origin is None:  # a folder without __init__.py hides nobody
        return None
    origin = Path(spec.origin)
    return None if _is_ours(name, origin) else _shown(name, origin)


def _is_ours(name: str, origin: Path) -> bool:
    return origin.resolve().parent == (_OURS / name).resolve()


def _shown(name: str, origin: Path) -> Path:
    """Return the package's folder, or the module's file."""
    return origin.parent if origin.parent.name == name else origin
