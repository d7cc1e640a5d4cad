"""``wxbroadcast broadcast``, with real workers and the sandbox where messages are sent."""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cli_runs import ended, run, started, variables

from producers.broadcasts import Broadcasts
from producers.cli.options import duration
from producers.errors import InvalidInputError
from producers.local import procfile, supervisor
from producers.sandbox.control.client import SandboxClient
from producers.settings import Settings
from producers.store import Client
from producers.words import State

CREATE = ("broadcast", "--app", "shop", "--channel", "template", "--template-id", "T1")
ALL = (*CREATE, "--audience", "all", "--data", "a,b")
Eventually = Callable[..., Any]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("90s", timedelta(seconds=90)),
        ("1.5h", timedelta(minutes=90)),
        ("30m", timedelta(minutes=30)),
        ("2h", timedelta(hours=2)),
        ("1d", timedelta(days=1)),
        ("PT2H30M", timedelta(hours=2, minutes=30)),
        ("P1DT1S", timedelta(days=1, seconds=1)),
        ("pt1.5s", timedelta(seconds=1.5)),
        ("P1W", timedelta(days=7)),
    ],
)
def test_durations_are_written_short_or_as_iso_8601(text: str, meant: timedelta) -> None:
    assert duration(text) == meant


@pytest.mark.parametrize(
    "text",
    [
        "",
        "90",
        "2 h",
        "-1h",
        "P",
        "PT",
        "1w",
        "h",
        "-PT1H",
        "P1X",
        "9" * 40 + "d",
        f"PT{'9' * 40}S",
    ],
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        duration(text)


def test_the_id_is_printed(settings: Settings, client: Client) -> None:
    ran = run(settings, *ALL)
    assert ran.code == 0
    assert Broadcasts(client, settings).status(ran.out.strip()).state is State.RUNNING


def test_the_same_key_is_the_same_broadcast(settings: Settings) -> None:
    first = run(settings, *ALL, "--key", "monday", "--json").json
    again = run(settings, *ALL, "--key", "monday", "--json").json
    assert (first["known"], again["known"]) == (False, True)
    assert first["id"] == again["id"]
    other = run(settings, *CREATE, "--audience", "all", "--data", "c", "--key", "monday", "--json")
    assert other.code == 2
    assert first["id"] in other.json["error"]


def test_every_option_reaches_the_spec(settings: Settings, client: Client, tmp_path: Path) -> None:
    data = tmp_path / "data.json"
    data.write_text('{"thing1": "每日签到"}', encoding="utf-8")
    options = ["--page", "pages/a?b=1", "--state", "trial", "--lang", "en_US", "--rate", 5]
    options += ["--expires-in", "2h", "--priority", "--data-file", data, "--audience", "all"]
    ran = run(
        settings,
        "broadcast",
        "-a",
        "shop",
        "--channel",
        "subscribe",
        "--template-id",
        "T",
        *options,
    )
    spec = Broadcasts(client, settings).spec(ran.out.strip())
    assert spec.data == {"thing1": "每日签到"}
    assert (spec.page, spec.miniprogram_state, spec.lang) == ("pages/a?b=1", "trial", "en_US")
    assert (spec.rate, spec.expires_in_ms, spec.priority) == (5, 7_200_000, True)


def test_every_fault_is_named_at_once(settings: Settings) -> None:
    ran = run(
        settings,
        *("broadcast", "--app", "shop", "--channel", "subscribe", "--template-id", "T"),
        *("--audience", "all", "--data", '{"nonsense": "x"}', "--lang", "tlh", "--state", "beta"),
        "--json",
    )
    assert ran.code == 2
    faults = " ".join(ran.json["faults"])
    assert all(word in faults for word in ("nonsense", "tlh", "beta"))
    assert len(ran.json["faults"]) == 3


def test_data_is_given_once(settings: Settings) -> None:
    assert run(settings, *CREATE, "--audience", "all").code == 2
    assert run(settings, *ALL, "--data-file", "x").code == 2


@dataclass
class System:
    """Running workers, and the WeChat that they call."""

    settings: Settings
    broadcasts: Broadcasts
    wechat: SandboxClient

    def give(self, users: int) -> None:
        """Let users give a form_id each, to the system and to WeChat."""
        forms = [{"openid": f"o{n}", "form_id": f"form{n}"} for n in range(users)]
        self.wechat.post("permits", {"form_ids": forms})
        lines = [json.dumps({"openid": f["openid"], "formId": f["form_id"]}) for f in forms]
        assert run(self.settings, "collect", "-a", "shop", "-", stdin="\n".join(lines)).code == 0


@pytest.fixture
def system(
    settings: Settings,
    client: Client,
    make_settings: Callable[..., Settings],
    tmp_path: Path,
    eventually: Eventually,
) -> Iterator[System]:
    """Run the Procfile's worker and a sandbox."""
    told = tmp_path / "sandbox.log"
    with started("sandbox", "--port", 0, env={}) as sandbox:
        assert sandbox.stdout is not None
        url = json.loads(sandbox.stdout.readline())["url"]
        there = make_settings(wechat_url=url)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        with told.open("wb") as output:
            env = {**os.environ, "PATH": path, **variables(there)}
            units = supervisor.Supervisor(env, tmp_path, output)
            units.start("worker.1", procfile.read()["worker"])
            wechat = SandboxClient(url)
            try:
                eventually(lambda: client.zcard("wxb:workers"), "the worker beats")
                yield System(there, Broadcasts(client, there), wechat)
            finally:
                units.stop()
                wechat.close()


def test_waiting_ends_with_the_outcomes(system: System) -> None:
    system.give(50)
    ran = run(system.settings, *ALL, "--wait", "--json")
    assert ran.code == 0
    assert ran.json["state"] == "finished"
    assert ran.json["outcomes"] == {"delivered": 50}
    assert ran.json["total"] == 50
    assert ran.json["seconds"] > 0
    assert system.wechat.get("stats")["accepted"] == 50


def test_an_aborted_broadcast_exits_with_three_and_says_why(system: System) -> None:
    system.give(50)
    system.wechat.post("config", {"template_api": "retired"})
    ran = run(system.settings, *ALL, "--wait", "--json")
    assert ran.json["state"] == "aborted"
    assert ran.json["errcode"] == 45103
    assert ran.json["reason"]
    assert ran.code == 3


def test_a_pause_is_said_and_waited_through(system: System, eventually: Eventually) -> None:
    system.give(200)
    env = variables(system.settings)
    with started(*ALL, "--rate", 40, "--wait", "--json", env=env) as waiting:
        assert waiting.stderr is not None
        [created] = eventually(
            lambda: system.broadcasts.page("shop").broadcasts, "the broadcast is created"
        )
        broadcast = created.id
        eventually(lambda: system.broadcasts.status(broadcast).settled > 5, "it sends")
        assert run(system.settings, "pause", broadcast).out == "paused\n"
        heard = ""
        while "paused" not in heard:
            heard = waiting.stderr.readline()
            assert heard, "the pause was never said"
        assert f"wxbroadcast resume {broadcast}" in heard
        assert waiting.poll() is None
        assert run(system.settings, "resume", broadcast).out == "running\n"
        ran = ended(waiting)
    assert ran.code == 0
    assert ran.json["outcomes"] == {"delivered": 200}


def test_a_cancelled_broadcast_exits_with_three(system: System, eventually: Eventually) -> None:
    system.give(300)
    with started(*ALL, "--rate", 40, "--wait", "--json", env=variables(system.settings)) as waiting:
        [created] = eventually(
            lambda: system.broadcasts.page("shop").broadcasts, "the broadcast is created"
        )
        broadcast = created.id
        eventually(lambda: system.broadcasts.status(broadcast).settled > 5, "it sends")
        ran = run(system.settings, "cancel", broadcast, "--json")
        assert ran.json == {"id": broadcast, "state": "cancelled"}
        waited = ended(waiting)
    assert waited.code == 3
    assert waited.json["state"] == "cancelled"
    assert sum(waited.json["outcomes"].values()) == waited.json["total"] == 300


def test_ctrl_c_leaves_the_broadcast_running_and_says_so(
    system: System, eventually: Eventually
) -> None:
    system.give(200)
    with started(*ALL, "--rate", 40, "--wait", env=variables(system.settings)) as waiting:
        [created] = eventually(
            lambda: system.broadcasts.page("shop").broadcasts, "the broadcast is created"
        )
        broadcast = created.id
        eventually(lambda: system.broadcasts.status(broadcast).settled > 5, "it sends")
        waiting.send_signal(signal.SIGINT)
        ran = ended(waiting)
    assert ran.code == 130
    assert f"broadcast {broadcast} goes on" in ran.err
    assert system.broadcasts.status(broadcast).state is State.RUNNING
    eventually(
        lambda: system.broadcasts.status(broadcast).state is State.FINISHED,
        "it finishes although nobody waits",
    )


ROWS = (*CREATE, "--data", '{"keyword1": "{name}"}', "--rows")


def test_rows_are_checked_and_sent(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("openid,name\noA,a\noB,\noA,b\n")
    wrong = run(settings, *ROWS, str(file), "--json")
    assert wrong.code == 2
    assert wrong.json["faults"][1:] == [
        "row 3: keyword1 is empty; accepted: up to 1,024 characters of any sort",
        "row 4: the openid has a row before",
    ]
    for more, faults, code in ((("--skip-bad",), [], 0), ((), wrong.json["faults"], 2)):
        tried = run(settings, *ROWS, str(file), *more, "--dry-run", "--json")
        assert (tried.code, tried.json["recipients"], tried.json["faults"]) == (code, 1, faults)
    made = run(settings, *ROWS, str(file), "--skip-bad", "--json")
    assert (made.code, made.json["rows"]["bad"]) == (0, 2)
    assert "2 of 3 rows are bad" in made.err
    assert run(settings, "status", made.json["id"], "--json").json["expected"] == 1
    assert "rows (1 when created)" in run(settings, "status", made.json["id"]).out
    for more, says in (
        (("--audience", "all"), "the rows say"),
        (("--every", "0 1 * * *"), "series"),
    ):
        refused = run(settings, *ROWS, str(file), *more)
        assert (refused.code, says in refused.err) == (2, True)
    assert "give --audience or --rows" in run(settings, *CREATE, "--data", "a").err
