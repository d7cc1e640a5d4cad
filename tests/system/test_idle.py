"""What a worker costs that has little or nothing to do, however much there is that waits."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from stage import DATA, TEMPLATE, Stage, Stages

from producers.audiences import Audiences
from producers.broadcasts.messages import Messages
from producers.settings import Settings

Eventually = Callable[..., Any]

WINDOW_S = 6.0
WAITING = 300
APPS = 100
LANES = 16


def pid_of(stage: Stage, eventually: Eventually) -> int:
    """Return the process of the only unit, once it has started."""
    [line] = eventually(lambda: stage.lines("worker_started"), "the unit started")
    return int(line["worker"].split(":")[1])


def cpu_s(pid: int) -> float:
    """Return what a process has used of a core, by the kernel's clock of it."""
    return time.clock_gettime(~pid << 3 | 2)  # CPUCLOCK_SCHED, clock_gettime(3)


def cost(stage: Stage, pid: int) -> tuple[float, Counter[str]]:
    """Return the share of a core and the commands that clients sent, each a second."""
    sent: Counter[str] = Counter()
    with stage.client.monitor() as monitor:
        before, began = cpu_s(pid), time.monotonic()
        while (passed := time.monotonic() - began) < WINDOW_S:
            stage.client.echo("tick")
            while (command := monitor.next_command())["command"] != "ECHO tick":
                if command["client_type"] != "lua":
                    sent[command["command"].split(" ")[0]] += 1
            time.sleep(0.1)
        used = cpu_s(pid) - before
    return used / passed, Counter({name: round(n / passed, 1) for name, n in sent.items()})


@pytest.mark.one_server
@pytest.mark.timeout(120)
def test_idle_apps_on_many_lanes_cost_a_worker_next_to_nothing(
    stages: Stages, eventually: Eventually
) -> None:
    """Each app has a carrier of the day: a single message was posted to it, and is through."""
    stage = stages(lanes=LANES)
    shop = stage.settings.apps["shop"].model_dump(mode="json") | {"secret": "shop-secret"}
    apps = {f"app{n}": {**shop, "appid": f"wx{n:016x}"} for n in range(APPS)}
    settings = Settings(_env_file=None, **{**stage_fields(stage), "apps": {"shop": shop, **apps}})
    messages = Messages(stage.client, settings)
    for alias in apps:
        messages.post(
            app=alias,
            channel="subscribe",
            template_id=TEMPLATE,
            openid="o1",
            data=DATA["subscribe"],
        )
    stage.unit(WXB_APPS=orjson.dumps({"shop": shop, **apps}).decode())
    pid = pid_of(stage, eventually)
    ids = [messages._broadcasts.latest(alias)[0] for alias in apps]
    eventually(lambda: all(stage.broadcasts.status(one).settled for one in ids), "all are through")
    time.sleep(14)  # until no app is at work
    _, sent = cost(stage, pid)
    assert sent["GET"] < 5, f"tokens that are good for hours are looked at: {sent}"
    time.sleep(10)  # until its first looks at everything are over
    share, sent = cost(stage, pid)
    assert share < 0.10
    assert sent.total() < 60, sent


@pytest.mark.one_server
@pytest.mark.timeout(120)
def test_broadcasts_that_wait_for_their_rate_cost_a_worker_next_to_nothing(
    stages: Stages, eventually: Eventually
) -> None:
    stage = stages(app={"rate_per_second": 100})
    audiences = Audiences(stage.client, stage.settings)
    stage.form_ids(3 * WAITING)
    for number in range(WAITING):
        rows = [f"o{user}".encode() for user in range(3 * number, 3 * number + 3)]
        audiences.import_rows("shop", f"a{number}", rows)
        stage.create(audience=f"a{number}", rate=0.001)
    stage.unit()
    pid = pid_of(stage, eventually)
    eventually(lambda: stage.accepted >= 0.5 * WAITING, "most of them have sent one message")
    time.sleep(12)  # until all are settled, and its first looks at everything are over
    share, sent = cost(stage, pid)
    assert share < 0.10
    assert sent.total() < 60, sent
    assert stage.accepted <= 2 * WAITING


def stage_fields(stage: Stage) -> dict[str, Any]:
    """Return what the stage's settings were made of, without its apps."""
    return {
        "redis_url": stage.settings.redis_url.get_secret_value(),
        "buckets": stage.settings.buckets,
        "lanes": stage.settings.lanes,
    }
