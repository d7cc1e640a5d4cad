"""Logins beside bad codes: they cost those who send them, and WeChat's quota only so much."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Self

import pytest
from web_house import APPS, Caller, House

from producers.sandbox import SandboxConfig
from producers.sandbox.thread import SandboxThread

pytestmark = pytest.mark.timeout(120)

LOGIN = "/v1/apps/shop/login"
PHONES, AT_ONCE = 150, 15


@pytest.fixture
def wechat() -> Iterator[SandboxThread]:
    apps = {app["appid"]: app["secret"] for app in APPS.values()}
    with SandboxThread(SandboxConfig(apps=apps)) as sandbox:
        for number in range(PHONES):
            sandbox.give_code(f"good-{number}", f"oPhone{number}")
        yield sandbox


class Crook:
    """Sends bad codes from our own address, over so many connections at once, without a pause."""

    def __init__(self, house: House, at_once: int) -> None:
        self._call, self._end = Caller(house.port), threading.Event()
        self._codes = count()
        self._threads = [threading.Thread(target=self._go) for _ in range(at_once)]
        self.got: Counter[int] = Counter()

    def _go(self) -> None:
        while not self._end.is_set():
            self.got[self._call.post(LOGIN, {"code": f"bad-{next(self._codes)}"}).status] += 1

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.parametrize("at_once", [1, 8])
def test_beside_bad_codes_of_their_address_phones_log_in(
    open_house: Callable[..., House],
    wechat: SandboxThread,
    eventually: Callable[..., None],
    at_once: int,
) -> None:
    house = open_house(wechat_url=wechat.url, logins_per_minute=1200)
    most = house.settings.refused_codes_per_minute
    with Crook(house, at_once) as crook:
        eventually(lambda: crook.got[422] >= most, "the crook has used up what is unproven")
        began = time.monotonic()
        with ThreadPoolExecutor(AT_ONCE) as phones:
            got = Counter(
                phones.map(
                    lambda number: house.anybody.post(LOGIN, {"code": f"good-{number}"}).status,
                    range(PHONES),
                )
            )
        seconds = time.monotonic() - began
    assert got[200] >= 145, (got, crook.got)
    # good codes use nothing up: by what the limit lets pass anew, 150 would take half a minute
    assert seconds < (20 if at_once == 1 else 60)
    assert set(crook.got) <= {422, 429}
    asked = crook.got[422]
    assert asked <= most * 2, crook.got  # of a minute: all at once, and as many again
