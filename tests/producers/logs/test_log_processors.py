"""Log processors: what the application does to each line; one that fails never ends the sending."""

import logging
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
import structlog
from log_lines import recorded, untouched_logging

from producers.errors import SettingsError
from producers.logs import lines as logs
from producers.logs import processors as log_processors
from producers.logs.events import BroadcastMoved, LimitLifted, StoreUnreachable
from producers.settings import Settings, import_log_processors

Line = MutableMapping[str, Any]

MOVED = BroadcastMoved("shop", "b1", "pause", "paused", 2, "", 0)


def with_region(_logger: Any, _level: str, line: Line) -> Line:
    line["region"] = "cn-north"
    return line


def without_limits(_logger: Any, _level: str, line: Line) -> Line:
    if line["event"] == "limit_lifted":
        raise structlog.DropEvent
    return line


def broken_at_moves(_logger: Any, _level: str, line: Line) -> Line:
    if line["event"] == "broadcast_moved":
        raise KeyError("token=abcdef")
    return line


# -- what they do -----------------------------------------------------------------------------


def test_a_processor_adds_a_field_to_events_and_library_lines(tmp_path: Path) -> None:
    with recorded(tmp_path, processors=[with_region]) as read:
        logs.emit(MOVED)
        logging.getLogger("dramatiq").warning("trouble")
        lines = read()
    assert [(line["event"], line["region"]) for line in lines] == [
        ("broadcast_moved", "cn-north"),
        ("library_line", "cn-north"),
    ]
    assert lines[0] == {**lines[0], "app": "shop", "process": "test", "level": "info", "schema": 1}


def test_each_gets_what_the_one_before_it_returned(tmp_path: Path) -> None:
    seen = []

    def other(logger: Any, level: str, line: Line) -> dict[str, Any]:
        seen.append((logger, level, dict(line)))
        return {"event": line["event"], "only": line["region"]}

    with recorded(tmp_path, processors=[with_region, other]) as read:
        logs.emit(StoreUnreachable("x", "TimeoutError", 1))
        lines = read()
    assert lines == [{"event": "store_unreachable", "only": "cn-north"}]
    ((logger, level, line),) = seen
    assert (logger, level) == (None, "warning")
    assert {"event", "level", "process", "time", "schema", "during"} <= line.keys()


def test_a_line_that_a_processor_drops_is_no_lost_line(tmp_path: Path) -> None:
    with recorded(tmp_path, processors=[without_limits]) as read:
        logs.emit(LimitLifted("shop"))
        logs.emit(MOVED)
        logs.emit(LimitLifted("shop"))
        lines = read()
    assert [line["event"] for line in lines] == ["broadcast_moved"]
    assert "dropped_lines" not in lines[0]


def test_configuring_again_forgets_them(tmp_path: Path) -> None:
    with recorded(tmp_path, processors=[with_region]):
        logs.configure("anew", descriptor=logs._state["writer"]._descriptor)
        logs.emit(MOVED)
        logs.close()
    assert b"region" not in (tmp_path / "log").read_bytes()


# -- when they fail ---------------------------------------------------------------------------


def test_one_that_raises_costs_its_lines_is_told_once_and_ends_nobody(tmp_path: Path) -> None:
    with recorded(tmp_path, processors=[with_region, broken_at_moves]) as read:
        for _ in range(5):
            logs.emit(MOVED)
        logs.emit(LimitLifted("shop"))
        lines = read()
    told = [line for line in lines if line["event"] == "log_processor_failed"]
    assert [(line["level"], line["processor"], line["line"]) for line in told] == [
        ("error", "broken_at_moves", "broadcast_moved")
    ]
    assert told[0]["error"].startswith("KeyError: ")
    assert "abcdef" not in told[0]["error"]
    assert [line["app"] for line in lines if line["event"] == "limit_lifted"] == ["shop"]
    assert "broadcast_moved" not in [line["event"] for line in lines]
    assert sum(line.get("dropped_lines", 0) for line in lines) == 5


def test_each_event_that_it_fails_at_is_told(tmp_path: Path) -> None:
    def broken(_logger: Any, _level: str, line: Line) -> Line:
        raise RuntimeError(line["event"])

    with recorded(tmp_path, processors=[broken]) as read:
        for _ in range(3):
            logs.emit(MOVED)
            logs.emit(LimitLifted("shop"))
        lines = [line for line in read() if line["event"] == "log_processor_failed"]
    assert sorted(line["line"] for line in lines) == ["broadcast_moved", "limit_lifted"]


@pytest.mark.parametrize(
    ("returned", "processor"),
    [
        (None, "processor"),
        (b"{}", "processor"),
        ({("a", "b"): 1}, "the renderer"),
    ],
)
def test_what_is_no_line_is_a_failure(tmp_path: Path, returned: Any, processor: str) -> None:
    def processor_(_logger: Any, _level: str, _line: Line) -> Any:
        return returned

    processor_.__qualname__ = "processor"
    with recorded(tmp_path, processors=[processor_]) as read:
        logs.emit(MOVED)
        lines = read()
    assert [line["processor"] for line in lines if "processor" in line] == [processor]
    assert sum(line.get("dropped_lines", 0) for line in lines) == 1


