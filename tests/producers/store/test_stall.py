"""Redis stalls: every verb ends in its own time, and nothing else of the program waits for it."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from own_valkey import APPS, OwnValkey, own_valkey

from producers import AsyncProducer, Producer
from producers.errors import (
    IllegalMoveError,
    InvalidInputError,
    LayoutMismatchError,
    NobodySendsError,
    NotFoundError,
    StoreUnavailableError,
)
from producers.exports.lines import Header
from producers.planning.plan import Planner

TIMEOUT_S = 0.3
GRACE_S = 0.7
NUMBERS = itertools.count()
SPEC = {
    "app": "shop",
    "channel": "subscribe",
    "template_id": "T",
    "data": {"thing1": "a"},
}
UPLOAD = {"openid": "oA", "subscriptions": {"T": "accept"}}


def uploads(count: int) -> list[dict[str, str]]:
    return [{"openid": f"o{next(NUMBERS)}", "formId": "f"} for _ in range(count)]


HEADER = Header("shop", APPS["shop"]["appid"], "0" * 32, "1" * 32, 1, 1, 256).line()
VERBS: dict[str, Callable[[Producer, str], Any]] = {
    "collect": lambda one, _: one.collect("shop", uploads(1)),
    "collect_lines": lambda one, _: one.collect_lines("shop", [b'{"openid":"oB","formId":"f"}']),
    "import_audience": lambda one, _: one.import_audience("shop", "vip", [b"oA"]),
    "replace_audience": lambda one, _: one.replace_audience("shop", "vip", [b"oA"]),
    "count_audience": lambda one, _: one.count_audience("shop", "vip"),
    "remove_from_audience": lambda one, _: one.remove_from_audience("shop", "vip", [b"oA"]),
    "delete_audience": lambda one, _: one.delete_audience("shop", "vip"),
    "suppress": lambda one, _: one.suppress("shop", [b"oZ"]),
    "replace_suppressed": lambda one, _: one.replace_suppressed("shop", [b"oZ"]),
    "unsuppress": lambda one, _: one.unsuppress("shop", [b"oZ"]),
    "suppressed": lambda one, _: one.suppressed("shop"),
    "opt_out": lambda one, _: one.opt_out("shop", "oZ"),
    "opt_in": lambda one, _: one.opt_in("shop", "oZ"),
    "audiences": lambda one, _: one.audiences("shop"),
    "user": lambda one, _: one.user("shop", "oA"),
    "forget_user": lambda one, _: one.forget_user("shop", "oA"),
    "forecast": lambda one, _: one.forecast("shop", "subscribe", "T"),
    "plan": lambda one, _: one.plan("shop", "oA"),
    "message": lambda one, _: one.message(**SPEC, openid="oA"),
    "message_status": lambda one, _: one.message_status("m00000aaaaaaaaaaaaaaa.oA"),
    "dry_run": lambda one, _: one.dry_run(**SPEC, audience="all"),
    "test_send": lambda one, _: one.test_send(["oA"], **SPEC),
    "broadcast": lambda one, _: one.broadcast(**SPEC, audience="all"),
    "status": lambda one, running: one.status(running),
    "watch": lambda one, running: next(one.watch(running)),
    "broadcasts": lambda one, _: one.broadcasts("shop"),
    "recipients": lambda one, running: one.recipients(running),
    "export_app": lambda one, _: list(one.export_app("shop")),
    "export_suppressed": lambda one, _: list(one.export_suppressed("shop")),
    "import_app": lambda one, _: one.import_app("shop", [HEADER]),
    "measure_audience": lambda one, _: one.measure_audience("shop", "all"),
    "iterate_recipients": lambda one, running: list(one.iterate_recipients(running)),
    "pause": lambda one, running: one.pause(running),
    "set_rate": lambda one, running: one.set_rate(running, 10),
    "set_weight": lambda one, running: one.set_weight(running, 3),
    "limits": lambda one, _: one.limits("shop"),
    "set_app_rate": lambda one, _: one.set_app_rate("shop", 100),
    "resume": lambda one, running: one.resume(running),
    "retry": lambda one, running: one.retry(running, "no_permit"),
    "webhooks": lambda one, _: one.webhooks("shop"),
    "replay_webhooks": lambda one, _: one.replay_webhooks("shop"),
    "cancel": lambda one, running: one.cancel(running),
    "templates": lambda one, _: one.templates("shop"),
    "create_series": lambda one, _: one.create_series("s", "0 21 * * *", **SPEC, audience="all"),
    "series": lambda one, _: one.series("shop"),
    "show_series": lambda one, _: one.show_series("shop", "s"),
    "pause_series": lambda one, _: one.pause_series("shop", "s"),
    "resume_series": lambda one, _: one.resume_series("shop", "s"),
    "delete_series": lambda one, _: one.delete_series("shop", "s"),
    "reschedule": lambda one, running: one.reschedule(running, "2099-12-01 21:00"),
}
NO_CALLS = {"close", "within", "settings", "timeout_s"}


@pytest.fixture(scope="module")
def valkey() -> Iterator[OwnValkey]:
    with own_valkey() as valkey:
        yield valkey


@pytest.fixture
def running(valkey: OwnValkey) -> str:
    """The id of a broadcast under way."""
    with Producer(valkey.settings) as producer:
        producer.collect("shop", [UPLOAD])
        return producer.broadcast(**SPEC, audience="all").id


def timed(call: Callable[[], Any]) -> tuple[BaseException | None, float]:
    began = time.monotonic()
    try:
        call()
    except BaseException as error:  # noqa: BLE001 - looked at by the test
        return error, time.monotonic() - began
    return None, time.monotonic() - began


def test_the_table_has_every_verb() -> None:
    verbs = {name for name in vars(Producer) if not name.startswith("_")}
    assert verbs - NO_CALLS == set(VERBS)


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_ends_in_time_in_each_of_four_threads(
    valkey: OwnValkey, running: str, verb: str, warm: bool
) -> None:
    """On open connections and on new ones, at once; and when Redis goes on, so do they."""
    call = VERBS[verb]
    with Producer(valkey.settings, timeout=TIMEOUT_S) as producer, ThreadPoolExecutor(4) as threads:
        if warm:  # with timeouts as the settings say
            list(threads.map(lambda _: producer.within(20).status(running), range(4)))
        with valkey.stalled():
            calls = [threads.submit(timed, lambda: call(producer, running)) for _ in range(4)]
            found = [one.result() for one in calls]
        for error, seconds in found:
            assert isinstance(error, StoreUnavailableError), error
            assert "Redis did not answer while" in str(error)
            assert f"{TIMEOUT_S} s allowed" in str(error)
            assert seconds < TIMEOUT_S + GRACE_S
        with contextlib.suppress(NotFoundError, IllegalMoveError, NobodySendsError):  # an answer
            call(producer.within(20), running)


def test_a_plan_takes_the_demand_that_is_there_while_another_thread_waits_for_a_new_one(
    valkey: OwnValkey, monkeypatch: pytest.MonkeyPatch, running: str
) -> None:
    with Producer(valkey.settings, timeout=1) as producer, ThreadPoolExecutor(1) as threads:
        producer.plan("shop", "oA")
        table = producer._place.here.the(Planner)._table
        monkeypatch.setattr("producers.permits.demand._FRESH_S", 0.0)
        with valkey.stalled():
            waiting = threads.submit(timed, lambda: producer.plan("shop", "oA"))
            while not table._reading.locked():
                time.sleep(0.001)
            began = time.monotonic()
            assert table.demand("shop") is table._kept["shop"][1]
            assert time.monotonic() - began < 0.5
            assert isinstance(waiting.result()[0], StoreUnavailableError)


def test_a_plan_waits_no_longer_than_its_own_timeout_for_anothers_reading(
    valkey: OwnValkey, running: str
) -> None:
    with Producer(valkey.settings, timeout=2) as producer, ThreadPoolExecutor(1) as threads:
        producer.status(running)
        table = producer._place.here.the(Planner)._table
        with valkey.stalled():
            waiting = threads.submit(timed, lambda: producer.plan("shop", "oA"))
            while not table._reading.locked():
                time.sleep(0.001)
            error, seconds = timed(lambda: producer.within(0.2).plan("shop", "oA"))
            assert isinstance(error, StoreUnavailableError)
            assert seconds < 0.2 + GRACE_S
        assert waiting.result()[0] is None


def test_the_timeout_is_the_settings_or_the_constructors_or_the_calls(valkey: OwnValkey) -> None:
    settings = valkey.made(producer_timeout=0.2)
    with (
        Producer(settings) as short,
        Producer(settings, timeout=0.4) as longer,
        valkey.stalled(),
    ):
        for producer, least, most in (
            (short, 0.1, 0.2),
            (longer, 0.2, 0.4),
            (longer.within(0.1), 0.05, 0.1),
        ):
            error, seconds = timed(lambda one=producer: one.status("x"))
            assert isinstance(error, StoreUnavailableError)
            assert least <= seconds < most + GRACE_S


@pytest.mark.parametrize("wrong", [0, -1, float("nan"), float("inf")])
def test_a_timeout_that_is_none_is_refused(valkey: OwnValkey, wrong: float) -> None:
    with pytest.raises(InvalidInputError, match="timeout"):
        Producer(valkey.settings, timeout=wrong)


def test_a_long_import_may_take_as_long_as_its_rows_do(valkey: OwnValkey) -> None:
    """The timeout is for each batch, and the reading of the caller's rows costs none of it."""

    def slow(rows: list[Any]) -> Iterator[Any]:
        for number, row in enumerate(rows):
            if number % 500 == 0:
                time.sleep(0.15)
            yield row

    with Producer(valkey.settings, timeout=0.3) as producer:
        assert producer.collect("shop", slow(uploads(2000))).new == 2000
        rows = [f"o{number}".encode() for number in range(2000)]
        assert producer.import_audience("shop", "slow", slow(rows)).added == 2000
        assert producer.remove_from_audience("shop", "slow", slow(rows)).removed == 2000


