"""The link: bytes pass, connections are cut, replies are lost after the work was done."""

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from producers.local.link import Link, opened

Eventually = Callable[..., object]


@pytest.fixture
def link(valkey_url: str) -> Iterator[Link]:
    """Give a link in front of the run's Valkey."""
    with opened(urlsplit(valkey_url).port or 0, seed=1) as link:
        yield link


@pytest.fixture
def through(link: Link, client: redis.Redis) -> Iterator[redis.Redis]:
    """Give a client behind the link that tries once, and an empty database."""
    client.flushall()
    with redis.Redis.from_url(
        link.url, socket_timeout=5, retry=Retry(NoBackoff(), 0), decode_responses=True
    ) as through:
        yield through
    client.delete("n", "long")


def test_what_is_sent_arrives_both_ways(through: redis.Redis) -> None:
    text = "x" * 3_000_000
    through.set("long", text)
    assert through.get("long") == text


def test_a_cut_drops_what_is_open_and_refuses_what_comes(link: Link, through: redis.Redis) -> None:
    assert through.ping()
    link.cut()
    for _ in range(3):
        with pytest.raises(redis.ConnectionError):
            through.ping()
    link.heal()
    assert through.ping()
    assert link.connections == 2


def test_a_lost_reply_means_that_the_command_ran(
    link: Link, through: redis.Redis, client: redis.Redis
) -> None:
    through.ping()
    link.lose(1)
    with pytest.raises(redis.ConnectionError):
        through.incr("n")
    link.lose(0)
    assert client.get("n") == "1"
    assert through.incr("n") == 2


def test_some_replies_are_lost_with_their_share(link: Link, valkey_url: str) -> None:
    link.lose(0.1)
    lost = 0
    for _ in range(500):
        with socket.create_connection(("127.0.0.1", link.port), timeout=5) as one:
            try:
                one.sendall(b"PING\r\n")
                lost += one.recv(64) == b""
            except ConnectionResetError:
                lost += 1
    assert lost == link.lost
    assert 25 <= lost <= 80


def test_a_server_that_is_not_there_closes_the_connection() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with opened(unused.getsockname()[1]) as link:
            client = redis.Redis.from_url(link.url, retry=Retry(NoBackoff(), 0), socket_timeout=5)
            with pytest.raises(redis.ConnectionError):
                client.ping()
            client.close()


def test_it_passes_thousands_of_replies_a_second(link: Link, client: redis.Redis) -> None:
    def ping(_: int) -> None:
        with redis.Redis.from_url(link.url, socket_timeout=5) as one:
            for _ in range(500):
                one.ping()

    started = time.monotonic()
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(ping, range(4)))
    assert link.replies >= 2000
    assert link.replies / (time.monotonic() - started) > 1000


def test_ending_it_closes_every_connection(valkey_url: str) -> None:
    with opened(urlsplit(valkey_url).port or 0) as link:
        one = socket.create_connection(("127.0.0.1", link.port), timeout=5)
        one.sendall(b"PING\r\n")
        assert one.recv(64) == b"+PONG\r\n"
    with one:
        with contextlib.suppress(ConnectionResetError):
            assert one.recv(64) == b""
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", link.port), timeout=5)
