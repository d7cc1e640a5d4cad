"""The report: log lines added up, from files of every kind, whatever stands between them."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import duckdb
import pytest
from cli_runs import run
from log_lines import recorded

from producers import logs
from producers.errors import InvalidInputError
from producers.logs.events import (
    BroadcastCounted,
    BroadcastCreated,
    BroadcastMoved,
    LimitHit,
    MessageSettled,
    MessagesRecovered,
    PermitsExpired,
    TokenRefreshed,
    WorkerBroken,
    WorkerBuried,
    WorkerOutlived,
    WorkerStarted,
    WorkerStopped,
    WorkerStopping,
)
from producers.reports import Choice, Report, read_report
from producers.reports.page import page
from producers.settings import Settings


def sent(broadcast: str = "b1", outcome: str = "delivered", **more: Any) -> MessageSettled:
    fields: dict[str, Any] = {
        "app": "shop",
        "broadcast": broadcast,
        "lane": 0,
        "openid": "oABC",
        "attempt": 1,
        "action": "settled" if outcome else "delayed",
        "outcome": outcome,
        "errcode": 0,
        "errmsg": "ok",
        "rid": "",
        "msgid": "",
        "permit_kind": "form_id",
        "resumed": False,
        "latency_ms": 50.0,
        "sample": 1.0,
    }
    return MessageSettled(**{**fields, **more})


def written(folder: Path, *events: Any) -> Path:
    """Log events, as a process does; returns the file."""
    with recorded(folder) as read:
        for event in events:
            logs.emit(event)
        read()
    return folder / "log"


def raw(folder: Path, *lines: Any, name: str = "raw.jsonl") -> Path:
    """Write lines: objects as JSON, bytes as they are."""
    path = folder / name
    whole = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in lines]
    path.write_bytes(b"\n".join(whole) + b"\n")
    return path


def report_of(*files: Path, **choice: Any) -> Report:
    return read_report([str(file) for file in files], Choice(**choice))


def test_a_run_is_added_up(tmp_path: Path) -> None:
    report = report_of(
        written(
            tmp_path,
            WorkerStarted("w1", 1, 1, 1000),
            WorkerStarted("w2", 1, 1, 1000),
            TokenRefreshed("shop", "stable", forced=False, expires_in_s=7200),
            BroadcastCreated("shop", "b1", "template", "T", "all", 5, 0),
            *(sent(latency_ms=one) for one in (40.0, 50.0, 60.0)),
            sent(outcome="", errcode=-1, latency_ms=900.0),
            sent(outcome="refused", errcode=43101),
            sent("b2", app="club"),
            sent("b2", app="club", outcome="", action="stale", errcode=-1),
            LimitHit("shop", 45009, "", 1, 500),
            WorkerBuried("w1", "w2", 9000),
            MessagesRecovered("b1", 0, "w2", 2, 1, 0, 0),
            BroadcastMoved("shop", "b1", "cancel", "cancelled", 2, "enough", 0),
            BroadcastCounted(
                "shop", "b1", "cancelled", 5, {"delivered": 3, "refused": 1, "late": 1}, {"-1": 1}
            ),
            PermitsExpired("shop", 0, 7),
            WorkerStopped("w1", 0, 0.1),
        )
    )
    one = next(one for one in report.broadcasts if one.id == "b1")
    assert (one.app, one.channel, one.audience, one.state) == (
        "shop",
        "template",
        "all",
        "cancelled",
    )
    assert (one.reason, one.total, one.by_redis, one.recovered) == ("enough", 5, True, 3)
    assert one.outcomes == {"delivered": 3, "refused": 1, "late": 1}
    assert (one.answers, one.retried, one.errcodes) == (5, 1, {"-1": 1})
    assert one.latency is not None
    assert one.latency.p50 == pytest.approx(50, rel=0.02)
    assert one.latency.longest == pytest.approx(900, rel=0.02)
    other = next(one for one in report.broadcasts if one.id == "b2")
    assert (other.app, other.outcomes, other.by_redis) == ("club", {"delivered": 1}, False)
    assert (other.answers, other.errcodes) == (2, {})  # another worker has the stale one's message
    assert report.outcomes["club"] == {"delivered": 1}
    assert report.actions["shop"] == {"delayed": 1, "settled": 4}
    assert (report.limits, report.expired) == ({"shop": 1}, {"shop": 7})
    assert report.tokens == {"shop": {"refreshed": 1, "failed": 0}}
    assert report.recovered == {"messages": 3, "in_doubt": 1}
    assert {life.worker: life.end for life in report.workers} == {
        "w1": "stopped",
        "w2": "killed, or cut off",
    }
    assert sum(sum(at.outcomes.values()) for at in report.moments) == 7
    assert sum(n for _, n in report.spread) == 7
    assert (report.lines, report.unread, report.dropped, report.sampled) == (18, 0, 0, False)


def test_how_each_worker_ended_is_told(tmp_path: Path) -> None:
    names = ["stopped", "broken", "outlived", "killed", "running"]
    report = report_of(
        written(
            tmp_path,
            *(WorkerStarted(name, 1, 1, 1000) for name in names),
            WorkerBroken("broken", "keeper", "MemoryError"),
            WorkerOutlived("outlived", 16, 64, "the deployment has 64 lanes now, not 16"),
            *(WorkerStopping(name, 0) for name in names[:3]),
            *(WorkerStopped(name, 0, 0.1) for name in names[:3]),
            WorkerBuried("stopped", "killed", 9000),
        )
    )
    assert {life.worker: life.end for life in report.workers} == {
        "stopped": "stopped",
        "broken": "broken",
        "outlived": "the lanes changed",
        "killed": "killed, or cut off",
        "running": "",
    }


def test_what_stands_before_a_line_or_between_lines_is_passed_by(tmp_path: Path) -> None:
    line = {"event": "limit_lifted", "time": "2026-12-01T12:00:00.000+00:00", "app": "shop"}
    report = report_of(
        raw(
            tmp_path,
            b"worker-1  | " + json.dumps(line).encode(),
            b"2026-12-01T12:00:00Z stdout F " + json.dumps(line).encode(),
            b"a line of somebody else",
            b'{"event": "limit_lifted", "cut off',
            b"\xff\xfe not a text",
            b"",
            {"event": 7, "time": "never", "app": ["x"]},
            line,
        )
    )
    assert {one.event: one.lines for one in report.told} == {"7": 1, "limit_lifted": 3}
    assert (report.lines, report.unread) == (4, 3)
    assert report.from_at == report.to_at == "2026-12-01T12:00:00Z"


def test_what_a_line_of_ours_cannot_hold_is_left_out(tmp_path: Path) -> None:
    at = {"time": "2026-12-01T12:00:00.000+00:00", "app": "shop", "broadcast": "b1"}
    send = {"event": "message_settled", "action": "settled", "outcome": "delivered", **at}
    dropped = {"event": "lines_dropped", "dropped_lines": 2**63 - 1, **at}
    report = report_of(
        raw(
            tmp_path,
            json.dumps({**send, "latency_ms": 5}).replace(": 5", ": 1e400").encode(),
            {**send, "latency_ms": 5, "sample": 1e-320},
            {**send, "time": "0001-01-01T00:00:00+00:00"},
            dropped,
            dropped,
            json.dumps({"event": "broadcast_moved", **at, "errcode": 5})
            .replace(": 5", ": 1e400")
            .encode(),
            {"event": "broadcast_counted", **at, "total": "many"},
            {"event": "broadcast_counted", **at, "outcomes": ["delivered"]},
        )
    )
    assert (report.lines, report.unread, report.dropped) == (5, 3, 0)
    assert report.outcomes["shop"] == {"delivered": 3}
    assert len(report.moments) < 1000


def test_packed_files_and_patterns_are_read_together(tmp_path: Path) -> None:
    plain = written(tmp_path, *[sent()] * 3)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes()))
    zst = tmp_path / "a.jsonl.zst"
    lines = plain.read_text().splitlines()
    table = duckdb.sql("SELECT unnest($lines) AS line", params={"lines": lines})
    table.write_csv(str(zst), sep="\x01", header=False, quotechar="", compression="zstd")
    report = report_of(plain, tmp_path / "*.jsonl.*")
    assert (report.files, report.outcomes) == (3, {"shop": {"delivered": 9}})


def test_of_an_app_and_of_a_time(tmp_path: Path) -> None:
    def at(second: int, app: str = "shop") -> dict[str, Any]:
        time = f"2026-12-01T12:00:{second:02}.500+00:00"
        return {"event": "message_settled", "time": time, "app": app, "broadcast": "b1",
                "action": "settled", "outcome": "delivered", "latency_ms": 5.0}  # fmt: skip

    log = raw(tmp_path, *(at(second) for second in range(10)), at(5, "club"))
    chosen = report_of(log, app="shop", since="2026-12-01T12:00:03", until="2026-12-01T12:00:07")
    assert chosen.outcomes == {"shop": {"delivered": 4}}
    assert len(chosen.moments) == 4


def test_sampled_and_dropped_lines_are_told_of(tmp_path: Path) -> None:
    log = written(tmp_path, *[sent(sample=0.25)] * 4)
    told = json.loads(log.read_bytes().splitlines()[0])
    report = report_of(log, raw(tmp_path, {**told, "sample": 1.0, "dropped_lines": 9}))
    assert (report.outcomes, report.sampled, report.dropped) == (
        {"shop": {"delivered": 17}},
        True,
        9,
    )
    assert "9 lines were dropped" in page(report)


def test_old_lines_have_no_sample_and_count_once(tmp_path: Path) -> None:
    log = written(tmp_path, sent())
    line = json.loads(log.read_bytes())
    del line["sample"]
    assert report_of(raw(tmp_path, line, line)).outcomes == {"shop": {"delivered": 2}}


def test_the_page_stands_alone_and_shows_hostile_text_as_text(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>'\"><img src=x onerror=alert(1)>"
    report = report_of(
        written(
            tmp_path,
            BroadcastCreated("shop", "b1", "template", hostile, hostile, 1, 0),
            BroadcastMoved("shop", "b1", "abort", "aborted", 2, hostile, 40037),
            sent(),
            sent(hostile, hostile, app=hostile, action=hostile),
            WorkerStarted(hostile, 1, 1, 1),
        )
    )
    text = page(report)
    assert "<script" not in text
    assert "<img" not in text
    assert "alert(1)" in text
    # names of XML's own and pygal's notes are no addresses that a browser asks
    asked = re.findall(r'(?:src|href|url)\s*[=(]\s*["\']?(?!#)[^"\')> ]+', text)
    assert [one for one in asked if "http" in one] == []
    assert "default-src 'none'" in text
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_an_empty_log_is_an_empty_report(tmp_path: Path) -> None:
    report = report_of(raw(tmp_path, b""))
    assert (report.lines, report.broadcasts, report.from_at) == (0, [], "")
    assert "<svg" not in page(report)


@pytest.mark.parametrize(
    ("logs", "said"),
    [
        (["nowhere.log"], "nowhere.log: no such file"),
        (["-", __file__], "the standard input stands alone"),
        ([], "name files"),
    ],
)
def test_what_cannot_be_read_is_told(logs: list[str], said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        read_report(logs)


def test_a_time_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="yesterday"):
        report_of(written(tmp_path, sent()), since="yesterday")


def test_the_command_prints_tables_json_and_a_page(tmp_path: Path, settings: Settings) -> None:
    log = written(
        tmp_path,
        BroadcastCreated("shop", "b1", "template", "T", "all", 1, 0),
        sent(),
        sent(outcome="refused", errcode=43101),
    )
    ran = run(settings, "report", log)
    assert ran.code == 0
    assert "b1" in ran.out
    assert "43101 × 1" in ran.out
    assert "3 lines" in ran.err
    ran = run(settings, "report", log, "--html", tmp_path / "r.html", "--json")
    assert ran.json["outcomes"] == {"shop": {"delivered": 1, "refused": 1}}
    assert "43101" in (tmp_path / "r.html").read_text()
    ran = run(settings, "report", tmp_path / "none", "--json")
    assert ran.code == 2
    assert "no such file" in ran.json["error"]
    ran = run(settings, "report", log, "--html", tmp_path / "no" / "r.html", "--json")
    assert ran.code == 2
