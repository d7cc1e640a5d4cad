"""WeChat pushes, the service takes, workers send: what users choose and receive, end to end."""

import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from producers.care.audit import Auditor
from producers.local import Local

pytestmark = pytest.mark.timeout(120)
TOKEN = "callbacktoken"
AES_KEY = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
APPID = "wx00000000000000ca"
POPUP, CHANGE = "subscribe_msg_popup_event", "subscribe_msg_change_event"
Eventually = Callable[..., Any]


@pytest.fixture(scope="module")
def whole_local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    app = {
        "appid": APPID,
        "callback_token": TOKEN,
        "callback_aes_key": AES_KEY,
        "subscription_source": "events",
    }
    with Local(tmp_path_factory.mktemp("local"), apps={"shop": app}, buckets=64) as local:
        yield local


@pytest.fixture
def local(whole_local: Local) -> Iterator[Local]:
    yield whole_local
    whole_local.clean()


def connect(local: Local, **changes: Any) -> None:
    """Fill in the console's form."""
    fields = {"url": f"{local.serve()}/wechat/shop", "token": TOKEN, "encoding_aes_key": AES_KEY}
    local.wechat.configure(callback={**fields, "mode": "secure", **changes})


def choose(local: Local, openid: str, status: str, event: str = POPUP) -> None:
    item = {"TemplateId": "T", "SubscribeStatusString": status, "PopupScene": "0"}
    local.wechat.push(APPID, openid, event, item)


def balance(local: Local, openid: str) -> int:
    """Return how many accepts a user has left."""
    return local.producer.user("shop", openid).usable["subscription"]


def broadcast(local: Local, key: str | None = None) -> str:
    return local.producer.broadcast(
        app="shop",
        channel="subscribe",
        template_id="T",
        audience="all",
        data={"thing1": "每日签到"},
        key=key,
    ).id


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("style", ["json", "xml"])
def test_what_wechat_pushes_decides(
    local: Local, eventually: Eventually, first: bool, style: str
) -> None:
    """Accepts count once, a withdrawal voids, receipts settle: before the answer or after it."""
    failing = {"openid": "o1", "error_code": 7}
    connect(local, format=style, duplicates=1, before_reply=first, receipts=[failing])
    for number in range(5):
        choose(local, f"o{number}", "accept")
    eventually(lambda: [balance(local, f"o{n}") for n in range(5)] == [1] * 5, "all have one")
    choose(local, "o4", "reject", CHANGE)
    eventually(lambda: balance(local, "o4") == 0, "one has none any more")
    one = broadcast(local)
    local.wait(one)
    eventually(
        lambda: (
            local.producer.status(one).outcomes == {"delivered": 3, "no_permit": 1, "failed": 1}
        ),
        "each has the outcome that WeChat says",
    )
    assert local.wechat.counts() == dict.fromkeys(("o0", "o1", "o2", "o3"), 1)
    assert Auditor(local._client, local.settings).run().wrong == []


def test_a_lost_answer_is_settled_by_its_receipt(local: Local, eventually: Eventually) -> None:
    connect(local)
    for number in range(3):
        choose(local, f"o{number}", "accept")
    eventually(lambda: balance(local, "o2") == 1, "all have one")
    local.wechat.fail({"action": "cut_after", "openid": "o1"})
    one = broadcast(local)
    local.wait(one)
    eventually(
        lambda: local.producer.status(one).outcomes == {"delivered": 3},
        "what was in doubt is delivered",
    )
    assert Auditor(local._client, local.settings).run().wrong == []


def test_the_service_may_be_killed_while_wechat_pushes(
    local: Local, eventually: Eventually
) -> None:
    """What it answered is kept; what it did not answer comes again; all of it counts once."""
    connect(local, redelivery_delay_ms=2000, duplicates=1)
    for number in range(30):
        if number in {7, 19}:
            local._supervisor.kill("web.1", signal.SIGKILL)
        choose(local, f"o{number}", "accept")
    eventually(
        lambda: [balance(local, f"o{n}") for n in range(30)] == [1] * 30,
        "each accept counts once",
        within_s=30,  # the lease of the one that was killed
    )
    assert Auditor(local._client, local.settings).run().wrong == []
