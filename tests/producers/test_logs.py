"""The logs: one JSON object a line, of events and libraries; nobody waits for a reader."""

import json
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from log_lines import recorded, untouched_logging

from producers import logs
from producers.events import BroadcastMoved, LimitLifted, StoreUnreachable

MOVED = BroadcastMoved("shop", "b1", "pause", "paused", 2, "不要了", 0)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Give a pipe that nobody reads, unless the test does."""
    source, sink = os.pipe()
    with untouched_logging():
        yield source, sink
    os.close(source)  # ends the write that a writer still waits in
    for thread in threading.enumerate():
        if thread.name == "log-writer":
            thread.join(10)
    os.close(sink)


def end(descriptor: int) -> None:
    """Close one end of a pipe, and keep its number from being used by another file."""
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, descriptor)
    os.close(nothing)


def read_all(descriptor: int, into: list[dict[str, Any]]) -> None:
    with os.fdopen(os.dup(descriptor), "rb") as file:
        into.extend(json.loads(line) for line in file)


# -- lines ------------------------------------------------------------------------------------


def test_an_event_is_one_json_object_on_a_line(tmp_path: Path) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    with recorded(tmp_path, process="worker-7") as read:
        logs.emit(MOVED)
        (line,) = read()
    at = datetime.fromisoformat(line.pop("time"))
    assert at.utcoffset() == timedelta(0)
    assert before <= at <= datetime.now(UTC)
    assert line == {
        "event": "broadcast_moved",
        "level": "info",
        "schema": 1,
        "process": "worker-7",
        "app": "shop",
        "broadcast": "b1",
        "move": "pause",
        "state": "paused",
        "generation": 2,
        "reason": "不要了",
        "errcode": 0,
    }


def test_no_text_breaks_a_line(tmp_path: Path) -> None:
    odd = 'two\nlines, a "quote", a \x00, a \u2028, an 🎉'
    with recorded(tmp_path) as read:
        logs.emit(StoreUnreachable(odd, "x", 1))
        logging.getLogger("somebody").warning(odd)
        lines = read()
    assert (lines[0]["during"], lines[1]["message"]) == (odd, odd)


def test_lines_keep_their_order_and_close_writes_the_last(tmp_path: Path) -> None:
    with recorded(tmp_path) as read:
        for n in range(20_000):
            logs.emit(StoreUnreachable("x", "y", n))
        lines = read()
    assert [line["attempt"] for line in lines] == list(range(20_000))
    assert not [line for line in lines if "dropped_lines" in line]


def test_many_threads_write_whole_lines(tmp_path: Path) -> None:
    def run(number: int) -> None:
        for n in range(500):
            logs.emit(StoreUnreachable(f"thread-{number}", "y", n))

    with recorded(tmp_path) as read:
        threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        lines = read()
    assert len(lines) == 4000
    for number in range(8):
        mine = [line["attempt"] for line in lines if line["during"] == f"thread-{number}"]
        assert mine == list(range(500))


def test_closing_twice_is_harmless_and_configuring_again_writes_again(tmp_path: Path) -> None:
    with recorded(tmp_path) as read:
        logs.emit(LimitLifted("first"))
        logs.close()
        logs.close()
        assert [line["app"] for line in read()] == ["first"]
        logs.emit(LimitLifted("into the void"))
    with recorded(tmp_path) as read:
        logs.emit(LimitLifted("second"))
        assert [line["app"] for line in read()] == ["first", "second"]


# -- libraries --------------------------------------------------------------------------------


def test_library_lines_pass_through_the_same_renderer(tmp_path: Path) -> None:
    with recorded(tmp_path) as read:
        logging.getLogger("dramatiq.worker").warning("%d messages", 3)
        logging.getLogger("aiohttp.server").critical("x" * 10_000)
        lines = read()
    assert [(line["event"], line["level"], line["logger"]) for line in lines] == [
        ("library_line", "warning", "dramatiq.worker"),
        ("library_line", "critical", "aiohttp.server"),
    ]
    assert lines[0]["message"] == "3 messages"
    assert lines[0]["exception"] == ""
    assert lines[0]["schema"] == 1
    assert 1000 <= len(lines[1]["message"]) <= 5000


def test_an_exception_comes_with_its_traceback(tmp_path: Path) -> None:
    with recorded(tmp_path) as read:
        try:
            raise ValueError("no such thing")  # noqa: TRY301
        except ValueError:
            logging.getLogger("aiohttp.client").exception("it failed")
        (line,) = read()
    assert (line["level"], line["message"]) == ("error", "it failed")
    assert "Traceback" in line["exception"]
    assert "test_logs.py" in line["exception"]
    assert line["exception"].rstrip().endswith("ValueError: no such thing")


def test_lines_below_the_level_are_left_out(tmp_path: Path) -> None:
    with recorded(tmp_path, level=logging.WARNING) as read:
        logging.getLogger("dramatiq").info("chatter")
        logging.getLogger("dramatiq").warning("trouble")
        logs.emit(MOVED)  # our own lines are not chatter
        lines = read()
    assert [line.get("message", line["event"]) for line in lines] == ["trouble", "broadcast_moved"]


def test_every_request_is_not_a_line(tmp_path: Path) -> None:
    with recorded(tmp_path) as read:
        logging.getLogger("aiohttp.access").info("GET / 200")
        assert read() == []


@pytest.mark.parametrize(
    ("message", "args"),
    [("%d items", ("many",)), ("a half pair: %s", ("\ud83c",)), ("%s", (object(),))],
)
def test_a_library_never_fails_by_what_it_logs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], message: str, args: tuple[Any, ...]
) -> None:
    with recorded(tmp_path) as read:
        logging.getLogger("somebody").warning(message, *args)
        logging.getLogger("somebody").warning("the next line")
        assert read()[-1]["message"] == "the next line"


# -- slow readers -----------------------------------------------------------------------------


def test_nobody_waits_for_a_reader_and_dropped_lines_are_counted(
    pipe: tuple[int, int], eventually: Any
) -> None:
    source, sink = pipe
    total = 100_000
    logs.configure("test", descriptor=sink)
    started = time.monotonic()
    for n in range(total):
        logs.emit(StoreUnreachable("x", "y", n))
    assert time.monotonic() - started < 15
    lines: list[dict[str, Any]] = []
    reader = threading.Thread(target=read_all, args=(source, lines))
    reader.start()
    eventually(lambda: lines and len(lines) > 40_000, "the reader caught up")
    logs.emit(LimitLifted("shop"))  # the next line that is written says how many were dropped
    logs.close()
    end(sink)  # which is the reader's end of file
    reader.join(10)
    dropped = sum(line.get("dropped_lines", 0) for line in lines)
    assert lines[-1]["event"] == "limit_lifted"
    assert 0 < dropped < total
    assert len(lines) + dropped == total + 1


def test_a_reader_that_is_gone_ends_nobody(pipe: tuple[int, int]) -> None:
    source, sink = pipe
    end(source)
    logs.configure("test", descriptor=sink)
    for _ in range(5000):
        logs.emit(MOVED)
    started = time.monotonic()
    logs.close()
    assert time.monotonic() - started < 3


def test_closing_waits_no_longer_than_told_for_a_reader(pipe: tuple[int, int]) -> None:
    _, sink = pipe
    logs.configure("test", descriptor=sink)
    for _ in range(5000):
        logs.emit(MOVED)
    started = time.monotonic()
    logs.close()
    assert time.monotonic() - started < 4


# -- processes --------------------------------------------------------------------------------


def run_fresh(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=25,
        check=False,
    )


def test_the_last_lines_are_written_when_a_process_ends() -> None:
    done = run_fresh(
        """
        from producers import logs
        from producers.events import LimitLifted

        logs.configure("short")
        for n in range(1000):
            logs.emit(LimitLifted(str(n)))
        """
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [json.loads(line)["app"] for line in done.stdout.splitlines()] == [
        str(n) for n in range(1000)
    ]


def test_a_backend_that_configured_nothing_may_emit_and_keeps_its_own_logging() -> None:
    done = run_fresh(
        """
        import logging
        import producers
        from producers import logs
        from producers.events import LimitLifted

        assert logging.getLogger().handlers == []
        logs.emit(LimitLifted("shop"))
        assert logging.getLogger().handlers == []
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_backend_gets_events_through_the_standard_logger_if_it_wants_them() -> None:
    done = run_fresh(
        """
        import logging
        import sys
        from producers import logs
        from producers.events import LimitLifted, StoreUnreachable

        logging.basicConfig(level="INFO", stream=sys.stdout, format="%(name)s %(message)s")
        logs.emit(LimitLifted("shop"))
        logging.getLogger("wxbroadcast").setLevel("ERROR")
        logs.emit(StoreUnreachable("x", "TimeoutError", 1))
        """
    )
    assert done.returncode == 0, done.stderr
    name, _, line = done.stdout.partition(" ")
    assert name == "wxbroadcast"
    assert json.loads(line) == {"event": "limit_lifted", "app": "shop", "schema": 1}


def test_processes_that_share_a_pipe_keep_their_lines_whole() -> None:
    code = (
        "from producers import logs, events\n"
        "logs.configure('p')\n"
        "for n in range(3000): logs.emit(events.LimitLifted('a' * (n % 300)))\n"
        "logs.close()\n"
    )
    reading, writing = os.pipe()
    processes = [subprocess.Popen([sys.executable, "-c", code], stdout=writing) for _ in range(4)]
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        lines = [json.loads(line) for line in pipe]
    assert [process.wait(20) for process in processes] == [0] * 4
    assert len(lines) == 12_000


def test_a_line_longer_than_a_pipe_takes_at_once_is_written_all_the_same() -> None:
    lines = [b"a" * 10, b"b" * 9000, b"c" * 10, b"d" * 10]
    pieces = list(logs._pieces(lines, 4096))
    assert pieces == [b"a" * 10 + b"\n", b"b" * 9000 + b"\n", b"c" * 10 + b"\n" + b"d" * 10 + b"\n"]
