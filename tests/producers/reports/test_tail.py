"""Log lines for people: chosen, followed, and unable to steer the terminal."""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_runs import run

from producers.errors import InvalidInputError
from producers.reports.tail import followed, lines_of
from producers.settings import Settings


def line(event: str = "message_settled", **fields: Any) -> dict[str, Any]:
    head = {"event": event, "schema": 1, "time": "2026-12-01T12:00:00.123+00:00", "level": "info"}
    return {**head, "process": "worker-1", **fields}


def log(folder: Path, *lines: Any, name: str = "log") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))
    return path


def test_lines_are_words_and_only_those_asked_for(tmp_path: Path, settings: Settings) -> None:
    path = log(
        tmp_path,
        line(app="shop", openid="o1", broadcast="b1", outcome="delivered", errmsg="it is ok"),
        line(app="shop", openid="o2", broadcast="b1", outcome="refused"),
        line(app="club", openid="o1", broadcast="b2", outcome="in_doubt"),
        line("limit_hit", app="shop", level="warning"),
    )
    path.write_bytes(b"worker | not ours\n" + path.read_bytes())

    def shown(*options: str) -> list[str]:
        ran = run(settings, "logs", path, *options)
        assert ran.code == 0
        return list(ran.out.splitlines())

    first = shown()[0]
    assert first == (
        "12:00:00.123 info    worker-1 message_settled app=shop openid=o1 broadcast=b1 "
        'outcome=delivered errmsg="it is ok"'
    )
    assert len(shown()) == 4
    assert len(shown("--app", "shop")) == 3
    assert len(shown("--broadcast", "b1", "--outcome", "refused,delivered")) == 2
    assert len(shown("--openid", "o1")) == 2
    assert len(shown("--event", "limit_*,gate_*")) == 1
    assert len(shown("--level", "warning")) == 1
    assert json.loads(shown("--openid", "o2", "--json")[0])["outcome"] == "refused"
    assert run(settings, "logs", path, "--level", "loud").code == 2
    assert run(settings, "logs", tmp_path / "none").code == 2


def test_what_strangers_wrote_does_not_steer_the_terminal(
    tmp_path: Path, settings: Settings
) -> None:
    path = log(tmp_path, line(errmsg="\x1b[2J\x9b31m\u202eevil", openid="\x1b]0;x\x07"))
    out = run(settings, "logs", path).out
    assert not {one for one in out if ord(one) < 32 or 127 <= ord(one) < 160} - {"\n"}
    assert "\u202e" not in out
    assert r"\u001b[2J" in out


def test_a_pipe_is_read_line_by_line() -> None:
    sent = json.dumps(line(app="shop")).encode() + b"\n"
    with subprocess.Popen(
        [sys.executable, "-m", "producers.cli", "logs", "--follow"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as reader:
        assert reader.stdin
        assert reader.stdout
        reader.stdin.write(sent)
        reader.stdin.flush()
        assert b"message_settled app=shop" in reader.stdout.readline()  # while the pipe is open
        reader.stdin.close()
        assert reader.wait(10) == 0


def test_a_file_is_followed_over_its_rotation(
    tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    path = log(tmp_path, "first")
    looks = 0

    def goes_on() -> bool:
        nonlocal looks
        looks += 1
        if looks == 2:
            with path.open("a") as file:
                file.write('"sec')  # not a line yet
        elif looks == 3:
            with path.open("a") as file:
                file.write('ond"\n')
        elif looks == 5:
            path.rename(tmp_path / "log.1")
        elif looks == 6:
            log(tmp_path, "third")
        elif looks == 9:
            path.write_text("")
        elif looks == 11:
            log(tmp_path, "4")
        return looks < 14

    found: Iterator[bytes] = followed([str(path)], goes_on=goes_on)
    assert list(found) == [b'"first"', b'"second"', b'"third"', b'"4"']


def test_packed_and_cut_off_files(tmp_path: Path) -> None:
    whole = gzip.compress(b"1\n2\n" * 1000)
    (tmp_path / "a.gz").write_bytes(whole)
    assert len(list(lines_of([str(tmp_path / "a.gz")]))) == 2000
    (tmp_path / "b.gz").write_bytes(whole[:-10])
    with pytest.raises(InvalidInputError, match=r"b\.gz"):
        list(lines_of([str(tmp_path / "b.gz")]))
    (tmp_path / "c.zst").write_bytes(b"")
    with pytest.raises(InvalidInputError, match="zstd -dc"):
        list(lines_of([str(tmp_path / "c.zst")]))
