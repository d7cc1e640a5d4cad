"""The script in node, the service as its own process, the sandbox as WeChat: nothing is pretended.

Each run of node is one run of the mini-program; what it keeps on the phone is a file.
"""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from producers.broadcasts import Broadcasts
from producers.broadcasts.spec import Spec
from producers.local import procfile
from producers.permits.collect import Collector
from producers.permits.ledger import totals
from producers.sandbox import FaultRule, Sandbox, SandboxConfig
from producers.settings import Settings
from producers.store import clock, keys
from producers.suppressions import Suppressions

pytestmark = pytest.mark.timeout(120)

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
APP = {"appid": "wx0000000000000001", "secret": "shop-secret"}
WEEK_MS = 7 * 24 * 3600 * 1000
WITHIN_S = 30.0
WANTED, OTHER = "T" * 43, "U" * 43
LOGIN = ["POST", "/v1/apps/shop/login", 200]
COLLECT = ["POST", "/v1/apps/shop/collect", 200]
PLAN = ["GET", "/v1/apps/shop/permits/plan", 200]

Seen = dict[str, Any]


class Service:
    """The service as a process, on one port through its restarts."""

    def __init__(self, **env: str) -> None:
        self.env = env
        self.port = 0
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            BIN / "wxbroadcast",
            *("web", "--port", str(self.port)),
            env=self.env,
            stdout=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(WITHIN_S):
            while not self._told(await self._line()):
                pass
        self._reader = asyncio.create_task(self._drain())

    async def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        process = self._process
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.send_signal(number)
        async with asyncio.timeout(WITHIN_S):
            await process.wait()
            if self._reader is not None:
                await self._reader
        self._process = None

    async def _line(self) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        assert line, "the service ended before it listened"
        return line

    def _told(self, line: bytes) -> bool:
        found = json.loads(line) if line.startswith(b"{") else {}
        if found.get("event") != "web_started":
            return False
        self.port = found["port"]
        return True

    async def _drain(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        while await self._process.stdout.readline():
            pass


class House:
    """The service, WeChat, and one phone whose user is oAnna."""

    def __init__(
        self, node: str, folder: Path, client: Any, settings: Settings, sandbox: Sandbox
    ) -> None:
        self._node = node
        self._folder = folder
        self.client = client
        self.settings = settings
        self.sandbox = sandbox
        self.broadcasts = Broadcasts(client, settings)
        self._codes = 0
        self.service = Service(
            PATH=str(BIN),
            WXB_REDIS_URL=settings.redis_url.get_secret_value(),
            WXB_APPS=json.dumps({"shop": APP}),
            WXB_BUCKETS=str(settings.buckets),
            WXB_WECHAT_URL=sandbox.url,
        )

    def login_code(self, openid: str = "oAnna") -> str:
        """Return what wx.login would give this user's phone."""
        self._codes += 1
        code = f"code-{self._codes}"
        self.sandbox.state.codes.give(code, openid, self.sandbox.state.now())
        return code

    async def start_phone(self, *steps: object, **options: Any) -> asyncio.subprocess.Process:
        """Start a run of the mini-program."""
        codes = [self.login_code() for _ in range(3)]
        order = {
            "url": self.service.url,
            "file": str(self._folder / "phone.json"),
            "codes": codes,
            "steps": [step if isinstance(step, list) else [step] for step in steps],
            **options,
        }
        return await asyncio.create_subprocess_exec(
            self._node,
            *(str(HERE / "drive.js"), json.dumps(order)),
            stdout=asyncio.subprocess.PIPE,
        )

    async def phone(self, *steps: object, **options: Any) -> Seen:
        """Run the mini-program until nothing is on its way; returns what it saw."""
        process = await self.start_phone(*steps, **options)
        async with asyncio.timeout(WITHIN_S):
            out, _ = await process.communicate()
        assert process.returncode == 0
        seen: Seen = json.loads(out)
        return seen

    def permits(self, openid: str = "oAnna") -> dict[str, float]:
        found = self.client.zrange(keys.permits(0, "shop", openid), 0, -1, withscores=True)
        return dict(found)

    def stored_form_ids(self) -> set[str]:
        return {member.removeprefix("f:") for member in self.permits()}

    def accepts(self, template: str, openid: str = "oAnna") -> int:
        return int(self.client.hget(keys.subscriptions(0, "shop", openid), template) or 0)

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[None]:
        """Run the Procfile's worker."""
        process = await asyncio.create_subprocess_shell(
            f"exec {procfile.read()['worker']}",
            env=self.service.env,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            yield
        finally:
            process.terminate()
            async with asyncio.timeout(WITHIN_S):
                await process.wait()

    async def outcomes(self, broadcast: str) -> dict[str, int]:
        """Wait until a broadcast has ended; what became of its recipients."""
        async with asyncio.timeout(WITHIN_S):
            while True:
                status = self.broadcasts.status(broadcast)
                if status.complete:
                    return dict(status.outcomes)
                await asyncio.sleep(0.02)

    def collected(self) -> int:
        return totals(self.client, self.settings, "shop").total.collected

    def now_ms(self) -> int:
        return clock.now_ms(self.client)

    @property
    def stored(self) -> dict[str, Any]:
        """What lies on the phone."""
        kept = json.loads((self._folder / "phone.json").read_text())
        found: dict[str, Any] = json.loads(kept["wxbroadcast:push-code"])
        return found

    @property
    def waiting(self) -> list[str]:
        """The form_ids that wait on the phone."""
        if not (self._folder / "phone.json").exists():
            return []
        return [code["formId"] for code in self.stored["codes"]]

    def store(self, **changes: Any) -> None:
        """Change what lies on the phone."""
        kept = {"wxbroadcast:push-code": json.dumps(self.stored | changes)}
        (self._folder / "phone.json").write_text(json.dumps(kept))


@asynccontextmanager
async def _running(service: Service) -> AsyncIterator[None]:
    try:
        await service.start()
        yield
    finally:
        await service.end()


@pytest.fixture
async def house(
    node: str, tmp_path: Path, client: Any, make_settings: Callable[..., Settings]
) -> AsyncIterator[House]:
    config = SandboxConfig(apps={APP["appid"]: APP["secret"]})
    async with Sandbox(config) as sandbox:
        made = House(node, tmp_path, client, make_settings(), sandbox)
        async with _running(made.service):
            yield made


async def test_what_a_user_taps_is_stored_for_that_user(house: House) -> None:
    before = house.now_ms()
    seen = await house.phone(
        *(["collect", f"form{n}"] for n in range(3)),
        ["collect", "the formId is a mock one"],
        "hide",
    )
    assert seen["seen"] == [LOGIN, COLLECT]
    assert seen["waiting"] == []
    permits = house.permits()
    assert sorted(permits) == ["f:form0", "f:form1", "f:form2"]
    for ends in permits.values():
        assert before - 3000 < ends - WEEK_MS < house.now_ms() + 1
    assert house.collected() == 3


async def test_the_next_run_needs_no_login(house: House) -> None:
    await house.phone(["collect", "form1"], "upload")
    seen = await house.phone(["collect", "form2"], "upload")
    assert seen["seen"] == [COLLECT]
    assert sorted(house.permits()) == ["f:form1", "f:form2"]


async def test_a_user_who_opts_out_is_sent_nothing_until_the_user_opts_in(house: House) -> None:
    opted = "/v1/apps/shop/opt-in"
    suppressions = Suppressions(house.client, house.settings)
    seen = await house.phone("optOut", "idle")
    assert seen["seen"] == [LOGIN, ["DELETE", opted, 200]]
    assert suppressions.counts("shop")["opted_out"] == 1
    seen = await house.phone("optIn", "idle")
    assert seen["seen"] == [["PUT", opted, 200]]
    assert suppressions.counts("shop")["opted_out"] == 0


async def test_a_ticket_that_is_no_good_is_renewed_once(house: House) -> None:
    await house.phone(["collect", "form1"], "upload")
    token = house.stored["ticket"]["token"]
    house.store(ticket=house.stored["ticket"] | {"token": token[:-1] + "-"})
    seen = await house.phone(["collect", "form2"], "upload")
    assert seen["seen"] == [["POST", "/v1/apps/shop/collect", 401], LOGIN, COLLECT]
    assert sorted(house.permits()) == ["f:form1", "f:form2"]


async def test_a_code_that_wechat_refuses_keeps_everything_on_the_phone(house: House) -> None:
    seen = await house.phone(["collect", "form1"], "upload", "upload", codes=["nobody's"])
    assert seen["seen"] == [["POST", "/v1/apps/shop/login", 422]]
    assert seen["waiting"] == ["form1"]
    seen = await house.phone()
    assert seen["waiting"] == []
    assert sorted(house.permits()) == ["f:form1"]


@pytest.mark.parametrize("days", [-9, 9])
async def test_a_phone_with_a_wrong_clock_loses_nothing(house: House, days: int) -> None:
    off = days * 24 * 3600 * 1000
    before = house.now_ms()
    await house.phone(["collect", "form1"], "upload", clockOff=off)
    (ends,) = house.permits().values()
    assert before - 3000 < ends - WEEK_MS < house.now_ms() + 1


def reminder(template: str = WANTED) -> Spec:
    return Spec.checked(
        app="shop",
        channel="subscribe",
        audience="all",
        template_id=template,
        data={"thing1": "签到"},
    )


@pytest.mark.parametrize("prepared", [True, False])
async def test_a_first_tap_on_an_empty_deployment_ends_in_a_first_message(
    house: House, *, prepared: bool
) -> None:
    """No permit, no broadcast, no audience: the popup comes, and the first broadcast arrives."""
    assert house.client.dbsize() == 1  # the layout alone
    seen = await house.phone(
        *(["prepare", "idle"] if prepared else []), ["subscribe", [OTHER, WANTED]]
    )
    assert seen["popups"] == [[OTHER, WANTED]]
    assert seen["answers"][0]["results"] == {OTHER: "accept", WANTED: "accept"}
    assert seen["seen"] == [LOGIN, *([PLAN] if prepared else []), COLLECT, PLAN]
    assert (house.accepts(OTHER), house.accepts(WANTED)) == (1, 1)
    house.sandbox.state.permits.subscribe("oAnna", WANTED, 1)  # the popup was WeChat's
    async with house.worker():
        created = house.broadcasts.create(reminder())
        assert await house.outcomes(created.id) == {"delivered": 1}
    [message] = house.sandbox.state.deliveries.of("oAnna")
    assert message["data"] == {"thing1": {"value": "签到"}}
    assert house.accepts(WANTED) == 0


async def test_a_template_that_wechat_refused_as_unknown_is_no_longer_asked_for(
    house: House,
) -> None:
    house.sandbox.orders.configure({"templates": [{"template_id": OTHER}]})
    unread = {"api": "gettemplate", "action": "errcode", "errcode": 48001}
    house.sandbox.orders.set_faults([FaultRule.model_validate(unread)])
    accepts = ({"openid": f"o{n}", "subscriptions": {WANTED: "accept"}} for n in range(10))
    Collector(house.client, house.settings).collect("shop", accepts)
    async with house.worker():
        created = house.broadcasts.create(reminder())
        await house.outcomes(created.id)
    assert house.broadcasts.status(created.id).errcode == 40037
    seen = await house.phone("prepare", "idle", ["subscribe", [WANTED, OTHER]])
    assert seen["popups"] == [[OTHER]]


async def test_the_page_asks_for_what_the_user_lacks_first_and_not_for_what_is_enough(
    house: House,
) -> None:
    await house.phone(["collect", "form1"], "upload")  # so that the user is known
    house.broadcasts.create(reminder())
    for accepts in (1, 2):  # one for what is under way, one for the week to come
        seen = await house.phone("prepare", "idle", ["subscribe", [OTHER, WANTED]])
        assert seen["popups"] == [[WANTED, OTHER]]
        assert seen["answers"][0]["results"] == {WANTED: "accept", OTHER: "accept"}
        assert seen["seen"] == [PLAN, COLLECT, PLAN]
        assert house.accepts(WANTED) == accepts
    seen = await house.phone("prepare", "idle", ["subscribe", [OTHER, WANTED]])
    assert seen["popups"] == [[OTHER]]
    seen = await house.phone("prepare", "idle", ["subscribe", [OTHER, WANTED]])
    assert (seen["popups"], seen["seen"]) == ([], [PLAN])


async def test_an_answer_that_is_sent_twice_counts_once(house: House) -> None:
    await house.phone(["subscribe", [WANTED]])
    await house.service.end(signal.SIGKILL)
    seen = await house.phone(["subscribe", [WANTED]])
    assert [status for _, _, status in seen["seen"]] == ["ECONNREFUSED"] * len(seen["seen"])
    kept = house.stored["results"]
    assert len(kept) == 1
    await house.service.start()
    await house.phone()
    assert house.accepts(WANTED) == 2
    house.store(results=kept)  # as if the phone had been killed before it noted the answer
    assert (await house.phone())["seen"] == [COLLECT, PLAN]
    assert house.accepts(WANTED) == 2


async def test_a_service_that_is_away_costs_nothing(house: House) -> None:
    await house.phone(["collect", "form1"], "upload")
    await house.service.end(signal.SIGKILL)
    for run in (2, 3):
        seen = await house.phone(["collect", f"form{run}"], "hide")
        assert seen["waiting"] == [f"form{n}" for n in range(2, run + 1)]
    await house.service.start()
    seen = await house.phone()
    assert seen["waiting"] == []
    assert sorted(house.permits()) == ["f:form1", "f:form2", "f:form3"]
    assert house.collected() == 3


async def test_phones_that_are_killed_while_they_upload_lose_and_double_nothing(
    house: House,
) -> None:
    """Killed before the upload, and the moment that the service has stored some of it."""
    for run in range(8):
        # fewer than the ten that would go by themselves, before the last ones were tapped
        mine = {f"form{run}x{n}" for n in range(9)}
        process = await house.start_phone(*(["collect", name] for name in sorted(mine)), "upload")
        async with asyncio.timeout(WITHIN_S):
            while house.stored_form_ids().isdisjoint(mine):  # what waited goes first
                if run % 2 == 0 and mine <= set(house.waiting):
                    break
                await asyncio.sleep(0.001)
            with suppress(ProcessLookupError):
                process.kill()
            await process.communicate()
        assert mine <= set(house.waiting) | house.stored_form_ids()
    await house.phone()
    assert house.waiting == []
    assert len(house.stored_form_ids()) == 72 == house.collected()


async def test_nobody_files_for_another_user(house: House) -> None:
    await house.phone(["collect", "form1"], "upload")
    house.store(codes=[{"formId": "form2", "at": 1e15, "sure": True}], ticket=None)
    await house.phone("upload", codes=[house.login_code("oBert")])
    assert sorted(house.permits("oAnna")) == ["f:form1"]
    assert sorted(house.permits("oBert")) == ["f:form2"]
