"""What is wrong with Redis is named, with what to change: at once, and at every door."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from certificate import Certificate
from cli_runs import run
from mishaps import closed_port
from own_valkey import APPS, OwnValkey, own_valkey
from tls_way import tls_way

from producers import Producer, store
from producers.care import doctor
from producers.errors import SettingsError, StoreUnavailableError
from producers.local.isolation import isolated
from producers.settings import Settings

MakeSettings = Callable[..., Settings]
MINE = "127.0.0.1"


def said_by_the_start(settings: Settings) -> str:
    client = store.connect(settings)
    with pytest.raises(StoreUnavailableError) as caught:
        store.check_layout(client, settings)
    client.connection_pool.disconnect()
    return str(caught.value)


def said_by_a_call(settings: Settings, within_s: float) -> str:
    with Producer(settings) as producer:
        began = time.monotonic()
        with pytest.raises(StoreUnavailableError) as caught:
            producer.status("x")
        assert time.monotonic() - began < within_s
    return str(caught.value)


def said_by_a_command(settings: Settings) -> str:
    ran = run(settings, "list", "--app", "shop")
    assert ran.code == 4
    return ran.err


def said_by_the_doctor(settings: Settings) -> str:
    checks = {check.name: check for check in doctor.examine(settings)}
    assert checks["redis"].health is doctor.Health.BAD
    return checks["redis"].advice


def assert_all_say(settings: Settings, *parts: str, within_s: float = 1.0) -> None:
    for text in (
        said_by_the_start(settings),
        said_by_a_call(settings, within_s),
        said_by_a_command(settings),
        said_by_the_doctor(settings),
    ):
        for part in parts:
            assert part in text.replace("\n", " ")
        assert "open-sesame" not in text


@pytest.fixture
def no_wechat(make_settings: MakeSettings) -> MakeSettings:
    """Settings whose WeChat is not there: the doctor asks it too."""

    def make(**changes: Any) -> Settings:
        return make_settings(wechat_url=f"http://127.0.0.1:{closed_port()}", **changes)

    return make


@pytest.mark.parametrize(
    ("names", "days", "trusted", "said"),
    [
        ((MINE,), 1, False, ["self-signed certificate", "WXB_REDIS_CA_FILE=/path/to/ca.pem"]),
        ((MINE,), -1, True, ["has expired", "renew it"]),
        (("redis.example.com",), 1, True, ["set WXB_REDIS_URL to a name that stands in it"]),
    ],
    ids=["unknown", "expired", "another name"],
)
def test_a_wrong_certificate_is_named(
    no_wechat: MakeSettings,
    settings: Settings,
    tmp_path: Path,
    names: tuple[str, ...],
    days: int,
    trusted: bool,
    said: list[str],
) -> None:
    certificate = Certificate(tmp_path, *names, days=days)
    with tls_way(settings.redis_url.get_secret_value(), certificate) as address:
        query = f"?ssl_check_hostname=true&ssl_ca_certs={certificate.path}" if trusted else ""
        far = no_wechat(redis_url=f"rediss://:open-sesame@{address}/0{query}")
        assert_all_say(far, "TLS: the certificate of Redis does not hold", *said)


@pytest.mark.parametrize(
    ("url", "checks"),
    [
        ("rediss://h/0", True),
        ("rediss+sentinel://h/main", True),
        ("rediss://h/0?ssl_check_hostname=false", False),
        ("rediss://h/0?ssl_cert_reqs=none", None),
        ("redis://h/0", None),
    ],
)
def test_a_certificate_is_of_the_name_that_was_asked_for(
    make_settings: MakeSettings, url: str, checks: bool | None
) -> None:
    """Also with a redis-py before 6, which asks for it only where it is told to."""
    with contextlib.closing(store.connect(make_settings(redis_url=url))) as client:
        assert client.connection_pool.connection_kwargs.get("ssl_check_hostname") is checks


def test_what_the_words_say_to_set_mends_it(
    make_settings: MakeSettings, settings: Settings, tmp_path: Path
) -> None:
    certificate, mine = Certificate(tmp_path, MINE), Certificate(tmp_path / "mine", MINE)
    with tls_way(settings.redis_url.get_secret_value(), certificate, mine) as address:
        url = f"rediss://{address}/0?ssl_ca_certs={certificate.path}"
        said_by_a_call(make_settings(redis_url=url, producer_timeout=0.3), 0.8)  # in any words
        url += f"&ssl_certfile={mine.path}&ssl_keyfile={mine.key_path}"
        with Producer(make_settings(redis_url=url)) as producer:
            assert producer.collect("shop", [{"openid": "oA", "formId": "f"}]).new == 1


def test_a_redis_without_tls_is_told_from_one_that_is_down(
    no_wechat: MakeSettings, settings: Settings
) -> None:
    url = settings.redis_url.get_secret_value().replace("redis://", "rediss://")
    far = no_wechat(redis_url=url, redis_timeout=0.3, producer_timeout=1)
    assert_all_say(far, "TLS: Redis did not answer the handshake", "set redis://", within_s=1.5)


def test_a_password_that_is_wrong_is_said_at_once(
    no_wechat: MakeSettings, settings: Settings
) -> None:
    url = settings.redis_url.get_secret_value().replace("://", "://nobody:open-sesame@")
    assert_all_say(no_wechat(redis_url=url), "Redis refuses WXB_REDIS_URL")


@pytest.fixture
def replica(settings: Settings, client: Any) -> Iterator[OwnValkey]:
    """A read-only replica of the deployment."""
    address = settings.redis_url.get_secret_value().partition("://")[2].partition("/")[0]
    host, _, port = address.partition(":")
    with own_valkey() as valkey:
        valkey.client.replicaof(host, port)
        yield valkey
        valkey.client.replicaof("NO", "ONE")


def test_a_replica_can_be_read_and_is_named_where_one_writes(
    replica: OwnValkey, eventually: Any
) -> None:
    up = "in sync with its primary"
    eventually(lambda: replica.client.info("replication")["master_link_status"] == "up", up)
    eventually(replica.client.dbsize, up)
    with Producer(replica.settings, timeout=1) as producer:
        assert producer.broadcasts("shop").broadcasts == []
        with pytest.raises(StoreUnavailableError, match="read-only replica: set WXB_REDIS_URL"):
            producer.collect("shop", [{"openid": "oA", "formId": "f"}])


def test_a_redis_that_is_not_there_is_named_by_its_setting(no_wechat: MakeSettings) -> None:
    settings = no_wechat(redis_url=f"redis://:open-sesame@127.0.0.1:{closed_port()}/0")
    assert_all_say(settings, "does not answer at WXB_REDIS_URL", "start it", within_s=5)


def test_what_is_no_redis_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as web:

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    caller, _ = web.accept()
                    with caller:
                        caller.recv(65_536)
                        caller.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        url = f"redis://127.0.0.1:{web.getsockname()[1]}/0"
        with (
            Producer(isolated({"redis_url": url, "apps": APPS}), timeout=2) as producer,
            pytest.raises(StoreUnavailableError, match="no Redis"),
        ):
            producer.count_audience("shop", "all")
        web.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def test_a_database_that_there_is_not_is_named(valkey_url: str) -> None:
    url = f"{valkey_url}/99"
    with (
        Producer(isolated({"redis_url": url, "apps": APPS}), timeout=2) as producer,
        pytest.raises(StoreUnavailableError, match="DB index"),
    ):
        producer.count_audience("shop", "all")


@pytest.mark.parametrize("password", ["p/w", "p?w", "a@b/c"])
def test_a_password_that_ends_the_host_is_to_be_encoded(password: str) -> None:
    url = f"redis://:{password}@127.0.0.1:6379/0"
    with pytest.raises(SettingsError, match="percent-encoded") as caught:
        isolated({"redis_url": url, "apps": APPS})
    assert password not in str(caught.value)


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_a_parameter_that_there_is_not_is_named(scheme: str) -> None:
    url = f"{scheme}://:hidden@127.0.0.1:6379/0?nonsense=1"
    with pytest.raises(SettingsError, match="unknown parameter: 'nonsense'") as caught:
        isolated({"redis_url": url, "apps": APPS})
    assert "hidden" not in str(caught.value)


def test_what_the_url_may_say_is_taken() -> None:
    url = "redis://user:p%40ss@127.0.0.1:6379/0?client_name=me&socket_keepalive=True"
    assert isolated({"redis_url": url, "apps": APPS})
    assert isolated({"redis_url": "unix:///tmp/redis.sock?db=1", "apps": APPS})
