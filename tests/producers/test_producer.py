"""The Python door: the same verbs, sync and async."""

import pytest

from producers import AsyncProducer, Producer
from producers.errors import InvalidInputError
from producers.words import State

SPEC = {
    "app": "shop",
    "channel": "template",
    "template_id": "T1",
    "data": {"keyword1": {"value": "a"}},
    "audience": "all",
}
UPLOADS = [{"openid": "o1", "formIds": ["a", "b"]}, {"openid": "o2", "prepayId": "wx1"}]


def test_a_backend_collects_broadcasts_and_cancels(settings) -> None:
    with Producer(settings) as producer:
        assert producer.collect("shop", UPLOADS).new == 3
        created = producer.broadcast(**SPEC, key="k")
        assert producer.broadcast(**SPEC, key="k").id == created.id
        assert producer.status(created.id).total == 2
        assert producer.pause(created.id) is State.PAUSED
        assert producer.resume(created.id) is State.RUNNING
        assert producer.cancel(created.id) is State.CANCELLED
        assert producer.status(created.id).outcomes == {"cancelled": 2}


async def test_an_async_backend_does_the_same(settings) -> None:
    async with await AsyncProducer.open(settings) as producer:
        assert (await producer.collect("shop", UPLOADS)).new == 3
        assert (await producer.import_audience("shop", "vip", [b"o1", b"o9"])).added == 2
        assert await producer.count_audience("shop", "vip") == 2
        created = await producer.broadcast(**{**SPEC, "audience": "vip"})
        assert (await producer.status(created.id)).total == 2
        assert await producer.cancel(created.id) is State.CANCELLED


def test_bad_input_stores_nothing(settings, client) -> None:
    before = set(client.keys())
    with Producer(settings) as producer, pytest.raises(InvalidInputError) as caught:
        producer.broadcast(**{**SPEC, "data": {"thing1": ""}, "template_id": "", "rate": -1})
    assert len(caught.value.faults) >= 3
    assert set(client.keys()) == before
