"""What a primary does that is cut off from its replicas is looked at where there are any."""

from pathlib import Path
from typing import Any

import pytest
from failover import pair
from own_valkey import APPS, own_valkey

from producers import store
from producers.care import servers
from producers.care.check import Check, Health
from producers.local.isolation import isolated
from producers.local.nodes import await_true

NAME = "min-replicas-to-write"


def looked(url: str, replicas: int = 0) -> Check | None:
    settings = isolated({"redis_url": url, "apps": APPS, "redis_replicas": replicas})
    client = store.connect(settings)
    try:
        return next((one for one in servers.examine(client, settings) if one.name == NAME), None)
    finally:
        client.close()
        client.connection_pool.disconnect()


@pytest.mark.timeout(60)
def test_a_primary_that_goes_on_alone_is_told(tmp_path: Path) -> None:
    with pair(tmp_path) as two:
        primary = two.primary

        def says(least: int, lag_s: int) -> Any:
            primary.ask("CONFIG SET", NAME, least, "min-replicas-max-lag", lag_s)
            found = looked(two.url)
            assert found is not None
            return found

        for off in (says(0, 10), says(1, 0)):
            assert off.health is Health.WARN
            assert "set `min-replicas-to-write 1`" in off.advice
        assert says(1, 60).health is Health.WARN
        assert "min-replicas-max-lag 10" in says(1, 60).advice
        good = says(1, 10)
        assert (good.health, good.advice) == (Health.OK, "")
        assert says(2, 10).health is Health.BAD
        primary.ask("CONFIG SET", NAME, 1)
        two.replica.server.kill()
        await_true(lambda: looked(two.url, 1).health is Health.BAD, "none is left")


def test_a_server_of_its_own_is_not_asked_about_replicas_unless_they_are_awaited() -> None:
    with own_valkey() as valkey:
        assert looked(valkey.url) is None
        found = looked(valkey.url, 1)
        assert found is not None
        assert found.health is Health.WARN
        valkey.client.execute_command("ACL SETUSER default -config")
        found = looked(valkey.url, 1)
        assert found is not None
        assert found.health is Health.SKIPPED
        assert NAME in found.advice
