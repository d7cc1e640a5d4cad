"""A plugin of pytest: notes what each test touches, or runs the tests of a list in its order.

With ``MUTANTS_NOTES=FILE`` the lines of modules and the scripts that each test ran, and its time;
with ``MUTANTS_ORDER=FILE`` only the tests named there, as they stand. ``MUTANTS_CLUSTER=URL`` is a
cluster to use.
"""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import coverage
import pytest

from .mutant import ROOT

BEFORE: Final = "."
"""What runs before any test: imports."""


class Notes:
    """Watches a run, and writes down at its end what each test touched."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._seconds: dict[str, float] = {}
        self._failed: set[str] = set()
        self._scripts: dict[str, set[str]] = {}
        self._test = BEFORE
        self._coverage = coverage.Coverage(
            data_file=None, include=[str(ROOT / "workers" / "*")], messages=False
        )
        self._coverage.start()
        self._watch_scripts()

    def _watch_scripts(self) -> None:
        from producers.store import scripts  # noqa: PLC0415 (after coverage began)

        notes, read, make = self, scripts.source, scripts.Bound.__init__
        making: list[bool] = []

        def source(package: str, name: str) -> str:
            if not making:  # a script is read for each client, and used by few
                notes.ran(package, name)
            return read(package, name)

        def bound(self: Any, script: Any, *args: Any, **more: Any) -> None:
            making.append(True)
            make(self, script, *args, **more)
            making.pop()
            self.noted = (script.package, script.name)

        scripts.source = source
        scripts.Bound.__init__ = bound  # type: ignore[method-assign]
        ask = scripts.Bound.argv

        def argv(self: Any, *args: Any, **more: Any) -> Any:
            notes.ran(*self.noted)
            return ask(self, *args, **more)

        scripts.Bound.argv = argv  # type: ignore[method-assign]

    def ran(self, package: str, name: str) -> None:
        """Note a script of the test that runs."""
        path = f"{package.replace('.', '/')}/{name}.lua"
        self._scripts.setdefault(self._test, set()).add(path)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._test = item.nodeid
        self._coverage.switch_context(item.nodeid)
        began = time.monotonic()
        result = yield
        self._seconds[item.nodeid] = round(time.monotonic() - began, 3)
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.passed:
            self._failed.add(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        self._coverage.stop()
        data = self._coverage.get_data()
        lines: dict[str, dict[str, list[int]]] = {}
        for path in data.measured_files():
            name = str(Path(path).relative_to(ROOT))
            for line, contexts in data.contexts_by_lineno(path).items():
                for context in contexts:
                    lines.setdefault(context or BEFORE, {}).setdefault(name, []).append(line)
        notes = {
            test: {
                "seconds": self._seconds.get(test, 0.0),
                "scripts": sorted(self._scripts.get(test, ())),
                "lines": lines.get(test, {}),
            }
            for test in (BEFORE, *self._seconds)
            if test not in self._failed
        }
        self._file.write_text(json.dumps(notes))


class Order:
    """Keeps the tests of a list, in its order, whatever else was collected."""

    def __init__(self, names: list[str]) -> None:
        self._place = {name: at for at, name in enumerate(names)}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        chosen = [item for item in items if item.nodeid in self._place]
        items[:] = sorted(chosen, key=lambda item: self._place[item.nodeid])


def pytest_configure(config: pytest.Config) -> None:
    """Take what the environment asks for."""
    if "MUTANTS_NOTES" in os.environ:
        config.pluginmanager.register(Notes(Path(os.environ["MUTANTS_NOTES"])), "notes")
    if "MUTANTS_CLUSTER" in os.environ:
        _share(config, os.environ["MUTANTS_CLUSTER"])
    if "MUTANTS_ORDER" in os.environ:
        names = json.loads(Path(os.environ["MUTANTS_ORDER"]).read_bytes())
        config.pluginmanager.register(Order(names), "order")


def _share(config: pytest.Config, url: str) -> None:
    """Let the run use a cluster that is there: one of its own takes two seconds to be ready."""
    for plugin in config.pluginmanager.get_plugins():
        if hasattr(plugin, "cluster_of_one"):  # tests/conftest.py
            plugin.cluster_of_one = lambda _: contextlib.nullcontext(url)
