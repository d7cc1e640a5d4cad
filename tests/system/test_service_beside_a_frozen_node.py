"""The service, a process of its own, beside a node of its cluster that stands still."""

import contextlib
import itertools
import json
import os
import signal
import statistics
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_runs import command
from cluster import Nodes, cluster_of
from web_house import TEMPLATE, Caller, Got

from producers import store
from producers.access.api_keys import ApiKeys, Scope
from producers.local.isolation import environment, isolated
from producers.store import keys

pytestmark = pytest.mark.timeout(120)
LANES = 6
APPS = ("shop", "cafe", "club", "bank", "zoo", "inn")
WAITING = 200


class Served:
    """A cluster of three, and the service on it."""

    def __init__(self, nodes: Nodes, folder: Path) -> None:
        apps = {
            app: {"appid": f"wx{number:016}", "secret": "none"}
            for number, app in enumerate(APPS, 1)
        }
        fields = {
            "redis_url": nodes.url,
            "apps": apps,
            "lanes": LANES,
            "buckets": LANES * 32,
            "web_port": 0,
        }
        self.nodes = nodes
        self.settings = isolated(fields)
        self.client = store.connect(self.settings)
        store.check_layout(self.client, self.settings)
        self.keys = ApiKeys(self.client, self.settings)
        self._log = folder / "web.log"
        self._number = itertools.count()
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command("web"),
                env=environment(fields) | {"PATH": os.environ["PATH"]},
                stdout=log,
                stderr=log,
                cwd=folder,
            )

    def close(self) -> None:
        self.process.terminate()
        assert self.process.wait(20) == 0
        self.client.close()
        self.client.connection_pool.disconnect()

    def port(self) -> int:
        """Where it listens; 0: it does not yet."""
        for line in self._log.read_text().splitlines():
            if '"web_started"' in line:
                return int(json.loads(line)["port"])
        return 0

    def caller(self) -> Caller:
        made = self.keys.create("test", ["*"], list(Scope), 100_000)
        return Caller(self.port(), made.token)

    def node_of(self, key: str) -> int:
        return int(self.client.place_of(key)[1])

    def users(self, port: int, *, there: bool) -> list[str]:
        """Users who lie on a node, or on another one."""
        every = [f"o{number}" for number in range(400)]
        lanes = {one: keys.place_of(one, self.settings)[0] for one in every}
        return [
            one for one in every if (self.node_of(keys.lane_prefix(lanes[one])) == port) is there
        ]

    def app_beside(self, port: int) -> str:
        """An app whose own keys lie on another node."""
        return next(app for app in APPS if self.node_of(keys.active(app)) != port)

    def upload(self, caller: Caller, app: str, openid: str) -> Got:
        body = [{"openid": openid, "formIds": [f"f{next(self._number)}"]}]
        return caller.post(f"/v1/apps/{app}/permits", body)

    @contextlib.contextmanager
    def frozen(self, port: int) -> Iterator[None]:
        process: Any = next(one for one in self.nodes.servers if one.port == port)._process
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)
            self.nodes.wait_until_ok()


@pytest.fixture
def served(tmp_path: Path, eventually: Callable[..., Any]) -> Iterator[Served]:
    with cluster_of(3) as nodes:
        served = Served(nodes, tmp_path)
        try:
            eventually(served.port, "the service listens", within_s=20)
            yield served
        finally:
            served.close()


def timed(call: Callable[[], Got]) -> tuple[Got, float]:
    began = time.monotonic()
    return call(), time.monotonic() - began


def is_refused_well(got: Got) -> bool:
    return (got.status, got.kind, got.headers["retry-after"]) == (503, "unavailable", "1")


