"""The doctor: checks a deployment, and says what to change. It changes nothing."""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import redis

from producers import store
from producers.audiences import ALL
from producers.audiences.counting import Counter
from producers.care import roster, servers, shadows, templates, webhooks
from producers.care.appids import Appids
from producers.care.apps import examine_apps
from producers.care.check import Check, Health
from producers.care.roster import Roster
from producers.errors import LayoutMismatchError, StoreUnavailableError
from producers.quotas import AppLimits, Quotas
from producers.settings import Settings
from producers.store import Client, deadline, keys, trouble
from producers.words import State

_LOOKED_AT: Final = 1000
"""Newest broadcasts under way of an app that are looked at, …"""

_CROWDED: Final = 1000
"""Users in a bucket, beyond which one step may take 5 ms (measured: 16 audiences joined)."""

_NAMED: Final = 5
"""… and as many are named."""

_PATIENCE_S: Final = 3.0
"""Each part waits so long for Redis: several parts may ask one node of a cluster that is away."""


def examine(settings: Settings, what_ended: Callable[[str], str] | None = None) -> list[Check]:
    """Check Redis, the layout, the workers, and each app's WeChat.

    Never raises for what it finds: what does not answer is a check that is bad. Where one node of a
    cluster is away, what lies on the others is looked at.

    Args:
        settings: the deployment's.
        what_ended: says of a Redis that does not answer at a URL what was there; '' for nothing.
    """
    client = store.connect(settings, role="cli")
    try:
        checks = list(_examine_redis(client, settings))
    except (redis.RedisError, OSError) as error:
        ended = what_ended(settings.redis_url.get_secret_value()) if what_ended else ""
        checks = [
            Check("redis", Health.BAD, type(error).__name__, ended or trouble.in_words(error))
        ]
    except StoreUnavailableError as error:
        checks = [Check("redis", Health.BAD, "no answer", str(error))]
    finally:
        client.close()
        client.connection_pool.disconnect()
    return [*checks, *_packages(), *examine_apps(settings)]


def _examine_redis(client: Client, settings: Settings) -> Iterator[Check]:
    store.silent(client)  # once for all parts
    yield from servers.examine(client, settings)
    parts: dict[str, Callable[[Client, Settings], Iterable[Check]]] = {
        "layout": _layout,
        "workers": _roster,
        "appids": _appids,
        "broadcasts": _broadcasts,
        "limits": _limits,
        "templates": templates.examine,
        "errcodes": _puzzles,
        "webhooks": webhooks.examine,
    }
    for name, part in parts.items():
        found: list[Check] = []
        try:
            with deadline.within(_PATIENCE_S):
                found.extend(part(client, settings))  # what it yields before an error is kept
        except (redis.RedisError, StoreUnavailableError) as error:
            if not store.is_cluster(client):
                raise
            yield from (*found, _unseen(name, error))
            if part is _layout:
                return  # how many lanes there are is not known
        else:
            yield from found


def _unseen(part: str, error: Exception) -> Check:
    """Return what is told of a part that lies on a node which is away."""
    cause = error.__cause__ if isinstance(error, StoreUnavailableError) else error
    why = trouble.in_words(cause or error)
    return Check(part, Health.BAD, "could not be looked at, or not all of it", why)


def _roster(client: Client, settings: Settings) -> Iterator[Check]:
    here = roster.look(client)
    yield from _workers(here, settings)
    yield from _same_apps(here, settings)
    yield from _unknown_apps(client, settings, here)


def _appids(client: Client, settings: Settings) -> Iterator[Check]:
    for alias, appid in Appids(client, settings).others().items():
        yield Check(
            f"app {alias}: appid",
            Health.BAD,
            f"what is stored of it is of {appid}, the settings say {settings.app(alias).appid}",
            "another mini-program has other users: give it an alias of its own; was it a typing "
            f"error: `wxbroadcast apps reassign {alias}`",
        )


def _broadcasts(client: Client, settings: Settings) -> Iterator[Check]:
    for app in settings.apps:
        yield _paused(client, settings, app)
        deadline.renew()


def _limits(client: Client, settings: Settings) -> Iterator[Check]:
    for limits in Quotas(client, settings).all([*settings.apps]).values():
        yield from _slowed(limits)
        yield from _spent(limits)


def _layout(client: Client, settings: Settings) -> Iterator[Check]:
    try:
        store.check_layout(client, settings)
    except (LayoutMismatchError, StoreUnavailableError) as error:
        if store.is_cluster(client) and isinstance(error, StoreUnavailableError):
            raise
        yield Check("layout", Health.BAD, str(error), "unset it, or set the value it has")
        return
    layout = settings.layout
    found = f"{len(layout.lanes)} lanes, {settings.buckets} buckets"
    if layout.towards:
        still = "no lane" if layout.shut is None else f"lane {layout.shut}"
        yield Check(
            "lanes",
            Health.WARN,
            f"{layout.divided} of {layout.count} divided, {still} stands still for it",
            f"where no such command runs any more: `wxbroadcast lanes {layout.towards}` goes on",
        )
    sizes = Counter(client, settings).sizes
    users, app = max((sizes(app, [ALL])[ALL], app) for app in settings.apps)
    if users > _CROWDED * settings.buckets:
        yield Check(
            "layout",
            Health.WARN,
            f"{found}: {users // settings.buckets:,} users of {app} in each",
            "a bucket is moved in one step, which holds Redis for more than 5 ms: take the app to "
            "a deployment with a bucket for every 64 users (export, import)",
        )
        return
    yield Check("layout", Health.OK, found)


