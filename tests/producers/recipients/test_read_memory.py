"""What a reader needs does not grow with what is read: recipients, forecasts, audiences."""

import tracemalloc
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from shop import Shop

from producers.planning import forecast as module
from producers.planning.forecast import Forecaster
from producers.recipients import Recipients
from producers.store import keys
from producers.store.buckets import next_recipient_buckets

FEW, MANY = 5_000, 25_000
SLACK = 700_000
"""Bytes: a page here or there, and what the interpreter keeps of strings."""


def openid(number: int) -> str:
    return f"oGZUI0egBJY1zhBYw2K{number:09d}"


def rows(count: int) -> Iterator[bytes]:
    return (openid(number).encode() for number in range(count))


def most(run: Callable[[], Any]) -> int:
    """Return the most memory (bytes) that a call held at once."""
    run()  # what is made once, like a compiled script, is there
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        run()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.fixture
def wide(shop: Shop, make_settings: Any) -> Shop:
    """Give a shop with as many buckets as a deployment has, so that no bucket is large."""
    shop.client.flushall()
    return Shop(shop.client, make_settings(buckets=4096))


def settled(shop: Shop, recipients: int) -> str:
    """Give a broadcast whose recipients were all delivered, written as settling writes it."""
    shop.audiences.import_rows("shop", "few", [openid(0).encode()])
    broadcast = shop.broadcast(audience="few")
    pipeline = shop.client.pipeline(transaction=False)
    for number in range(recipients):
        bucket = shop.bucket(openid(number))
        pipeline.hset(keys.outcomes(0, broadcast, bucket), openid(number), "delivered")
        pipeline.expire(keys.outcomes(0, broadcast, bucket), 600)
        pipeline.setbit(keys.recipients(0, broadcast), bucket, 1)
        if number % 5000 == 0:
            pipeline.execute()
    pipeline.execute()
    return broadcast


@pytest.mark.timeout(60)
def test_an_export_needs_the_same_for_few_and_for_many(wide: Shop) -> None:
    recipients = Recipients(wide.client, wide.settings)
    peaks = []
    for count in (20_000, 50_000):  # two full pages, and more
        broadcast = settled(wide, count)
        assert sum(1 for _ in recipients.iterate(broadcast)) == count
        peaks.append(most(lambda one=broadcast: deque(recipients.iterate(one), maxlen=0)))
    assert peaks[1] <= peaks[0] + SLACK


def test_a_page_needs_the_same_wherever_it_lies(wide: Shop) -> None:
    recipients = Recipients(wide.client, wide.settings)
    broadcast = settled(wide, MANY)
    for bucket in (0, 2000, 4000):
        page = recipients.page(broadcast, None, f"0.{bucket}.0", 100)
        assert 100 <= len(page.rows) < 100 + 64 * 40  # whole buckets of one trip


def test_the_buckets_of_a_hundred_million_users_are_read_in_pieces(wide: Shop) -> None:
    broadcast, bits = settled(wide, 1), 1_600_000
    key = keys.recipients(0, broadcast)
    wide.client.execute_command("SETRANGE", key, 0, b"\xff" * (bits // 8))
    found = next_recipient_buckets(wide.client, 0, broadcast, 800_003)
    assert found[0] == 800_003
    assert 0 < len(found) <= 16_384
    assert next_recipient_buckets(wide.client, 0, broadcast, bits) == []
    assert most(lambda: next_recipient_buckets(wide.client, 0, broadcast, 0)) < 2_000_000


def test_a_forecast_looks_at_a_sample_of_many(wide: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SCANNED", FEW - 1)
    monkeypatch.setattr(module, "_SAMPLED", 2000)
    forecaster = Forecaster(wide.client, wide.settings)
    peaks = []
    for name, count in (("few", FEW), ("many", MANY)):
        wide.audiences.import_rows("shop", name, rows(count))
        found = forecaster.forecast("shop", "template", audience=name)
        assert (found.method, found.members) == ("sample", count)
        assert found.sampled < 2 * 2000
        ask = lambda one=name: forecaster.forecast("shop", "template", audience=one)  # noqa: E731
        peaks.append(most(ask))
    assert peaks[1] <= peaks[0] + SLACK


@pytest.mark.timeout(60)
def test_an_audience_comes_and_goes_in_pieces(wide: Shop) -> None:
    peaks = []
    audiences = wide.audiences
    for name, count in (("few", FEW), ("many", MANY)):
        add = lambda of=name, n=count: audiences.import_rows("shop", of, rows(n))  # noqa: E731
        remove = lambda of=name, n=count: audiences.remove_rows("shop", of, rows(n))  # noqa: E731
        peaks.append((most(add), most(remove)))
        add()
        assert audiences.delete("shop", name) == count
    assert peaks[1][0] <= peaks[0][0] + SLACK
    assert peaks[1][1] <= peaks[0][1] + SLACK
