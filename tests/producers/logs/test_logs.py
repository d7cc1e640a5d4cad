"""The logs: one JSON object a line, of events and libraries; nobody waits for a reader."""

import contextlib
import json
import logging
import os
import pty
import re
import resource
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

from producers.logs import lines as logs
from producers.logs.events import BroadcastMoved, LimitLifted, StoreUnreachable

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
        from producers.logs.events import LimitLifted

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
        from producers.logs.events import LimitLifted

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
        from producers.logs.events import LimitLifted, StoreUnreachable

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
        "from producers import logs\nfrom producers.logs import events\n"
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


def test_a_line_longer_than_a_pipe_takes_at_once_is_written_all_the_same(
    pipe: tuple[int, int],
) -> None:
    source, sink = pipe
    lines: list[dict[str, Any]] = []
    reader = threading.Thread(target=read_all, args=(source, lines))
    reader.start()
    logs.configure("test", descriptor=sink)
    lengths = [10, 9000, 10, 70_000, 10, 10]
    for length in lengths:
        logs.emit(LimitLifted("a" * length))
    logs.close()
    end(sink)
    reader.join(10)
    assert [len(line["app"]) for line in lines] == lengths


# -- stress: real processes -------------------------------------------------------------------

SENDS = """
import sys, time
from producers import logs
from producers.logs.events import MessageSettled

def settled(n):
    return MessageSettled(
        "shop", "b1a2128554c4a519c061f9", 0, f"oABCDEFGHIJKLMNOPQRSTUVWX{n:04d}", 1, "settled",
        "refused", 43101, "user refuse to accept the msg", "5f3c3a2e-1a2b3c4d-5e6f7a8b", "",
        "subscription", False, 50.123, 1.0)

def rss_kb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4

def say(text):
    print(text, file=sys.stderr, flush=True)

logs.configure("unit")
"""


def started(code: str, stdout: Any, *limits: int) -> "subprocess.Popen[str]":
    """Start a process that logs; with a soft limit on the size of its files, if one is given."""

    def limit() -> None:
        for soft in limits:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, resource.RLIM_INFINITY))

    return subprocess.Popen(
        [sys.executable, "-c", SENDS + textwrap.dedent(code)],
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=limit,  # noqa: PLW1509 - this test has one thread when it forks
    )


def heard(process: "subprocess.Popen[str]") -> str:
    assert process.stderr is not None
    return process.stderr.readline().strip()


def told(process: "subprocess.Popen[str]", word: str = "go") -> None:
    assert process.stdin is not None
    process.stdin.write(f"{word}\n")
    process.stdin.flush()


def finished(process: "subprocess.Popen[str]") -> None:
    _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (0, "")


def test_a_reader_that_stalls_costs_no_more_memory_than_is_said(tmp_path: Path) -> None:
    """A pipe that nobody reads, and 200,000 sends: 16 MiB of lines wait, and one piece of them."""
    reading, writing = os.pipe()
    process = started(
        """
        for n in range(1000): logs.emit(settled(n))
        before = rss_kb()
        for n in range(200_000): logs.emit(settled(n))
        say(rss_kb() - before)
        sys.stdin.readline()
        """,
        writing,
    )
    os.close(writing)
    grown_kb = int(heard(process))
    told(process)
    with os.fdopen(reading, "rb") as pipe:
        lines = [json.loads(line) for line in pipe]
    finished(process)
    assert grown_kb < 24 * 1024
    dropped = sum(line.get("dropped_lines", 0) for line in lines)
    own = sum(line["event"] == "lines_dropped" for line in lines)
    assert len(lines) - own + dropped == 201_000
    assert len(lines) > 30_000


def test_what_a_full_disk_dropped_is_told_when_there_is_room_again(tmp_path: Path) -> None:
    """The file may grow to 1 MB; its last line is written in part, and completed later."""
    path = tmp_path / "log"
    with path.open("wb") as file:
        process = started(
            """
            for n in range(100_000): logs.emit(settled(n))
            say("full")
            sys.stdin.readline()
            time.sleep(1.2)
            logs.emit(settled(0))
            """,
            file,
            1_000_000,
        )
    assert heard(process) == "full"
    assert path.stat().st_size == 1_000_000
    assert not path.read_bytes().endswith(b"\n")  # torn, for now
    infinite = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, infinite)
    told(process)
    finished(process)
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    dropped = sum(line.get("dropped_lines", 0) for line in lines)
    own = sum(line["event"] == "lines_dropped" for line in lines)
    assert dropped > 10_000
    assert len(lines) - own + dropped == 100_001


def test_what_was_dropped_is_told_though_no_other_line_comes(
    pipe: tuple[int, int], eventually: Any
) -> None:
    """A count that began within a second of the last telling, just before all fell silent."""
    source, sink = pipe
    lines: list[dict[str, Any]] = []
    reader = threading.Thread(target=read_all, args=(source, lines))
    reader.start()
    logs.configure("test", descriptor=sink)
    logs.emit(LimitLifted("shop"))
    eventually(lambda: lines, "the line is written")
    logs._state["writer"]._dropped = 5
    eventually(lambda: len(lines) == 2, "what was dropped is told")
    told = {name: lines[1][name] for name in ("event", "level", "process", "dropped_lines")}
    assert told == {
        "event": "lines_dropped",
        "level": "warning",
        "process": "test",
        "dropped_lines": 5,
    }
    logs._state["writer"]._dropped = 7
    logs.close()  # which waits for no second to be over
    end(sink)
    reader.join(10)
    assert [line["dropped_lines"] for line in lines[1:]] == [5, 7]


def test_a_disk_that_stays_full_stops_nobody() -> None:
    with open("/dev/full", "wb") as file:  # noqa: PTH123 - a device
        process = started(
            """
            before = rss_kb()
            for n in range(200_000): logs.emit(settled(n))
            say(rss_kb() - before)
            """,
            file,
        )
    began = time.monotonic()
    assert int(heard(process)) < 24 * 1024
    finished(process)
    assert time.monotonic() - began < 15


def test_a_torn_line_of_a_file_that_others_write_too_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("ab") as file:
        process = started(
            """
            for n in range(5000): logs.emit(settled(n))
            say("full")
            sys.stdin.readline()
            time.sleep(1.2)
            """,
            file,
            100_000,
        )
        assert heard(process) == "full"
        file.write(b"another process's line\n")
    infinite = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, infinite)
    told(process)
    finished(process)
    rows = path.read_bytes().splitlines()
    whole = [row for row in rows if row.startswith(b"{") and row.endswith(b"}")]
    assert len(whole) == 5000
    assert len({json.loads(row)["openid"] for row in whole}) == 5000
    assert len(rows) <= 5002  # the fragment, and an empty row at most


def test_on_a_terminal_lines_are_for_people(eventually: Any) -> None:
    ours, theirs = pty.openpty()
    process = started(
        """
        logs.emit(settled(7))
        import logging
        logging.getLogger("dramatiq").warning("two words")
        logs.close()
        """,
        theirs,
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # the end of a terminal, on Linux
        while some := os.read(ours, 65536):
            shown += some
    os.close(ours)
    finished(process)
    first, second = shown.decode().splitlines()
    assert re.match(r"\d\d:\d\d:\d\d\.\d{3} info    unit message_settled app=shop ", first)
    assert "openid=oABCDEFGHIJKLMNOPQRSTUVWX0007" in first
    assert 'errcode=43101 errmsg="user refuse to accept the msg"' in first
    assert second.endswith('warning unit library_line logger=dramatiq message="two words"')
    assert "{" not in shown.decode()
