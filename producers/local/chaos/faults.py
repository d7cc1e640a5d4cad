"""The faults of a chaos run, each a function of its own that strikes a crew.

A function returns what must happen later, so that a stopped unit goes on, Redis comes back and a
broadcast is resumed whatever else happens.
"""

import contextlib
import os
import signal
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from producers.errors import IllegalMoveError
from producers.local.chaos import cluster_faults
from producers.local.chaos.crew import Crew, Later
from producers.local.chaos.door import Door
from producers.local.chaos.schedule import Fault, Plan, Strike
from producers.local.chaos.shards import Shards
from producers.words import State

_AGAIN_S: Final = 1.0
_SILENT_MS: Final = 4000
"""WeChat takes what it is sent, and answers it later: longer than a look, shorter than a POST."""
_SETTLED_S: Final = 0.6
"""Until what it answered before is settled."""
_LONGEST_S: Final = 2.5


def kill(crew: Crew, strike: Strike) -> list[Later]:
    """Kill a unit (kill -9): its whole process group, or of all but its master.

    Where figures are compared, it is asked for them first: WeChat answers nobody for a moment, what
    it answered before is settled, and the unit dies with its hands full.
    """
    if crew.figures is None:
        return _kill_now(crew, strike)
    if not crew.server.running or crew.link.is_cut:
        return [(_AGAIN_S, partial(kill, crew, strike))]
    crew.link.lose(0)
    crew.wechat.post("faults", [{"api": "/send", "action": "delay", "ms": _SILENT_MS}])
    try:
        still = crew.figures.await_still(_SETTLED_S, _LONGEST_S)
        return _kill_now(crew, strike) if still else [(_AGAIN_S, partial(kill, crew, strike))]
    finally:
        begin_wrongs(crew)


def _kill_now(crew: Crew, strike: Strike) -> list[Later]:
    name = crew.unit(strike.unit)
    pids = crew.units.pids(name)
    if strike.whole or len(pids) < 2:
        crew.units.kill(name, signal.SIGKILL)
    else:
        del pids[0]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
                os.kill(pid, signal.SIGKILL)
    crew.watch.lost(strike.fault, pids)
    return []


def stop(crew: Crew, strike: Strike) -> list[Later]:
    """SIGSTOP to a unit, and SIGCONT later: a zombie that wakes after it was buried."""
    name = crew.unit(strike.unit)
    crew.watch.lost(strike.fault, crew.units.pids(name), strike.lasts_s)
    crew.units.kill(name, signal.SIGSTOP)
    return [(strike.lasts_s, lambda: crew.units.kill(name, signal.SIGCONT))]


def roll(crew: Crew, strike: Strike) -> list[Later]:
    """SIGTERM to a unit's master, as a deployment does; it drains, and starts again."""
    pids = crew.units.pids(crew.unit(strike.unit))
    if pids:
        with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
            os.kill(pids[0], signal.SIGTERM)
    return []


def restart_redis(crew: Crew, strike: Strike) -> list[Later]:
    """Kill Redis (kill -9), and start it on the same port and file later."""
    if isinstance(crew.server, Shards):
        return cluster_faults.restart_all(crew, strike)
    if not crew.server.running:
        return []
    crew.server.kill()
    crew.watch.out(strike.fault)

    def start() -> None:
        crew.server.start()
        crew.watch.back(strike.fault)

    return [(strike.lasts_s, start)]


def cut(crew: Crew, strike: Strike) -> list[Later]:
    """Drop all connections between workers and Redis, and let none through for a while."""
    crew.link.cut()
    crew.watch.out(strike.fault)

    def heal() -> None:
        crew.link.heal()
        crew.watch.back(strike.fault)

    return [(strike.lasts_s, heal)]


def pause(crew: Crew, strike: Strike) -> list[Later]:
    """Pause the broadcast, and resume it later."""

    def resume() -> None:
        with contextlib.suppress(IllegalMoveError):  # it was resumed, and the reply was lost
            crew.broadcasts.resume(crew.broadcast)
        crew.paused -= 1

    def now() -> list[Later]:
        try:
            crew.broadcasts.pause(crew.broadcast)
        except IllegalMoveError:
            # it has ended, or is paused: by this very call, perhaps, whose answer was lost
            status = crew.broadcasts.status(crew.broadcast)
            if status.state is not State.PAUSED or crew.paused > 1:
                crew.paused -= 1
                return []
        return [(strike.lasts_s, resume)]

    crew.paused += 1
    return [(0.0, now)]


STRIKES: Final[dict[Fault, Callable[[Crew, Strike], list[Later]]]] = {
    Fault.KILLS: kill,
    Fault.ZOMBIES: stop,
    Fault.ROLLING: roll,
    Fault.REDIS: restart_redis,
    Fault.REDIS_EVERYSEC: restart_redis,
    Fault.CUTS: cut,
    Fault.PAUSE: pause,
    **cluster_faults.STRIKES,
}


def strike_now(crew: Crew, strike: Strike) -> list[Later]:
    """Strike, and count it."""
    later = STRIKES[strike.fault](crew, strike)
    crew.struck[strike.fault] = crew.struck.get(strike.fault, 0) + 1
    return later


def begin(crew: Crew, plan: Plan) -> None:
    """Set off the faults that last as long as the broadcast."""
    if crew.door is not None:
        crew.door.start()
    crew.lost = plan.lost if Fault.LOST_REPLIES in plan.faults else 0.0
    crew.rules = wechat_rules() if Fault.WECHAT in plan.faults else []
    if crew.figures is not None:  # what hangs ends at any moment, also between a look and a kill
        crew.rules = [rule for rule in crew.rules if rule["action"] != "hang"]
    begin_wrongs(crew)


def begin_wrongs(crew: Crew) -> None:
    """Let replies of Redis and answers of WeChat go wrong, as the plan says."""
    crew.link.lose(crew.lost)
    crew.wechat.post("faults", crew.rules)


def let_mob_loose(crew: Crew, door: Door) -> list[Later]:
    """Let the hostile phones do what they do until the end."""
    door.let_mob_loose()
    crew.struck[Fault.HOSTILE] = 1
    return []


def wechat_rules() -> list[dict[str, Any]]:
    """Return the sandbox's rules: about one send in thirty goes wrong.

    A -1 may come after a delivery too: a form_id is repeated, for it cannot be used twice; a
    subscription is in doubt.
    """
    rules: list[dict[str, Any]] = [
        {"action": "cut_after", "probability": 0.008},
        {"action": "cut_before", "probability": 0.008},
        {"action": "status", "status": 502, "probability": 0.003},
        {"action": "status", "status": 504, "accept": True, "probability": 0.003},
        {"action": "garbage", "probability": 0.002},
        {"action": "errcode", "errcode": -1, "probability": 0.005},
        {"action": "hang", "ms": 12_000, "probability": 0.001},
        {"action": "hang", "ms": 12_000, "accept": True, "probability": 0.001},
        {"action": "errcode", "errcode": -1, "accept": True, "probability": 0.005},
    ]
    return [{"api": "/send", **rule} for rule in rules]


def stop_all(crew: Crew) -> None:
    """End what still goes on, so that the parts can be stopped."""
    crew.link.heal()
    crew.link.lose(0)
    for name in crew.units.units:
        crew.units.kill(name, signal.SIGCONT)
