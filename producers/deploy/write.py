"""Writing: the files of one kind go into a folder; what somebody changed there stays."""

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
        InvalidInputError: no such kind, files that differ are there, or they cannot be written.
    """
    if kind not in KINDS:
        raise InvalidInputError([f"{kind}: take one of {', '.join(KINDS)}"])
    texts = dict(_texts(files(__package__).joinpath(kind), ""))
    for name, where in _BROUGHT.get(kind, {}).items():
        room, _, place = where.partition(":")
        texts[name] = files(room).joinpath(place).read_text("utf-8")
    ours = version("wxbroadcast")
    texts = {name: text.replace(_VERSION, ours) for name, text in texts.items()}
    if not overwrite and (differing := _differing(folder, texts)):
        faults = [f"{path}: it is there and differs; --overwrite replaces it" for path in differing]
        raise InvalidInputError(faults)
    try:
        for name, text in texts.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
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


def _differing(folder: Path, texts: dict[str, str]) -> list[Path]:
    """Return the files that are there and hold something else."""
    return [
        folder / name
        for name, text in texts.items()
        if (folder / name).exists()
        and (not (folder / name).is_file() or (folder / name).read_bytes() != text.encode())
    ]