def test_an_import_that_stalls_in_the_middle_ends_in_time(valkey: OwnValkey) -> None:
    def stalling() -> Iterator[Any]:
        yield from uploads(1000)
        valkey.stall()
        yield from uploads(1000)

    with Producer(valkey.settings, timeout=TIMEOUT_S) as producer:
        error, seconds = timed(lambda: producer.collect("shop", stalling()))
        valkey.go_on()
        assert isinstance(error, StoreUnavailableError)
        assert seconds < TIMEOUT_S + 2 * GRACE_S


def test_a_server_starts_while_redis_is_away(valkey: OwnValkey) -> None:
    with valkey.stalled():
        began = time.monotonic()
        producer = Producer(valkey.settings)
        assert time.monotonic() - began < 0.5
    assert producer.collect("shop", uploads(1)).new == 1
    producer.close()


def test_a_layout_that_differs_is_said_by_the_first_call(valkey: OwnValkey, running: str) -> None:
    with Producer(valkey.made(lanes=4)) as producer:
        for _ in range(2):
            with pytest.raises(LayoutMismatchError, match="has 1"):
                producer.status(running)


async def test_two_hundred_calls_that_hang_leave_the_host_its_threads(
    valkey: OwnValkey, running: str
) -> None:
    """And each of them ends in its own time, though there are fewer threads than calls."""
    async with AsyncProducer(valkey.settings, timeout=1) as producer:
        await producer.status(running)
        with valkey.stalled():
            began = time.monotonic()
            calls = [
                asyncio.create_task(
                    producer.plan("shop", "oA") if n % 2 else producer.collect("shop", uploads(1))
                )
                for n in range(200)
            ]
            for _ in range(20):
                asked = time.monotonic()
                await asyncio.to_thread(time.monotonic)
                assert time.monotonic() - asked < 0.5
                await asyncio.sleep(0.01)
            assert not any(call.done() for call in calls)
            found = await asyncio.gather(*calls, return_exceptions=True)
            assert time.monotonic() - began < 1 + 2 * GRACE_S  # one after the other: seven
        assert {type(error) for error in found} == {StoreUnavailableError}
        assert (await producer.collect("shop", uploads(1))).new == 1


