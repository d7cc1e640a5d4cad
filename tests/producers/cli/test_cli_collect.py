"""``wxbroadcast collect``."""

import json
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from cli_runs import command, run, variables

from producers.permits.ledger import totals
from producers.settings import Settings
from producers.store import Client
from producers.words import PermitKind


def upload(openid: str, *form_ids: str) -> str:
    return json.dumps({"openid": openid, "formIds": list(form_ids)})


def test_a_file_is_stored_and_counted(settings: Settings, client: Client, tmp_path: Path) -> None:
    file = tmp_path / "permits.jsonl"
    file.write_text("\n".join([upload("oA", "f1", "f2"), upload("oB", "f3"), upload("oA", "f1")]))
    ran = run(settings, "collect", "--app", "shop", file, "--json")
    assert ran.code == 0
    assert ran.json["lines"] == 3
    assert (ran.json["new"], ran.json["known"], ran.json["refused"]) == (3, 1, {})
    assert totals(client, settings, "shop").kinds[PermitKind.FORM_ID].available == 3


def test_stdin_is_read(settings: Settings) -> None:
    ran = run(settings, "collect", "--app", "shop", "-", "--json", stdin=upload("oA", "f1"))
    assert ran.code == 0
    assert ran.json["new"] == 1


def test_a_table_says_what_was_refused_and_in_which_line(settings: Settings) -> None:
    lines = f"{upload('oA', 'f1')}\nnonsense\n{upload('oB', '')}\n"
    ran = run(settings, "collect", "--app", "shop", "-", stdin=lines)
    assert ran.code == 0
    rows = [row.split() for row in ran.out.splitlines()]
    assert ["new", "1"] in rows
    assert ["refused:", "not_json", "1"] in rows
    assert ["refused:", "empty_form_id", "1"] in rows
    assert any(row[:2] == ["2", "not_json"] for row in rows)
    assert any(row[:2] == ["3", "empty_form_id"] for row in rows)


def test_when_every_item_is_refused_the_exit_code_is_one(settings: Settings) -> None:
    ran = run(settings, "collect", "--app", "shop", "-", "--json", stdin="nonsense\n")
    assert ran.code == 1
    assert ran.json["refused"] == {"not_json": 1}


def test_an_empty_file_is_nothing_wrong(settings: Settings) -> None:
    ran = run(settings, "collect", "--app", "shop", "-", "--json", stdin="")
    assert ran.code == 0
    assert ran.json["lines"] == 0


def test_a_file_that_is_not_there_is_wrong_input(settings: Settings) -> None:
    ran = run(settings, "collect", "--app", "shop", "/nowhere/at-all", "--json")
    assert ran.code == 2
    assert "/nowhere/at-all" in ran.err
    assert ran.json["faults"] == ["cannot read /nowhere/at-all: No such file or directory"]


def test_an_unknown_app_is_wrong_input(settings: Settings) -> None:
    ran = run(settings, "collect", "--app", "shoe", "-", stdin=upload("oA", "f1"))
    assert ran.code == 2
    assert "no app 'shoe'" in ran.err
    assert "shop" in ran.err


def test_a_line_without_end_is_refused_without_being_kept(settings: Settings) -> None:
    endless = b'{"openid": "' + b"o" * 3_000_000 + b'"}\n'
    last = upload("oA", "f1").encode()
    ran = run(settings, "collect", "--app", "shop", "-", "--json", stdin=endless + last)
    assert ran.code == 0
    assert ran.json["refused"] == {"line_too_long": 1}
    assert (ran.json["lines"], ran.json["new"]) == (2, 1)


def test_progress_and_log_lines_go_to_stderr_and_the_result_to_stdout(
    settings: Settings,
) -> None:
    done = subprocess.run(
        command("collect", "--app", "shop", "-", "--json"),
        input=upload("oA", "f1"),
        env={**os.environ, **variables(settings)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(done.stdout.splitlines()) == 1
    assert json.loads(done.stdout)["new"] == 1
    assert "collecting: 1 lines, 1 new" in done.stderr
    logged = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert [line["event"] for line in logged] == ["permits_collected"]
    assert logged[0]["process"] == "cli"


def test_a_terminal_shows_a_bar_and_no_log_lines(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "permits.jsonl"
    file.write_text("\n".join(upload(f"o{n}", f"f{n}") for n in range(1000)))
    screen, terminal = os.openpty()
    done = subprocess.run(
        command("collect", "--app", "shop", file),
        env={**os.environ, **variables(settings), "TERM": "xterm-256color"},
        stdout=subprocess.PIPE,
        stderr=terminal,
        text=True,
        check=True,
    )
    shown = os.read(screen, 65536).decode()
    os.close(terminal)
    os.close(screen)
    assert "1,000 lines, 1,000 new" in shown
    assert "permits_collected" not in shown + done.stdout
    assert ["new", "1,000"] in [row.split() for row in done.stdout.splitlines()]


def test_a_redis_that_is_away_has_its_own_exit_code(make_settings: object) -> None:
    away = make_settings(redis_url="redis://127.0.0.1:1/0")  # type: ignore[operator]
    ran = run(away, "collect", "--app", "shop", "-", "--json", stdin="")
    assert ran.code == 4
    assert "WXB_REDIS_URL" in ran.json["error"]


@pytest.mark.skipif(sys.platform == "darwin", reason="ru_maxrss has another unit there")
def test_memory_does_not_grow_with_the_file(settings: Settings) -> None:
    """The peak of a long file is near that of a short one: 9 MB more in, less than 3 MB more."""

    def peak_kb(uploads: int) -> int:
        read, write = os.pipe()
        process = subprocess.Popen(
            command("collect", "--app", "shop", "-"),
            stdin=read,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **variables(settings)},
        )
        os.close(read)

        def feed() -> None:
            with os.fdopen(write, "w") as pipe:
                for number in range(uploads):
                    pipe.write(f'{{"openid":"o{number % 1000}","formId":"f{number % 5000}"}}\n')

        feeder = threading.Thread(target=feed)
        feeder.start()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        feeder.join()
        assert process.returncode == 0
        assert isinstance(usage, resource.struct_rusage)
        return usage.ru_maxrss

    assert peak_kb(70_000) < peak_kb(10_000) + 3_000
