"""One script call under way: its reply comes, whatever becomes of the connection meanwhile."""

from typing import Any

import pytest
import redis

from producers import store
from producers.store import scripts
from producers.store.ahead import Ahead

COUNT = """
local known = redis.call('GET', KEYS[1] .. ':' .. ARGV[1])
if known then return known end
local count = redis.call('INCR', KEYS[1])
redis.call('PEXPIRE', KEYS[1], 60000)
redis.call('SET', KEYS[1] .. ':' .. ARGV[1], count, 'PX', 60000)
return tostring(count)
"""
"""Counts each token once, and answers a known one as before."""


@pytest.fixture
def ahead(client: "redis.Redis") -> Ahead:
    return Ahead(client, client.register_script(COUNT), "counting")


def test_calls_are_answered_in_their_order(ahead: Ahead) -> None:
    for expected in range(1, 20):
        ahead.start(["n"], [scripts.new_token()])
        assert ahead.finish() == str(expected)


def test_a_server_that_does_not_know_the_script_learns_it(
    ahead: Ahead, client: "redis.Redis"
) -> None:
    client.script_flush()
    ahead.start(["n"], [scripts.new_token()])
    assert ahead.finish() == "1"


def test_a_reply_that_was_lost_is_asked_for_again(ahead: Ahead, client: "redis.Redis") -> None:
    for expected in range(1, 6):
        ahead.start(["n"], [scripts.new_token()])
        client.client_kill_filter(_type="normal", skipme=True)
        assert ahead.finish() == str(expected)
    assert client.get("n") == "5"


def test_a_wrong_call_is_said_and_the_next_one_runs(ahead: Ahead, client: "redis.Redis") -> None:
    client.set("text", "no number", ex=60)
    ahead.start(["text"], [scripts.new_token()])
    with pytest.raises(redis.ResponseError, match="not an integer"):
        ahead.finish()
    ahead.start(["n"], [scripts.new_token()])
    assert ahead.finish() == "1"


def test_what_is_given_up_disturbs_nobody(settings: Any) -> None:
    client = store.connect(settings, connections=1)
    ahead = Ahead(client, client.register_script(COUNT), "counting")
    for _ in range(5):
        ahead.start(["n"], [scripts.new_token()])
        ahead.close()
        assert client.ping() is True  # on the only connection, and with an answer of its own
    ahead.close()
    client.close()
    client.connection_pool.disconnect()
