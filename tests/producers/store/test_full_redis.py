"""Redis is full: looking, stopping and deleting work; what stores is refused with clear words."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cli_runs import run
from own_valkey import OwnValkey, own_valkey

from producers import Producer, store
from producers.access.api_keys import ApiKey, ApiKeys, Scope
from producers.access.limits import Limit, Limits
from producers.care import doctor
from producers.care.audit import Auditor
from producers.errors import StoreUnavailableError
from producers.store import keys
from producers.words import State

SPEC = {
    "app": "shop",
    "channel": "subscribe",
    "template_id": "T",
    "data": {"thing1": "a"},
}
FULL = "1mb"
"""Less than an empty server uses: every command that may need memory is refused."""


@pytest.fixture(scope="module")
def valkey() -> Iterator[OwnValkey]:
    with own_valkey() as valkey:
        yield valkey


@pytest.fixture
def producer(valkey: OwnValkey) -> Iterator[Producer]:
    valkey.client.config_set("maxmemory", "0")
    valkey.client.flushall()
    with Producer(valkey.settings) as producer:
        yield producer
    valkey.client.config_set("maxmemory", "0")


@pytest.fixture
def broadcast(valkey: OwnValkey, producer: Producer) -> str:
    """A broadcast to two users, on a server that is full since."""
    uploads = [{"openid": one, "subscriptions": {"T": "accept"}} for one in ("oA", "oB")]
    producer.collect("shop", uploads)
    producer.import_audience("shop", "vip", [b"oA", b"oB", b"oC"])
    created = producer.broadcast(**SPEC, audience="vip").id
    valkey.client.config_set("maxmemory", FULL)
    return created


@pytest.fixture
def late(valkey: OwnValkey, broadcast: str) -> Iterator[Producer]:
    """A producer of a process that starts when it is full already."""
    with Producer(valkey.settings) as late:
        yield late


def test_everything_can_be_looked_at(late: Producer, broadcast: str) -> None:
    assert late.status(broadcast).total == 3
    assert next(late.watch(broadcast)).state is State.RUNNING
    assert [one.id for one in late.broadcasts("shop").broadcasts] == [broadcast]
    assert len(late.recipients(broadcast, "queued").rows) == 3
    assert list(late.iterate_recipients(broadcast)) == []
    assert late.user("shop", "oA").audiences == ["all", "vip"]
    assert dict(late.audiences("shop").audiences) == {"all": 2, "vip": 3}
    assert late.count_audience("shop", "vip") == 3
    assert late.forecast("shop", "subscribe", "T").members == 2
    assert late.plan("shop", "oC").templates


def test_a_broadcast_is_paused_resumed_and_cancelled(late: Producer, broadcast: str) -> None:
    assert late.pause(broadcast) is State.PAUSED
    assert late.resume(broadcast) is State.RUNNING
    assert late.set_rate(broadcast, 1) is State.RUNNING
    assert late.cancel(broadcast) is State.CANCELLED
    assert late.status(broadcast).outcomes == {"cancelled": 3}


def test_users_and_audiences_go(valkey: OwnValkey, late: Producer, broadcast: str) -> None:
    assert late.remove_from_audience("shop", "vip", [b"oC"]).removed == 1
    forgotten = late.forget_user("shop", "oA")
    assert (forgotten.uses, forgotten.audiences, forgotten.dropped) == (1, 2, 1)
    assert late.delete_audience("shop", "vip") == 1
    assert dict(late.audiences("shop").audiences) == {"all": 1}
    assert Auditor(valkey.client, valkey.settings).run().wrong == []


STORES: dict[str, Callable[[Producer], Any]] = {
    "collect": lambda one: one.collect("shop", [{"openid": "oZ", "formId": "f"}]),
    "collect of a known user": lambda one: one.collect(
        "shop", [{"openid": "oA", "subscriptions": {"T": "accept"}}]
    ),
    "import": lambda one: one.import_audience("shop", "vip", [b"oZ"]),
    "broadcast": lambda one: one.broadcast(**SPEC, audience="vip"),
    "message": lambda one: one.message(**SPEC, openid="oA"),
}


@pytest.mark.parametrize("verb", STORES)
def test_what_stores_is_refused_at_once_and_changes_nothing(
    valkey: OwnValkey, late: Producer, verb: str
) -> None:
    before = set(valkey.client.keys())
    with pytest.raises(StoreUnavailableError, match=r"full \(maxmemory\).*more memory"):
        STORES[verb](late)
    assert set(valkey.client.keys()) == before
    assert Auditor(valkey.client, valkey.settings).run().wrong == []


def test_keys_are_counted_and_strangers_refused(valkey: OwnValkey, broadcast: str) -> None:
    api_keys = ApiKeys(valkey.client, valkey.settings)
    known = ApiKey("k1", "n", frozenset({"shop"}), frozenset({Scope.READ}), 5, 0, "")
    assert api_keys.lease(known, 9).granted == 5
    assert api_keys.lease(known, 9).granted == 0
    address = Limit(keys.login_flood("shop", "a"), 5)
    with pytest.raises(StoreUnavailableError):
        Limits(valkey.client).admit("shop", [address])
    assert not valkey.client.exists(address.key)


def test_a_deployment_is_not_born_on_a_full_redis(valkey: OwnValkey, producer: Producer) -> None:
    valkey.client.config_set("maxmemory", FULL)
    with pytest.raises(StoreUnavailableError, match="full"):
        store.check_layout(valkey.client, valkey.settings)
    with pytest.raises(StoreUnavailableError, match="full"):
        producer.status("x")
    assert not valkey.client.exists(keys.DEPLOYMENT)


def test_the_operators_commands_work(valkey: OwnValkey, broadcast: str) -> None:
    for command in (
        ["status", broadcast],
        ["list", "--app", "shop"],
        ["audit"],
        ["recipients", broadcast, "--outcome", "queued"],
        ["user", "show", "--app", "shop", "--openid", "oA"],
        ["audience", "list", "--app", "shop"],
        ["pause", broadcast],
        ["user", "forget", "--app", "shop", "--openid", "oA"],
        ["audience", "delete", "--app", "shop", "vip"],
    ):
        ran = run(valkey.settings, *command)
        assert ran.code == 0, (command, ran.err)
    assert run(valkey.settings, "cancel", broadcast).code in {0, 3}


def test_the_doctor_says_that_it_is_full(valkey: OwnValkey, broadcast: str) -> None:
    client = store.connect(valkey.settings)
    checks = {check.name: check for check in doctor._examine_redis(client, valkey.settings)}
    client.connection_pool.disconnect()
    assert checks["layout"].health is doctor.Health.OK
    assert checks["memory"].health is not doctor.Health.OK
