"""The Python door: the same verbs, sync and async."""

import inspect
import json
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import pytest

from producers import AsyncProducer, Producer
from producers.errors import InvalidInputError, NotFoundError, SettingsError, UnknownAppError
from producers.producer import place
from producers.rows import BadRowsError
from producers.settings import Settings
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
        made = producer.retry(created.id, "cancelled", key="again", page="pages/b")
        assert (made.recipients, producer.status(made.id).retry_of) == (2, created.id)
        assert producer.retry(created.id, ["cancelled"], key="again", page="pages/b").known


async def test_a_backend_schedules_and_moves_what_it_scheduled(settings) -> None:
    today = datetime.now(UTC)
    soon, later = ((today + timedelta(days=days)).isoformat() for days in (1, 2))
    async with AsyncProducer(settings) as producer:
        await producer.collect("shop", UPLOADS)
        created = await producer.broadcast(**SPEC, at=soon, until=later)
        assert (await producer.status(created.id)).state is State.SCHEDULED
        with Producer(settings) as other:
            assert other.reschedule(created.id, later, until=today + timedelta(days=3)) is (
                State.SCHEDULED
            )
            assert other.status(created.id).starts_at_ms % 86_400_000 == pytest.approx(
                today.timestamp() * 1000 % 86_400_000, abs=1
            )
        assert await producer.reschedule(created.id, today + timedelta(hours=1)) == "scheduled"
        assert await producer.cancel(created.id) is State.CANCELLED


async def test_a_backend_has_a_series(settings) -> None:
    async with AsyncProducer(settings) as producer:
        await producer.collect("shop", UPLOADS)
        made = await producer.create_series("evening", "0 21 * * *", zone="UTC", **SPEC)
        with Producer(settings) as other:
            assert other.series("shop") == [made]
        assert (await producer.pause_series("shop", "evening")).state == "paused"
        assert (await producer.resume_series("shop", "evening")).state == "active"
        assert (await producer.show_series("shop", "evening")).next_at_ms == made.next_at_ms
        await producer.delete_series("shop", "evening")
        assert await producer.series("shop") == []


async def test_a_backend_tells_each_what_a_row_says(settings, tmp_path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"openid": "o1", "n": 1}\n{"openid": "o2", "n": 2}\n{"openid": "o3"}\n')
    spec = {
        **{name: SPEC[name] for name in SPEC if name != "audience"},
        "data": {"keyword1": "{n}"},
    }
    async with AsyncProducer(settings) as producer:
        with pytest.raises(BadRowsError, match="row 3: no column 'n'"):
            await producer.broadcast(**spec, rows=file)
        created = await producer.broadcast(**spec, rows=file, skip_bad=True, key="k")
        with Producer(settings) as other:  # the same rows, in another form
            rows = [{"openid": "o1", "n": 1}, {"openid": "o2", "n": "2"}]
            again = other.broadcast(**spec, rows=iter(rows), key="k")
        assert (again.id, again.known) == (created.id, True)
        assert created.rows is not None
        assert created.rows.as_dict() == {
            "rows": 3,
            "bad": 1,
            "rules": {"columns": 1},
            "listed": [{"row": 3, "detail": "no column 'n'"}],
        }
        assert (await producer.status(created.id)).total == 2


async def test_an_async_backend_does_the_same(settings) -> None:
    async with AsyncProducer(settings) as producer:
        assert (await producer.collect("shop", UPLOADS)).new == 3
        assert (await producer.import_audience("shop", "vip", [b"o1", b"o8"])).added == 2
        assert (await producer.replace_audience("shop", "vip", [b"o1", b"o9"])).removed == 1
        assert await producer.count_audience("shop", "vip") == 2
        created = await producer.broadcast(**{**SPEC, "audience": "vip"})
        assert (await producer.status(created.id)).total == 2
        assert await producer.cancel(created.id) is State.CANCELLED
        assert (await producer.retry(created.id, ["cancelled"])).recipients == 2


