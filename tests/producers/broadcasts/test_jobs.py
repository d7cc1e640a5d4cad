"""Jobs: Dramatiq messages that any Dramatiq worker understands, and no worker code to make them."""

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest
from dramatiq.brokers.redis import RedisBroker

from producers.broadcasts import jobs
from producers.broadcasts.jobs import Jobs
from producers.settings import Settings
from producers.store import keys


@pytest.fixture
def stock_broker(client: Any, settings: Settings) -> Iterator[RedisBroker]:
    """Give Dramatiq's own broker on our namespace, as a worker would open it."""
    broker = RedisBroker(
        url=settings.redis_url.get_secret_value(),
        namespace=keys.DRAMATIQ_NAMESPACE,
        middleware=[],
        maintenance_chance=0,
    )
    broker.declare_queue(jobs.SPLIT)
    yield broker
    broker.close()
    broker.client.close()
    broker.client.connection_pool.disconnect()


def test_the_stock_broker_reads_what_is_enqueued(client: Any, stock_broker: RedisBroker) -> None:
    Jobs(client).split("b-1")
    Jobs(client).split("b-2")
    consumer = stock_broker.consume(jobs.SPLIT, prefetch=2, timeout=1000)
    read = []
    for _ in range(2):
        message = next(consumer)
        assert message is not None
        read.append((message.actor_name, message.queue_name, message.args, message.kwargs))
        consumer.ack(message)
    assert read == [("split", "split", ("b-1",), {}), ("split", "split", ("b-2",), {})]
    consumer.close()
    stock_broker.join(jobs.SPLIT, timeout=1000)


def test_an_actor_of_the_stock_kind_runs_it(client: Any, stock_broker: RedisBroker) -> None:
    ran: list[str] = []

    @dramatiq.actor(actor_name=jobs.SPLIT, queue_name=jobs.SPLIT, broker=stock_broker)
    def split(broadcast: str) -> None:
        ran.append(broadcast)

    worker = dramatiq.Worker(stock_broker, worker_threads=1, worker_timeout=100)
    worker.start()
    try:
        Jobs(client).split("b-1")
        stock_broker.join(jobs.SPLIT, timeout=5000)
        worker.join()
    finally:
        worker.stop()
    assert ran == ["b-1"]


def test_all_of_the_edges_lie_under_one_tag(client: Any, settings: Settings) -> None:
    before = set(client.scan_iter())
    Jobs(client).split("b-1")
    made = set(client.scan_iter()) - before
    assert made
    assert all(key.startswith("{wxb:jobs}:") for key in made)


def run_fresh(code: str) -> str:
    """Run code in a process of its own, warnings being errors."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=25,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_producers_loads_no_workers_and_starts_nothing() -> None:
    out = run_fresh(
        """
        import importlib, pkgutil, socket, sys, threading

        def refuse(*_):
            raise AssertionError("an import opened a socket")

        socket.socket.connect = refuse
        import producers

        names = [module.name for module in pkgutil.walk_packages(producers.__path__, "producers.")]
        for name in names:
            if not name.endswith("__main__"):
                importlib.import_module(name)
        assert len(names) > 20
        assert not [name for name in sys.modules if name.split(".")[0] == "workers"]
        assert threading.active_count() == 1, threading.enumerate()
        """
    )
    assert out == ""


def test_importing_producers_sets_no_broker_of_its_own() -> None:
    run_fresh(
        """
        import producers.broadcasts
        import dramatiq.broker

        assert dramatiq.broker.global_broker is None
        """
    )
