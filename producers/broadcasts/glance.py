"""The glance: what a create of an ordinary audience must know, looked at in one trip.

Whether there is the audience, how many it has and in which buckets, the app's templates and its
limits of the day. Each of them is asked for elsewhere too, where one alone is wanted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from producers.audiences import ALL
from producers.broadcasts.spec import Spec
from producers.quotas import AppLimits, Quotas
from producers.settings import Settings
from producers.store import Client, keys
from producers.store.buckets import positions
from producers.store.clock import ms_of
from producers.store.retry import repeat_all
from producers.store.scripts import Bound
from producers.templates import Templates

_BITS: Final = 2**21
"""Lanes × buckets whose bitmaps are read unasked: 256 kB at the most."""


@dataclass(frozen=True, slots=True)
class Glance:
    """What was seen.

    Attributes:
        size: members of the audience.
        buckets: of each lane, those that may have members, ascending.
        now_ms: the server's clock.
        limits: how much the app may send today.
        is_fresh: `Templates` knows what Redis has of the app's templates.
    """

    size: int
    buckets: dict[int, list[int]]
    now_ms: int
    limits: AppLimits
    is_fresh: bool


def glance(
    client: Client,
    settings: Settings,
    spec: Spec,
    templates: Templates,
    quotas: Quotas,
    scripts: Sequence[Bound[Any, Any]],
) -> Glance | None:
    """Look, and let `templates` know what was seen of them.

    Args:
        client: Redis.
        settings: lanes, buckets, the app.
        spec: of what is to be created.
        templates: told what Redis has.
        quotas: reads the limits.
        scripts: what will be run next: Redis is given those that it lacks.

    Returns:
        None where it takes more than a glance: there is no such audience, it is empty, or an
        expression, or it was built beside, or there are too many buckets.

    Raises:
        StoreUnavailableError: Redis did not answer.
    """
    app, name, lanes = spec.app, spec.audience, settings.layout.lanes
    if not name.replace("_", "").replace(".", "").replace("-", "").isalnum():
        return None
    if settings.buckets * len(lanes) > _BITS:
        return None
    asked = templates.question(app, spec.channel)

    def ask(pipeline: Any) -> None:
        pipeline.time()
        pipeline.script_exists(*(one.registered.sha for one in scripts))
        pipeline.hget(keys.audiences(app), name)
        quotas.ask(pipeline, app)
        pipeline.hmget(*asked)
        for lane in lanes:
            pipeline.get(keys.audience_size(lane, app, name))
            buckets = keys.audience_buckets(lane, app, name)
            pipeline.execute_command("GET", buckets, NEVER_DECODE=True)  # bytes, not text

    clock, loaded, since, limiter, said, meta, *of_lanes = repeat_all(
        "looking at the audience", client, ask
    )
    now_ms = ms_of(clock)
    is_fresh = templates.take_in(app, spec.channel, now_ms, meta)
    for one, is_there in zip(scripts, loaded, strict=True):
        if not is_there:
            client.script_load(one.registered.script)
    size = sum(int(size or 0) for size in of_lanes[::2])
    if not size or (name != ALL and not (since or "").isdecimal()):
        return None
    return Glance(
        size=size,
        buckets={
            lane: positions(bitmap or b"", 0)
            for lane, bitmap in zip(lanes, of_lanes[1::2], strict=True)
        },
        now_ms=now_ms,
        limits=quotas.read(app, limiter, said, now_ms),
        is_fresh=is_fresh,
    )