async def test_a_short_call_does_not_wait_for_the_threads_of_long_ones(
    valkey: OwnValkey, running: str
) -> None:
    async with AsyncProducer(valkey.settings, timeout=6) as producer:
        with valkey.stalled():
            calls = [asyncio.create_task(producer.status(running)) for _ in range(100)]
            await asyncio.sleep(0)
            began = time.monotonic()
            with pytest.raises(StoreUnavailableError, match="nothing was done"):
                await producer.within(0.2).status(running)
            assert time.monotonic() - began < 0.2 + GRACE_S
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert not [one for one in answers if isinstance(one, BaseException)]


async def test_a_cancelled_call_that_no_thread_had_begun_was_not_made(
    valkey: OwnValkey, running: str
) -> None:
    async with AsyncProducer(valkey.settings, timeout=5) as producer:
        before = await producer.count_audience("shop", "all")
        with valkey.stalled():
            hanging = [asyncio.create_task(producer.status(running)) for _ in range(32)]
            await asyncio.sleep(0.05)
            call = asyncio.create_task(producer.collect("shop", uploads(1)))
            await asyncio.sleep(0.05)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        await asyncio.gather(*hanging)
        assert await producer.count_audience("shop", "all") == before


async def test_slow_uploads_hold_up_no_other_call(valkey: OwnValkey, running: str) -> None:
    def endless(stop: list[bool]) -> Iterator[bytes]:
        while not stop:
            time.sleep(0.02)
            yield b'{"openid":"oSlow","formId":"f"}'

    async with AsyncProducer(valkey.settings, timeout=2) as producer:
        stop: list[bool] = []
        streams = [
            asyncio.create_task(producer.collect_lines("shop", endless(stop))) for _ in range(20)
        ]
        await asyncio.sleep(0.1)
        for _ in range(10):
            assert (await producer.status(running)).id == running
        stop.append(True)
        await asyncio.gather(*streams)
