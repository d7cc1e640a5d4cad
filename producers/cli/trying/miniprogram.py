"""``wxbroadcast miniprogram``: the script for phones, and a sample around it, as files."""

from collections.abc import Iterator
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Final

import typer

from producers.cli.options import AsJson
from producers.cli.session import guarded, print_json, say

_SCRIPT: Final = "push-code.js"
_ABOUT: Final = "README.md"
"""Tells of the folder here; a mini-program has nothing to do with it."""


def miniprogram(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where they go; it is made if there is none.")
    ],
    script: Annotated[
        bool, typer.Option("--script", help="push-code.js alone, for a mini-program of your own.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Copy push-code.js and the sample mini-program into a folder.

    The folder opens in WeChat's devtools as it stands. A file that is there already, and differs,
    is not overwritten without --force; then nothing at all is written.
    """
    with guarded(as_json=as_json):
        from importlib.resources import files

        from producers.errors import InvalidInputError

        found = dict(_files(files("producers") / "miniprogram"))
        wanted = {name: text for name, text in found.items() if name == _SCRIPT or not script}
        try:
            taken = [name for name, text in wanted.items() if _differs(folder / name, text)]
            if taken and not force:
                hint = "" if script else f", or --script: {_SCRIPT} alone"
                raise InvalidInputError(
                    [
                        f"{folder / name} is there already: --force overwrites{hint}"
                        for name in taken
                    ]
                )
            for name, text in wanted.items():
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(text)
        except OSError as error:
            where = error.filename or folder
            raise InvalidInputError([f"cannot write {where}: {error.strerror}"]) from error
        if as_json:
            print_json({"folder": str(folder), "files": sorted(wanted)})
        else:
            for name in sorted(wanted):
                typer.echo(folder / name)
            say("next: pushCode.start({url, app}) in app.js names your service; see the README")


def _files(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, bytes]]:
    """Yield the path within the folder, and the content, of each file below it."""
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _files(entry, f"{prefix}{entry.name}/")
        elif entry.name != _ABOUT:
            yield f"{prefix}{entry.name}", entry.read_bytes()


def _differs(path: Path, text: bytes) -> bool:
    """Say whether something else is there."""
    return path.exists() and not (path.is_file() and path.read_bytes() == text)
