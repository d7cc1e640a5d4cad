"""Puts a mutant in place: the code's files stay as they are, and what reads one gets another text.

Run by ``hook/sitecustomize.py`` in the tests' process and in every unit, service and command that
they start, for they inherit its way in the environment; whoever builds an environment anew gets it
there too. Nothing but the standard library, so that it costs a start nothing.

``MUTANT`` names a JSON file: ``path``, absolute, and ``text``, what is read in its place.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

HOOK: Final = str(Path(__file__).parent / "hook")


class _Text(importlib.machinery.SourceFileLoader):
    """Loads the changed module, without the byte code that lies beside the unchanged one."""

    def __init__(self, name: str, path: str, text: str) -> None:
        super().__init__(name, path)
        self._text = text

    def get_code(self, fullname: str) -> Any:  # noqa: ARG002 (its base has it)
        return compile(self._text, self.path, "exec", dont_inherit=True)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the one module that is changed."""

    def __init__(self, path: str, text: str) -> None:
        self._path, self._text = path, text

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,  # noqa: ARG002 (its base has it)
    ) -> importlib.machinery.ModuleSpec | None:
        end = f"{os.sep}{fullname.replace('.', os.sep)}.py"
        if not self._path.endswith(end) or path is None:
            return None
        loader = _Text(fullname, self._path, self._text)
        return importlib.util.spec_from_file_location(fullname, self._path, loader=loader)


def install(path: str, text: str) -> None:
    """Let this process, and those that it starts, read `text` where `path` lies.

    Args:
        path: a ``.py`` or a ``.lua`` file, absolute.
        text: what it holds for them.
    """
    sys.meta_path.insert(0, _Finder(path, text))
    read = Path.read_text

    def read_text(self: Path, *args: Any, **more: Any) -> str:
        return text if str(self) == path else read(self, *args, **more)

    Path.read_text = read_text  # type: ignore[method-assign]


def inherit() -> None:
    """Give the change to what is started in an environment of its own, too."""
    start = subprocess.Popen.__init__

    def started(self: Any, *args: Any, **more: Any) -> None:
        env = more.get("env")
        if env is not None:
            known = env.get("PYTHONPATH", "").split(os.pathsep)
            way = known if HOOK in known else [HOOK, *known]
            more["env"] = {
                **env,
                "MUTANT": os.environ["MUTANT"],
                "PYTHONPATH": os.pathsep.join(place for place in way if place),
            }
        start(self, *args, **more)

    subprocess.Popen.__init__ = started  # type: ignore[method-assign]


if __name__ == "overlay":
    _given = json.loads(Path(os.environ["MUTANT"]).read_bytes())
    inherit()
    if _given["path"]:
        install(_given["path"], _given["text"])
