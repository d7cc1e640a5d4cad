"""The service does what its OpenAPI document says, whatever is sent: with a key, and without.

Schemathesis makes requests of the document, right and wrong ones, and compares each answer with it:
status, content type, headers and body; and that wrong requests are refused.
"""

from collections.abc import Iterator

import pytest
import redis
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance
from web_house import APPS, Caller, House, opened

from producers.sandbox import SandboxConfig
from producers.sandbox.thread import SandboxThread
from producers.settings import Settings
from producers.web.routes import TABLE
from producers.web.routing.openapi import document

pytestmark = pytest.mark.timeout(120)

whole = schemathesis.openapi.from_dict(document(TABLE))
schema = whole.exclude(path="/console/events")  # it never ends: see test_web_sessions
fuzzed = settings(
    max_examples=15,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
BEYOND_A_SCHEMA = {
    "create_broadcast",
    "create_series",
    "dry_run_broadcast",  # of a form the spec comes first
    "post_message",
    "test_send_broadcast",  # WeChat's field rules
    "log_in",  # a code that WeChat knows
    "verify_url",
    "receive_push",  # a signature
    "plan_permits",
    "forecast_permits",  # one parameter needs another
    "measure_audience",  # what an expression looks like
    "import_app",  # the first line of an export
    "collect_permits",
    "add_members",
    "add_suppressed",  # an Idempotency-Key that had another body
    "replace_audience",
    "replace_suppressed",  # rows none of which names anybody
    "retry_broadcast",  # in_doubt must be named twice
    "list_audiences",
    "list_broadcasts",
    "list_recipients",
    "list_webhooks",  # a cursor that a page gave
}
"""Operations that may refuse what the document allows, and why."""
ROWS = {
    "collect_permits",
    "replace_audience",
    "add_members",
    "remove_members",
    "replace_suppressed",
    "add_suppressed",
    "remove_suppressed",
    "dry_run_broadcast",
}
"""Operations that take any text, and tell which of its rows are bad."""


@schemathesis.serializer("application/x-ndjson")
def lines(_context: object, value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")


@pytest.fixture(scope="module")
def house(valkey_url: str) -> Iterator[House]:
    """One service for all: what earlier requests left behind is part of the test."""
    apps = {app["appid"]: app["secret"] for app in APPS.values()}
    with SandboxThread(SandboxConfig(apps=apps)) as wechat:
        apps = {**APPS, "cafe": {**APPS["cafe"], "callback_token": "callbacktoken"}}
        with redis.Redis.from_url(valkey_url) as client:
            client.flushall()  # another test's deployment may have been born with other lanes
        given = {"redis_url": valkey_url, "wechat_url": wechat.url, "apps": apps, "buckets": 256}
        with opened(Settings(_env_file=None, **given)) as house:  # type: ignore[arg-type]
            yield house


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


@pytest.fixture
def master(house: House) -> Caller:
    return house.caller(apps=("*",), rate=1_000_000)


@schema.parametrize()
@fuzzed
def test_with_a_key(
    case: schemathesis.Case, house: House, master: Caller, session: requests.Session
) -> None:
    name = case.operation.definition.raw["operationId"]
    excluded = []
    if name in BEYOND_A_SCHEMA:
        excluded.append(positive_data_acceptance)
    if name in ROWS and case.media_type != "application/json":
        excluded.append(negative_data_rejection)
    case.call_and_validate(
        base_url=f"http://127.0.0.1:{house.port}",
        session=session,
        headers={"Authorization": f"Bearer {master.token}"},
        excluded_checks=excluded,
        timeout=20,
    )


@schema.parametrize()
@settings(fuzzed, max_examples=5)
def test_without_a_key(case: schemathesis.Case, house: House, session: requests.Session) -> None:
    case.headers = {
        name: text for name, text in (case.headers or {}).items() if name != "Authorization"
    }
    response = case.call_and_validate(
        base_url=f"http://127.0.0.1:{house.port}",
        session=session,
        excluded_checks=[positive_data_acceptance],
        timeout=20,
    )
    if case.operation.definition.raw["security"]:
        assert response.status_code in {401, 404, 405}
