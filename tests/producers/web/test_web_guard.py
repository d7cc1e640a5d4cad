"""A key that was seen is good for a while where Redis does not answer, and not for longer."""

import asyncio

import pytest
from own_valkey import OwnValkey, own_valkey

from producers import store
from producers.access.api_keys import ApiKeys
from producers.access.sessions import Sessions
from producers.errors import StoreUnavailableError
from producers.web.http.problem import ProblemError
from producers.web.traffic.guard import Guard
from producers.web.traffic.threads import Threads


async def _seen_while_it_is_away(valkey: OwnValkey) -> None:
    settings = valkey.settings
    client = store.connect(settings)
    now = 100.0
    keys = ApiKeys(client, settings)
    shown, other = (keys.create("test", ["shop"], ["read"], 40) for _ in range(2))
    with Threads(4, "guard", 0.6) as pool:
        guard = Guard(keys, Sessions(client), pool, lambda: now)
        assert (await guard.identify(shown.token)).id == shown.key.id
        with valkey.stalled():
            for now in (100.9, 101.1, 129.9):  # noqa: B007  (the guard's clock)
                key = await guard.identify(shown.token)
            for _ in range(40):  # its own rate, of a second
                await guard.admit(key)
            with pytest.raises(ProblemError, match="40 requests per second"):
                await guard.admit(key)
            with pytest.raises(ProblemError, match="no key here"):
                await guard.identify(shown.token[:-1] + ("B" if shown.token[-1] == "A" else "A"))
            with pytest.raises((StoreUnavailableError, TimeoutError)):
                await guard.identify(other.token)
            now = 130.1
            with pytest.raises((StoreUnavailableError, TimeoutError)):
                await guard.identify(shown.token)
        assert (await guard.identify(shown.token)).id == shown.key.id
        keys.revoke(shown.key.id)
        now = 131.2
        with pytest.raises(ProblemError, match="revoked"):
            await guard.identify(shown.token)
    client.close()
    client.connection_pool.disconnect()


def test_a_key_that_was_seen_is_good_for_half_a_minute_without_redis() -> None:
    with own_valkey() as valkey:
        store.check_layout(valkey.client, valkey.settings)
        asyncio.run(_seen_while_it_is_away(valkey))