def test_what_a_processor_logs_itself_goes_past_it(tmp_path: Path) -> None:
    def talkative(_logger: Any, _level: str, line: Line) -> Line:
        logging.getLogger("mine").warning("I saw %s", line["event"])
        line["seen"] = True
        return line

    with recorded(tmp_path, processors=[talkative]) as read:
        logs.emit(MOVED)
        lines = read()
    assert [(line["event"], line.get("seen"), line.get("message")) for line in lines] == [
        ("library_line", None, "I saw broadcast_moved"),
        ("broadcast_moved", True, None),
    ]


# -- by a setting -----------------------------------------------------------------------------


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module of the application, of a name that no other test uses."""
    path = tmp_path / "shop_log_lines.py"
    path.write_text("NOTHING = 1\ndef first(a, b, line): return line\nsecond = first\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield path
    sys.modules.pop(path.stem, None)


def test_a_setting_names_processors(
    own_module: Path, make_settings: Callable[..., Settings]
) -> None:
    names = f"{own_module.stem}:first, {own_module.stem}:second"
    found = import_log_processors(make_settings(log_processors=names))
    assert found == [sys.modules[own_module.stem].first] * 2
    assert import_log_processors(make_settings()) == []


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no_such_module_of_ours:x", "ModuleNotFoundError"),
        ("shop_log_lines:absent", "AttributeError"),
        ("shop_log_lines:NOTHING", "not callable"),
    ],
)
def test_what_cannot_be_imported_is_named(
    own_module: Path, make_settings: Callable[..., Settings], name: str, why: str
) -> None:
    with pytest.raises(SettingsError, match=f"WXB_LOG_PROCESSORS: {name}.*{why}"):
        import_log_processors(make_settings(log_processors=name))


# -- an application that has configured structlog itself --------------------------------------


def run_fresh(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=25,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_host_that_configured_structlog_gets_all_lines_its_own_way() -> None:
    out = run_fresh(
        """
        import logging, structlog
        from producers import logs
        from producers.logs.events import LimitLifted

        def mine(_logger, level, line):
            return f"mine {level} {sorted(line.items())}"

        structlog.configure(processors=[mine], logger_factory=structlog.PrintLoggerFactory())
        logs.configure_unless_hosted("worker-1")
        assert logging.getLogger().handlers == []
        logs.emit(LimitLifted("shop"))
        logs.configure("worker-1")  # who asks for ours gets ours
        logs.emit(LimitLifted("shop"))
        """
    )
    first, second = out.splitlines()
    assert first == "mine info [('app', 'shop'), ('event', 'limit_lifted')]"
    assert second.startswith("{")


def test_our_own_configuration_is_no_hosts(tmp_path: Path) -> None:
    with recorded(tmp_path):
        logs.silence()
        logs.configure_unless_hosted("again")
        assert "writer" in logs._state
        logs.configure_unless_hosted("again", [with_region])
        assert logs._state["chain"][1]._processors == (with_region,)


def test_a_hosts_processor_that_raises_is_told_once_and_ends_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(_logger: Any, _level: str, _line: Line) -> Line:
        raise RuntimeError("no such field")

    with untouched_logging():
        logs._state.clear()
        logs._told.clear()
        structlog.configure(processors=[broken])
        for _ in range(3):
            logs.emit(MOVED)
    assert [record.getMessage() for record in caplog.records] == [
        "structlog, as it is configured, fails at broadcast_moved"
    ]
    assert caplog.records[0].name == "wxbroadcast"


def test_a_library_goes_on_when_a_later_configuration_of_the_hosts_raises(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_logger: Any, _level: str, _line: Line) -> Line:
        raise RuntimeError("no such field")

    with recorded(tmp_path):
        structlog.configure(processors=[broken])
        logging.getLogger("dramatiq").warning("trouble")
    assert "RuntimeError: no such field" in capsys.readouterr().err


def test_a_new_configuration_of_the_hosts_counts_at_once() -> None:
    seen: list[str] = []

    def keeper(word: str) -> Callable[..., Line]:
        def keep(_logger: Any, _level: str, _line: Line) -> Line:
            seen.append(word)
            raise structlog.DropEvent

        return keep

    with untouched_logging():
        logs._state.clear()
        for word in ("first", "second"):
            structlog.configure(processors=[keeper(word)])
            logs.emit(MOVED)
    assert seen == ["first", "second"]


def test_without_processors_the_chain_is_the_renderer() -> None:
    def fail(_failure: Any) -> None:
        raise AssertionError

    chain = log_processors.Processors((), lambda line: str(line["n"]).encode(), fail)
    assert chain(None, "info", {"n": 7}) == b"7"
