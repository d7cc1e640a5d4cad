"""The servers: what is checked of each Redis, of a cluster as a whole, and of the sentinels."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any, Final

import redis

from producers import store
from producers.care.check import Check, Health
from producers.settings import Settings
from producers.store import Client, deadline, keys
from producers.store.clock import CLOCKS_APART_MS

_HEADROOM: Final = 0.8
"""Share of maxmemory above which there is too little left for a burst."""

_ANSWER_S: Final = 2.0
"""A node of a cluster that has not answered by then is away."""

_AWAY: Final = (redis.ConnectionError, redis.TimeoutError)

_LAG_S: Final = 10
"""How long a replica may be silent and counts; Redis's own default."""


def examine(client: Client, settings: Settings) -> Iterator[Check]:
    """Check each server that serves keys, and what holds them together.

    Raises:
        redis.RedisError: none of them answers.
    """
    nodes = store.nodes_of(client)
    offsets: dict[str, float] = {}
    away: set[str] = set()
    for address, node in nodes.items():
        named = f"node {address}: " if address else ""
        try:
            with deadline.within(_ANSWER_S) if address else contextlib.nullcontext():
                found = list(_server(node, settings.redis_replicas, offsets, address))
        except redis.RedisError as error:
            if not address:
                raise
            away.add(address)
            advice = "start it, or have a replica of it take over: its lanes wait"
            found = [Check("answer", Health.BAD, type(error).__name__, advice)]
        for check in found:
            yield Check(f"{named}{check.name}", check.health, check.found, check.advice)
        if not address and any(check.name == "cluster" for check in found):
            return  # its keys lie elsewhere
    counted = 0
    with contextlib.suppress(*(_AWAY if away else ())):  # it may lie there, which is told already
        counted = int(client.get(keys.UNREPLICATED) or 0)
    if counted:
        yield Check(
            "outcomes",
            Health.WARN,
            f"{counted} of late counted without a replica",
            "had their primary died then, they would be in doubt: see replicas_behind in the logs",
        )
    if store.is_cluster(client):
        yield from _cluster(client, settings, nodes, offsets, away)
    sentinels = store.sentinels_of(client)
    if sentinels is not None:
        yield from _sentinels(sentinels)


def _server(
    client: Client, replicas: int, offsets: dict[str, float], address: str
) -> Iterator[Check]:
    started = time.time()
    seconds, micros = client.time()
    offset = offsets[address] = seconds + micros / 1e6 - (started + time.time()) / 2
    info = client.info()
    yield _version(info)
    yield _setting(
        client,
        "appendonly",
        lambda value: value == "yes",
        Health.WARN,
        "set `appendonly yes`: without it a restart forgets what was sent and what was collected",
    )
    yield _setting(
        client,
        "maxmemory-policy",
        lambda value: value == "noeviction",
        Health.BAD,
        "set `maxmemory-policy noeviction`: eviction loses permits and outcomes",
    )
    yield _memory(info)
    if info.get("role") == "master":
        yield _replicas(info, replicas, may_wait=not replicas or _may_wait(client))
        if replicas or info.get("connected_slaves"):
            yield _left_alone(client, _online(info))
    if info.get("cluster_enabled") and not address:
        yield Check(
            "cluster", Health.BAD, "cluster mode", "set WXB_REDIS_URL to redis+cluster://host:port"
        )
    if info.get("role") not in {"master", None}:
        yield Check("role", Health.BAD, str(info.get("role")), "point WXB_REDIS_URL at the primary")
    yield Check(
        "clock offset",
        Health.OK if abs(offset) < 5 else Health.WARN,
        f"{offset:+.3f} s",
        "" if abs(offset) < 5 else "nothing depends on it, but log times will puzzle you: use NTP",
    )