def test_bad_input_stores_nothing(settings, client) -> None:
    before = set(client.keys())
    with Producer(settings) as producer, pytest.raises(InvalidInputError) as caught:
        producer.broadcast(**{**SPEC, "data": {"thing1": ""}, "template_id": "", "rate": -1})
    assert len(caught.value.faults) >= 3
    assert set(client.keys()) == before


SUBSCRIBE = {**SPEC, "channel": "subscribe", "template_id": "T" * 43, "data": {"thing1": "a"}}


def test_a_backend_looks_at_everything(settings) -> None:
    with Producer(settings) as producer:
        producer.collect("shop", UPLOADS)
        producer.import_audience("shop", "vip", [b"o1", b"o9"])
        created = producer.broadcast(**{**SUBSCRIBE, "audience": "vip"})
        assert [one.id for one in producer.broadcasts("shop").broadcasts] == [created.id]
        queued = [one.openid for one in producer.recipients(created.id, "queued").rows]
        assert sorted(queued) == ["o1", "o9"]
        assert list(producer.iterate_recipients(created.id)) == []
        assert producer.user("shop", "o1").usable["form_id"] == 2
        assert producer.forecast("shop", "template").members == 2
        assert [one.template_id for one in producer.plan("shop", "o1").templates] == ["T" * 43]
        assert producer.suppress("shop", [b"o7"]).added == 1
        assert producer.replace_suppressed("shop", [b"o8"]).removed == 1
        producer.opt_out("shop", "o6")
        assert producer.suppressed("shop")["opted_out"] == 1
        assert producer.opt_in("shop", "o6")
        assert producer.unsuppress("shop", [b"o8"]).removed == 1
        assert producer.audiences("shop").audiences == [("all", 2), ("vip", 2)]
        assert producer.remove_from_audience("shop", "vip", [b"o9"]).removed == 1
        assert producer.forget_user("shop", "o1").uses == 2
        assert producer.delete_audience("shop", "vip") == 0
        assert producer.audiences("shop").audiences == [("all", 1)]


async def test_an_async_backend_looks_at_everything(settings) -> None:
    async with AsyncProducer(settings) as producer:
        await producer.collect("shop", UPLOADS)
        await producer.import_audience("shop", "vip", [b"o1", b"o9"])
        created = await producer.broadcast(**{**SUBSCRIBE, "audience": "vip"})
        assert [one.id for one in (await producer.broadcasts("shop")).broadcasts] == [created.id]
        queued = [one.openid async for one in producer.iterate_recipients(created.id, "queued")]
        assert sorted(queued) == ["o1", "o9"]
        assert (await producer.user("shop", "o1")).usable["form_id"] == 2
        assert (await producer.forecast("shop", "template")).members == 2
        assert len((await producer.plan("shop", "o1")).templates) == 1
        assert (await producer.remove_from_audience("shop", "vip", [b"o9"])).removed == 1
        assert (await producer.forget_user("shop", "o1")).uses == 2
        assert await producer.delete_audience("shop", "vip") == 0
        assert (await producer.audiences("shop")).audiences == [("all", 1)]


def verbs(door: type) -> dict[str, Any]:
    return {
        name: verb
        for name, verb in vars(door).items()
        if callable(verb) and not name.startswith("_")
    }


STREAMED = {"watch", "iterate_recipients", "export_app", "export_suppressed"}


def test_both_have_the_same_verbs_with_the_same_arguments() -> None:
    blocking, awaited = verbs(Producer), verbs(AsyncProducer)
    assert sorted(awaited) == sorted(blocking)
    for name, verb in blocking.items():
        kept, other = inspect.signature(verb), inspect.signature(awaited[name])
        if name in STREAMED:
            assert other.return_annotation == AsyncIterator[get_args(kept.return_annotation)]
            other = other.replace(return_annotation=kept.return_annotation)
        assert other == kept, name
        assert inspect.Signature.empty not in {
            kept.return_annotation,
            *(one.annotation for one in list(kept.parameters.values())[1:]),
        }
        assert inspect.iscoroutinefunction(awaited[name]) != (name in {*STREAMED, "within"})


