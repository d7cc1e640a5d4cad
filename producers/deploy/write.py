"""Writing: the files of one kind go into a folder; what somebody changed there stays."""

import os
from importlib.metadata import version
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

from producers.errors import InvalidInputError

KINDS: Final = ("compose", "kubernetes", "systemd", "observability")
"""Folders of this room, each a kind of files."""

_IMAGE: Final = ("Dockerfile", "Dockerfile.dockerignore", "wheels/README.txt")

_BROUGHT: Final = {
    "observability": {"prometheus/alerts.yml": "producers.metrics:alerts.yml"},
    "kubernetes": {name: f"producers.deploy:compose/{name}" for name in _IMAGE},
}
"""Files that go with a kind and lie elsewhere: where they go → package and path."""

_VERSION: Final = "@VERSION@"
"""Stands in files for the version that wrote them."""


def write(kind: str, folder: Path, *, overwrite: bool = False) -> list[Path]:
    """Write the files of a kind.

    Args:
        kind: one of `KINDS`.
        folder: where to; made if it is not there.
        overwrite: write over files that are there and differ.

    Returns:
        The files, whether they were written now or were there as they should be.

    Raises:
        InvalidInputError: no such kind, something else is there, or they cannot be written.
    """
    if kind not in KINDS:
        raise InvalidInputError([f"{kind}: take one of {', '.join(KINDS)}"])
    texts = dict(_texts(files(__package__).joinpath(kind), ""))
    for name, where in _BROUGHT.get(kind, {}).items():
        room, _, place = where.partition(":")
        texts[name] = files(room).joinpath(place).read_text("utf-8")
    ours = version("wxbroadcast")
    texts = {name: text.replace(_VERSION, ours) for name, text in texts.items()}
    try:
        if faults := _in_the_way(folder, texts, overwrite=overwrite):
            raise InvalidInputError(faults)
        for name, text in texts.items():
            if not _is_there(folder / name, text):
                _put(folder / name, text)
    except OSError as error:
        raise InvalidInputError([f"cannot write {folder}: {error}"]) from error
    return [folder / name for name in sorted(texts)]


def _texts(folder: Traversable, above: str) -> list[tuple[str, str]]:
    """Return (path, text) of each file below a folder."""
    found = []
    for one in folder.iterdir():
        name = f"{above}{one.name}"
        if one.is_dir():
            found += _texts(one, f"{name}/")
        elif not one.name.endswith((".py", ".pyc")):
            found.append((name, one.read_text("utf-8")))
    return found


def _in_the_way(folder: Path, texts: dict[str, str], *, overwrite: bool) -> list[str]:
    """Return what keeps the files from being written, before any of them is."""
    above = {folder, *folder.parents, *((folder / name).parent for name in texts)}
    faults = [
        f"{path}: it is no folder; move it away, or name another one"
        for path in sorted(above)
        if os.path.lexists(path) and not path.is_dir()
    ]
    if faults:
        return faults
    for path, text in ((folder / name, text) for name, text in sorted(texts.items())):
        if not os.path.lexists(path):
            continue
        if path.is_dir():
            faults.append(f"{path}: it is a folder; move it away")
        elif not overwrite and not _is_there(path, text):
            faults.append(f"{path}: it is there and differs; --overwrite replaces it")
    return faults


def _is_there(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode()


def _put(path: Path, text: str) -> None:
    """Write a file whole, in the place of a link too: what that leads to stays as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.wxbroadcast")
    new.write_text(text, encoding="utf-8")
    new.replace(path)