def _version(info: dict[str, Any]) -> Check:
    valkey = str(info.get("valkey_version", ""))
    name, version, least = (
        ("Valkey", valkey, (8, 0)) if valkey else ("Redis", str(info.get("redis_version")), (7, 2))
    )
    found = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    good = found >= least
    advice = "" if good else f"needs Redis 7.2+ or Valkey 8+; upgrade {name}"
    return Check("version", Health.OK if good else Health.BAD, f"{name} {version}", advice)


def _may_wait(client: Client) -> bool:
    """Say whether our user of Redis may ask what replicas have."""
    try:
        client.wait(0, 1)
    except redis.exceptions.NoPermissionError:
        return False
    return True


def _online(info: dict[str, Any]) -> int:
    """Return how many replicas are in step."""
    rows = (row for row in info.values() if isinstance(row, dict))
    return sum(row.get("state") == "online" for row in rows)


def _left_alone(client: Client, online: int) -> Check:
    """Check what a primary does that was cut off from its replicas, of which one may take over.

    Unless it is told to refuse, it says yes to what its successor will not have. Either setting is
    off at 0 (redis.conf, min-replicas-to-write, min-replicas-max-lag).
    """
    name = "min-replicas-to-write"
    advise = (
        f"set `{name} 1` and `min-replicas-max-lag {_LAG_S}`, and have two replicas, that one may "
        "die: a primary that is cut off from them goes on else, and what it says yes to is lost"
    )
    try:
        said = client.config_get("min-replicas-*")
    except redis.ResponseError:
        return Check(name, Health.SKIPPED, "CONFIG GET is not allowed", f"check yourself: {advise}")
    least, lag_s = int(said.get(name, 0)), int(said.get("min-replicas-max-lag", 0))
    found = f"{least}, min-replicas-max-lag {lag_s}"
    if not least or not lag_s:
        return Check(name, Health.WARN, found, advise)
    if online < least:
        advice = f"nothing is stored or sent until {least} are in step: start them, or set it lower"
        return Check(name, Health.BAD, f"{found}, {online} in step", advice)
    if lag_s > _LAG_S:
        advice = f"set `min-replicas-max-lag {_LAG_S}`: so long it goes on when it was cut off"
        return Check(name, Health.WARN, found, advice)
    return Check(name, Health.OK, found, "")


def _replicas(info: dict[str, Any], wanted: int, *, may_wait: bool) -> Check:
    online = _online(info)
    found = f"{online} in step, WXB_REDIS_REPLICAS is {wanted}"
    if online < wanted:
        return Check(
            "replicas", Health.BAD, found, "nothing is sent until as many are there: start them"
        )
    if not may_wait:
        return Check(
            "replicas",
            Health.BAD,
            "WAIT is not allowed",
            "nothing is sent until our user may run it: ACL SETUSER … +wait",
        )
    advice = "a failover may forget the last moments: see WXB_REDIS_REPLICAS"
    return Check("replicas", Health.OK, found, advice if online and not wanted else "")


def _setting(client: Client, name: str, good: Any, otherwise: Health, advice: str) -> Check:
    try:
        value = client.config_get(name).get(name, "")
    except redis.ResponseError:  # hosted services often forbid CONFIG
        return Check(name, Health.SKIPPED, "CONFIG GET is not allowed", f"check yourself: {advice}")
    if good(value):
        return Check(name, Health.OK, str(value))
    return Check(name, otherwise, str(value), advice)


def _memory(info: dict[str, Any]) -> Check:
    used, most = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    evicted = int(info.get("evicted_keys", 0))
    if evicted:
        return Check(
            "memory", Health.BAD, f"{evicted} keys evicted", "permits were lost: see above"
        )
    if not most:
        most = int(info.get("total_system_memory", 0))
    if 0 < int(info.get("maxmemory", 0)) <= used:
        full = f"full: {used / 2**20:,.0f} MiB of {most / 2**20:,.0f} MiB"
        return Check(
            "memory", Health.BAD, full, "nothing is stored or sent until maxmemory is raised"
        )
    share = used / most if most else 0.0
    found = f"{used / 2**20:,.0f} MiB of {most / 2**20:,.0f} MiB"
    if share > _HEADROOM:
        return Check(
            "memory", Health.WARN, found, "give Redis more memory before a large broadcast"
        )
    return Check("memory", Health.OK, found)


