"""The figures of a process and of the deployment, as Prometheus reads them."""

import threading

import pytest
from prometheus_client.parser import text_string_to_metric_families
from promtool import promtool
from shop import Shop

from producers.board import Board, Boards
from producers.errors import StoreUnavailableError
from producers.metrics import Deployment, Meter, exposed
from producers.metrics.deployment import EVERY_S

Samples = dict[tuple[str, ...], float]


def apps_first(value: str) -> bool:
    return value not in {"shop", "club"}


def samples(text: bytes) -> Samples:
    """Return (name, label values, the app's first …) → value."""
    return {
        (sample.name, *sorted(sample.labels.values(), key=apps_first)): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_answers_are_counted_by_outcome_errcode_and_time() -> None:
    meter = Meter()
    for _ in range(3):
        meter.answered("shop", "settled", "delivered", 0, 60.0)
    meter.answered("shop", "settled", "refused", 43101, 9_000.0)
    meter.answered("shop", "stale", "", 43101, 60.0)  # another worker has its message
    meter.answered("club", "delayed", "", -1, 10.0)
    found = samples(exposed(meter))
    assert found["wxbroadcast_answers_total", "shop", "settled", "delivered"] == 3
    assert found["wxbroadcast_answers_total", "club", "delayed", ""] == 1
    assert found["wxbroadcast_errcodes_total", "shop", "43101"] == 1
    latency = "wxbroadcast_send_latency_seconds"
    assert found[f"{latency}_bucket", "shop", "0.05"] == 0
    assert found[f"{latency}_bucket", "shop", "0.075"] == 4
    assert found[f"{latency}_bucket", "shop", "8.0"] == 4
    assert found[f"{latency}_bucket", "shop", "+Inf"] == found[f"{latency}_count", "shop"] == 5
    assert found[f"{latency}_bucket", "club", "0.01"] == 1
    assert found[f"{latency}_sum", "shop"] == pytest.approx(9.24)


def test_codes_that_somebody_makes_up_are_bounded() -> None:
    meter = Meter()
    for code in range(1, 100_000):
        meter.answered("shop", "settled", "failed", code, 1.0)
    found = samples(exposed(meter))
    codes = [one for one in found if one[0] == "wxbroadcast_errcodes_total"]
    assert len(codes) == 201
    assert found["wxbroadcast_errcodes_total", "shop", "other"] == 99_999 - 200


def test_who_scrapes_while_others_count_gets_a_whole_answer() -> None:
    meter = Meter()
    ended = threading.Event()

    def count() -> None:
        number = 0
        while not ended.is_set():
            number += 1
            meter.answered(f"app{number % 50}", "settled", "delivered", number % 60, 5.0)

    thread = threading.Thread(target=count)
    thread.start()
    try:
        for _ in range(30):
            assert samples(exposed(meter)) is not None
    finally:
        ended.set()
        thread.join()


@pytest.fixture
def deployment(shop: Shop) -> Deployment:
    shop.collector.collect("shop", [{"openid": f"o{n}", "formId": f"f{n}"} for n in range(5)])
    return Deployment(Boards(shop.client, shop.settings))


def test_the_deployments_figures_are_those_of_redis(shop: Shop, deployment: Deployment) -> None:
    shop.run_dry(shop.broadcast())
    shop.broadcasts.pause(shop.broadcast())
    found = samples(exposed(deployment.of(lambda _: True)))
    assert found[("wxbroadcast_redis_up",)] == 1
    assert found[("wxbroadcast_workers",)] == 0
    assert found["wxbroadcast_broadcasts", "shop", "paused"] == 1
    assert found["wxbroadcast_permit_uses_total", "shop", "spent"] == 5
    assert found["wxbroadcast_permit_stock", "shop", "available"] == 0
    assert found["wxbroadcast_hindered", "shop"] == 1
    none = samples(exposed(deployment.of(lambda _: False)))
    assert not [one for one in none if "shop" in one]


def test_names_and_texts_are_as_prometheus_wants_them(deployment: Deployment) -> None:
    meter = Meter()
    meter.answered("shop", "settled", "failed", 40037, 1.0)
    text = exposed(deployment.of(lambda _: True), meter)
    assert promtool("check", "metrics", given=text.decode()) == ""
    assert b"o1" not in text


def test_however_many_scrape_redis_is_looked_at_once(shop: Shop) -> None:
    looks, now = [0], [100.0]

    class Counting(Boards):
        def look(self, _apps: object = None) -> Board:
            looks[0] += 1
            if looks[0] == 2:
                raise StoreUnavailableError("away")
            return super().look()

    deployment = Deployment(Counting(shop.client, shop.settings), lambda: now[0])
    for _ in range(20):
        assert samples(exposed(deployment.of(bool)))[("wxbroadcast_redis_up",)] == 1
    now[0] += EVERY_S
    assert samples(exposed(deployment.of(bool)))[("wxbroadcast_redis_up",)] == 0
    assert samples(exposed(deployment.of(bool)))[("wxbroadcast_redis_up",)] == 0
    now[0] += EVERY_S
    assert samples(exposed(deployment.of(bool)))[("wxbroadcast_redis_up",)] == 1
    assert looks[0] == 3