def _workers(here: Roster, settings: Settings) -> Iterator[Check]:
    if not here.workers:
        advice = "start the worker line of the Procfile, or `wxbroadcast up`"
        yield Check("workers", Health.WARN, "none alive", advice)
        return
    yield Check("workers", Health.OK, f"{here.workers} alive")
    for app in settings.apps:
        if not here.knows(app):
            yield Check(
                f"app {app}: workers", Health.BAD, here.hinders(app), "nothing of it is sent"
            )
    for gate in here.closed:
        found = f"cannot reach WeChat ({gate.reason})"
        if gate.without:
            found = f"has no token ({gate.without})"
        advice = roster.SEE if gate.without else "see its host's way out, or stop it"
        yield Check(
            f"app {gate.app}: worker {gate.worker}",
            Health.BAD,
            f"{found} since {gate.seconds} s",
            f"it takes nothing for this app: {advice}",
        )


def _same_apps(here: Roster, settings: Settings) -> Iterator[Check]:
    """Name the processes whose apps are other ones than those of the settings read here."""
    if settings.apps_file is None:
        return
    mine = settings.apps.digest
    others = sorted(name for name, digest in here.digests.items() if digest != mine)
    if not others:
        found = f"apps: {len(settings.apps):,}, the same in all processes: {len(here.digests):,}"
        yield Check("apps file", Health.OK, found)
        return
    more = f" and {len(others) - _NAMED:,} more" if len(others) > _NAMED else ""
    yield Check(
        "apps file",
        Health.WARN,
        f"others than here: {', '.join(others[:_NAMED])}{more}",
        "a change takes 5 s; after that, see their log for apps_refused, and their WXB_APPS_FILE",
    )


def _unknown_apps(client: Client, settings: Settings, here: Roster) -> Iterator[Check]:
    """Name the apps that have broadcasts in Redis, and are in nobody's settings."""
    known = {*settings.apps, *(here.apps or ())}
    for app in client.zrange(keys.APPS, 0, -1):
        waiting = client.zcard(keys.active(app)) if app not in known else 0
        if waiting:
            found = f"unknown here and to the workers; {waiting:,} broadcasts wait"
            yield Check(f"app {app}", Health.BAD, found, "set it again, or what waits is late")


def _paused(client: Client, settings: Settings, app: str) -> Check:
    """Name the broadcasts and carriers of an app that wait for an operator."""
    ids = client.zrevrange(keys.active(app), 0, _LOOKED_AT - 1)
    pipeline = client.pipeline(transaction=False)
    for one in ids:
        home = keys.home(settings.layout.home_of(one), one)
        pipeline.hmget(home, "state", "reason", "errcode")
    found = [
        f"{'carrier' if keys.is_carrier(one) else 'broadcast'} {one} ({_because(reason, errcode)})"
        for one, (state, reason, errcode) in zip(ids, pipeline.execute(), strict=True)
        if state == State.PAUSED
    ]
    name = f"app {app}: broadcasts"
    if not found:
        return Check(name, Health.OK, f"{len(ids):,} under way, none paused")
    more = f", and {len(found) - _NAMED:,} more" if len(found) > _NAMED else ""
    return Check(
        name,
        Health.WARN,
        f"paused: {', '.join(found[:_NAMED])}{more}",
        "once you know why: `wxbroadcast resume ID`, or cancel ID",
    )


def _slowed(limits: AppLimits) -> Iterator[Check]:
    """Name the limit that WeChat's errors made."""
    if limits.limit or limits.held_until_ms:
        rate = f"{limits.rate:g}" if limits.rate else "unlimited"
        yield Check(
            f"app {limits.app}: rate",
            Health.WARN,
            f"{limits.limit or limits.rate:,.3g} per second of {rate}"
            f"{', held back' if limits.held_until_ms else ''}: WeChat answers with limit errors",
            "it climbs back by itself; if it comes again, set rate_per_second lower",
        )


def _spent(limits: AppLimits) -> Iterator[Check]:
    """Name the days that are nearly used up, as the workers count them."""
    for channel in limits.quotas:
        if limits.nearly_spent(channel):
            left, of = limits.of_day(channel)
            yield Check(
                f"app {limits.app}: {channel} today",
                Health.WARN,
                f"{of} leaves {left:,}",
                f"the next day begins at {limits.resets}",
            )


def _puzzles(client: Client, settings: Settings) -> Iterator[Check]:
    """Name the errcodes that nobody knows, and what WeChat says of them; of a few apps."""
    pipeline = client.pipeline(transaction=False)
    for app in settings.apps:
        pipeline.exists(keys.diagnoses(app))
    puzzled = [app for app, there in zip(settings.apps, pipeline.execute(), strict=True) if there]
    for app in puzzled[:_NAMED]:
        for one in Quotas(client, settings).limits(app).diagnoses[:_NAMED]:
            yield Check(
                f"app {app}: errcode {one.errcode}",
                Health.WARN,
                f"WeChat of {one.rid}: {one.text}",
                "no row of the table knows it: its recipients fail",
            )


def _because(reason: str | None, errcode: str | None) -> str:
    parts = [reason or "", f"errcode {errcode}" if errcode and errcode != "0" else ""]
    return ", ".join(part for part in parts if part) or "asked for"


def _packages() -> Iterator[Check]:
    """Name the packages of the user's own that hide ours, or would from a worker started here."""
    advice = "start workers with --path, as the Procfile does; or rename it"
    for path in shadows.here(Path.cwd()):
        yield Check("packages", Health.WARN, f"{path} has the name of one of ours", advice)
    for path in shadows.ahead(os.environ):
        yield Check("packages", Health.BAD, f"{path} is imported in place of ours", "rename it")