def _cluster(
    client: Client,
    settings: Settings,
    nodes: dict[str, Client],
    offsets: dict[str, float],
    away: set[str],
) -> Iterator[Check]:
    """Check that all nodes agree: each slot is served, clocks are equal, lanes lie on each."""
    failing = [f"{address} does not answer" for address in sorted(away)]
    for address, node in nodes.items():
        if address in away:
            continue
        try:
            said = node.execute_command("CLUSTER INFO")
        except redis.RedisError:
            failing.append(f"{address} does not answer")
            continue
        slots = int(said.get("cluster_slots_ok", 0))
        if said.get("cluster_state") != "ok" or slots < 16_384:
            failing.append(f"{address} says {said.get('cluster_state')}, {slots:,} slots")
    yield Check(
        "cluster",
        Health.BAD if failing else Health.OK,
        "; ".join(failing) or f"ok, {len(nodes)} primaries",
        "lanes in slots that nobody serves wait: see CLUSTER NODES" if failing else "",
    )
    if len(offsets) > 1:
        first, last = min(offsets, key=offsets.__getitem__), max(offsets, key=offsets.__getitem__)
        apart = offsets[last] - offsets[first]
        good = 1000 * apart <= CLOCKS_APART_MS
        yield Check(
            "clocks of the nodes",
            Health.OK if good else Health.BAD,
            f"{apart:.3f} s apart" if good else f"{last} is {apart:.3f} s ahead of {first}",
            "" if good else "use NTP: what one node dates is read by another",
        )
    idle = set(nodes) - {
        "{}:{}".format(*client.place_of(keys.lane_prefix(lane))) for lane in settings.layout.lanes
    }
    yield Check(
        "lanes of the nodes",
        Health.WARN if idle else Health.OK,
        f"none on {', '.join(sorted(idle))}"
        if idle
        else f"{len(settings.layout.lanes)} on {len(nodes)}",
        "these nodes send nothing: more lanes spread better" if idle else "",
    )
    lone = sorted(set(nodes) - client.replicated())
    yield Check(
        "replicas",
        Health.WARN if lone else Health.OK,
        f"none of {', '.join(lone)}" if lone else "each primary has one",
        "when such a node dies, its lanes wait until it is back" if lone else "",
    )


def _sentinels(sentinels: Any) -> Iterator[Check]:
    """Check that the sentinels agree on a primary which is up, and could choose another."""
    named: dict[str, list[str]] = {}
    for address, one in sentinels.each().items():
        try:
            state = one.sentinel_master(sentinels.service)
        except redis.RedisError as error:
            yield Check(
                f"sentinel {address}",
                Health.WARN,
                str(error) if isinstance(error, redis.ResponseError) else type(error).__name__,
                "the others must agree without it",
            )
            continue
        primary = f"{state['ip']}:{state['port']}"
        named.setdefault(primary, []).append(address)
        replicas, others = int(state["num-slaves"]), int(state["num-other-sentinels"])
        quorum = int(state["quorum"])
        faults = [
            *(["it is down"] if state["is_sdown"] or state["is_odown"] else []),
            *(["it has no replica"] if not replicas else []),
            *([f"{others + 1} sentinels, quorum {quorum}"] if others + 1 < max(quorum, 3) else []),
        ]
        yield Check(
            f"sentinel {address}",
            Health.WARN if faults else Health.OK,
            f"primary {primary}{': ' if faults else ''}{', '.join(faults)}",
            "nobody could take over" if faults else "",
        )
    good = len(named) == 1
    yield Check(
        "sentinels",
        Health.OK if good else Health.BAD,
        f"all name {next(iter(named))}" if good else f"they name {len(named)} primaries",
        "" if good else f"look at {', '.join(map(' '.join, named.values())) or 'them'}",
    )