def test_every_verb_explains_itself_under_its_own_name() -> None:
    for door in (Producer, AsyncProducer):
        for name, verb in verbs(door).items():
            assert verb.__doc__, name
            assert (verb.__module__, verb.__qualname__) == (
                door.__module__,
                f"{door.__name__}.{name}",
            )


def test_watching_ends_when_every_recipient_has_an_outcome(settings) -> None:
    with Producer(settings) as producer:
        producer.collect("shop", UPLOADS)
        created = producer.broadcast(**SPEC)
        watching = producer.watch(created.id, timedelta(milliseconds=1))
        assert next(watching).state is State.RUNNING
        assert not next(watching).complete
        producer.cancel(created.id)
        assert [status.outcomes for status in watching] == [{"cancelled": 2}]
        with pytest.raises(NotFoundError):
            next(producer.watch("nobody"))


async def test_watching_leaves_the_event_loop_free(settings) -> None:
    async with AsyncProducer(settings) as producer:
        await producer.collect("shop", UPLOADS)
        created = await producer.broadcast(**SPEC)
        seen = []
        async for status in producer.watch(created.id, timedelta(milliseconds=1)):
            if not seen:
                await producer.cancel(created.id)
            seen.append(status.state)
        assert seen == [State.RUNNING, State.CANCELLED]


def test_one_made_where_a_module_is_loaded_reads_its_settings_when_it_is_called(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    producer = Producer()  # there are no settings yet
    with pytest.raises(SettingsError, match="WXB_REDIS_URL"):
        producer.count_audience("shop", "all")
    monkeypatch.setenv("WXB_REDIS_URL", settings.redis_url.get_secret_value())
    monkeypatch.setenv("WXB_APPS", '{"shop": {"appid": "wx1", "secret": "s"}}')
    monkeypatch.setenv("WXB_BUCKETS", "256")
    assert producer.count_audience("shop", "all") == 0
    producer.close()


def test_one_that_was_never_called_closes_nothing() -> None:
    Producer().close()


MESSAGE = {"app": "shop", "channel": "template", "template_id": "T", "data": "a"}


@pytest.mark.parametrize("wrong", [{"key": ""}, {"key": 17}, {"openid": b"oA"}, {"openid": 5}])
def test_what_is_no_text_or_no_key_is_wrong_input(settings: Settings, wrong: Any) -> None:
    with Producer(settings) as producer, pytest.raises(InvalidInputError, match=r"key|openid"):
        producer.message(**{**MESSAGE, "openid": "oA", **wrong})


def test_rows_of_an_audience_are_bytes_or_text_and_nothing_else(settings: Settings) -> None:
    with Producer(settings) as producer:
        report = producer.import_audience("shop", "vip", ["oA", b"oB", 7, None, "o C"])  # type: ignore[list-item]
        assert (report.added, report.bad) == (2, 3)
        assert [row for row, _ in report.listed] == [3, 4, 5]


def test_one_that_lives_long_follows_the_apps_file(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks at its calls, now and then: there is no thread of ours in a backend."""
    monkeypatch.setattr(place, "_LOOK_EVERY_S", 0.0)
    file = tmp_path / "apps.json"
    shop = {"appid": "wx1", "secret": "shop-secret"}
    file.write_text(json.dumps({"shop": shop}))
    followed = Settings(_env_file=None, redis_url=settings.redis_url, buckets=256, apps_file=file)
    threads = threading.active_count()
    with Producer(followed) as producer, producer.within(2) as same:
        assert producer.collect("shop", UPLOADS).new == 3
        with pytest.raises(UnknownAppError):
            same.collect("cafe", UPLOADS)
        file.write_text(json.dumps({"cafe": {"appid": "wx2", "secret": "cafe-secret"}}))
        with pytest.raises(UnknownAppError):
            producer.collect("cafe", UPLOADS)  # seen once, it may be half of it
        assert same.collect("cafe", UPLOADS).new == 3
        with pytest.raises(UnknownAppError, match="no app 'shop'"):
            producer.collect("shop", UPLOADS)
    assert threading.active_count() == threads
