"""A backend as mypy sees it, which reads it in CI: both doors give it their whole types."""

from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, assert_type

from producers import AsyncProducer, Producer
from producers.audiences.reports import AudiencePage, ImportReport
from producers.broadcasts import Created
from producers.broadcasts.messages import MessageStatus, Posted
from producers.broadcasts.status import Status, StatusPage
from producers.permits.report import Report
from producers.planning.forecast import Forecast
from producers.planning.plan import Plan
from producers.quotas import AppLimits
from producers.recipients.pages import Page, Recipient
from producers.rehearsals import DryRun, Tried
from producers.users import UserCard
from producers.users.forget import Forgotten
from producers.words import State


def blocking(producer: Producer) -> None:
    assert_type(producer.collect("shop", [{}]), Report)
    assert_type(producer.import_audience("shop", "vip", [b"oA", "oB"]), ImportReport)
    assert_type(producer.count_audience("shop", name="vip"), int)
    assert_type(producer.audiences("shop", limit=5), AudiencePage)
    assert_type(producer.user("shop", "oA"), UserCard)
    assert_type(producer.forget_user("shop", "oA"), Forgotten)
    assert_type(producer.forecast("shop", "template", rate=None), Forecast)
    assert_type(producer.plan("shop", "oA", most=2), Plan)
    assert_type(producer.message(key="k", app="shop"), Posted)
    assert_type(producer.message_status("m"), MessageStatus)
    assert_type(producer.dry_run(app="shop"), DryRun)
    assert_type(producer.test_send(["oA"], wait=5, app="shop"), Tried)
    assert_type(producer.broadcast(app="shop"), Created)
    assert_type(producer.within(0.5).status("b"), Status)
    assert_type(producer.watch("b"), Iterator[Status])
    assert_type(producer.broadcasts("shop", "", 20), StatusPage)
    assert_type(producer.recipients("b", outcome="delivered"), Page)
    assert_type(producer.iterate_recipients("b"), Iterator[Recipient])
    assert_type(producer.set_rate("b", 5), State)
    assert_type(producer.set_app_rate("shop", None), float)
    assert_type(producer.limits("shop"), AppLimits)
    assert_type(producer.resume("b", after_restore=True), State)


async def awaited(producer: AsyncProducer) -> None:
    status: Coroutine[Any, Any, Status] = producer.status("b")
    assert_type(await status, Status)
    assert_type(await producer.collect("shop", [{}]), Report)
    assert_type(await producer.import_audience("shop", "vip", [b"oA", "oB"]), ImportReport)
    assert_type(await producer.count_audience("shop", name="vip"), int)
    assert_type(await producer.forecast("shop", "template", rate=None), Forecast)
    assert_type(await producer.message(key="k", app="shop"), Posted)
    assert_type(await producer.within(0.5).broadcast(app="shop"), Created)
    assert_type(producer.watch("b"), AsyncIterator[Status])
    assert_type(await producer.recipients("b", outcome="delivered"), Page)
    assert_type(producer.iterate_recipients("b"), AsyncIterator[Recipient])
    assert_type(await producer.resume("b", after_restore=True), State)


async def wrong(producer: Producer, other: AsyncProducer) -> None:
    producer.user("shop")  # type: ignore[call-arg]
    producer.user("shop", 5)  # type: ignore[arg-type]
    producer.recipients("b", limt=5)  # type: ignore[call-arg]
    producer.resume("b", True)  # type: ignore[call-arg]
    await other.collect("shop")  # type: ignore[call-arg]
    await other.user("shop", 5)  # type: ignore[arg-type]
    await other.import_audience("shop", "vip", [5])  # type: ignore[list-item]
    await other.message(key=5)  # type: ignore[arg-type]
    await other.resume("b", True)  # type: ignore[call-arg]