def test_many_who_wait_for_a_frozen_node_hold_up_nobody_else(
    served: Served, eventually: Callable[..., Any]
) -> None:
    """Not from the moment on that it freezes, when nobody knows of it yet."""
    victim = served.node_of(keys.DEPLOYMENT)
    app = served.app_beside(victim)
    caller = served.caller()
    theirs, others = (served.users(victim, there=there) for there in (True, False))
    at = f"/v1/apps/{app}"
    spec = {"channel": "template", "template_id": TEMPLATE, "audience": "all", "data": "a,b,c"}
    for openid in (*theirs[:5], *others[:5]):
        assert served.upload(caller, app, openid).status == 200
    first = caller.post(f"{at}/broadcasts", spec).json["id"]

    asks: list[Callable[[str], Got]] = [
        lambda openid: served.upload(caller, app, openid),
        lambda openid: caller.get(f"{at}/users/{openid}"),
        lambda _: caller.get(f"{at}/broadcasts/{first}"),
    ]
    waited: list[tuple[Got, float]] = []

    def wait(number: int) -> None:
        ask = asks[number % len(asks)]
        waited.append(timed(lambda: ask(theirs[number % len(theirs)])))

    def create() -> Got:
        return caller.post(f"{at}/broadcasts", spec, Idempotency_Key="once")

    crowd = [threading.Thread(target=wait, args=(number,)) for number in range(WAITING)]
    meanwhile: list[tuple[Got, float]] = []
    with served.frozen(victim):
        for thread in crowd:
            thread.start()
        turns = itertools.cycle(others)
        while any(thread.is_alive() for thread in crowd):
            meanwhile.append(timed(lambda: served.upload(caller, app, next(turns))))
        for thread in crowd:
            thread.join()
        assert all(is_refused_well(got) for got, _ in waited), Counter(g.status for g, _ in waited)
        assert len(waited) == WAITING
        assert max(seconds for _, seconds in waited) < 6
        assert {got.status for got, _ in meanwhile} == {200}
        times = [seconds for _, seconds in meanwhile]
        assert len(times) > 20
        assert statistics.median(times) < 0.25, times
        assert max(times) < 1.5, sorted(times)[-5:]

        got, seconds = timed(lambda: caller.get("/healthz"))
        assert got.status == 200
        assert seconds < 1
        ready = caller.get("/readyz")
        assert ready.status == 200, "the others' users are served"
        assert [str(victim) in fault for fault in ready.json["faults"]] == [True]
        got, seconds = timed(create)
        assert is_refused_well(got)
        assert seconds < 1, "by now it is known"
    made = eventually(lambda: (got := create()).status == 201 and got, "it is created", within_s=40)
    assert create().json["id"] == made.json["id"]
    listed = caller.get(f"{at}/broadcasts").json
    assert sorted(one["id"] for one in listed["broadcasts"]) == sorted({first, made.json["id"]})
    assert served.upload(caller, app, theirs[0]).status == 200
    well = {"status": "ok", "faults": []}
    eventually(lambda: caller.get("/readyz").json == well, "nothing is wrong any more")


def test_a_key_that_was_seen_opens_while_the_node_of_the_keys_is_frozen(
    served: Served, eventually: Callable[..., Any]
) -> None:
    victim = served.node_of(keys.API_KEYS)
    app = served.app_beside(victim)
    seen, unseen = served.caller(), served.caller()
    others = itertools.cycle(served.users(victim, there=False))
    assert served.upload(seen, app, next(others)).status == 200
    times: list[float] = []
    with served.frozen(victim):
        ends = time.monotonic() + 8  # beyond the moment at which it is known as silent
        while time.monotonic() < ends:
            got, seconds = timed(lambda: served.upload(seen, app, next(others)))
            assert got.status == 200, got
            times.append(seconds)
        assert statistics.median(times) < 0.25, times
        assert max(times) < 1.5, sorted(times)[-5:]
        assert is_refused_well(served.upload(unseen, app, next(others)))
        forged = Caller(seen.port, seen.token[:-1] + ("B" if seen.token[-1] == "A" else "A"))
        assert served.upload(forged, app, next(others)).status == 401
    served.keys.revoke(seen.token.split("_")[1])
    began = time.monotonic()
    eventually(lambda: served.upload(seen, app, next(others)).status == 401, "it is revoked")
    assert time.monotonic() - began < 4
    assert served.upload(unseen, app, next(others)).status == 200
