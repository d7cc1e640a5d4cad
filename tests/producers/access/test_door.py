"""The mini-program's door: logging in, tickets, and filing permits for nobody else."""

import asyncio
import json
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from log_lines import recorded
from pydantic import SecretStr

from producers import store
from producers.access import door as door_module
from producers.access.door import Door
from producers.access.knocks import caller_of
from producers.access.tickets import Tickets
from producers.broadcasts import Broadcasts
from producers.broadcasts.spec import Spec
from producers.errors import (
    CodeRefusedError,
    ExpiredTicketError,
    FloodError,
    ForeignOpenidError,
    ForeignTicketError,
    ForgedTicketError,
    InvalidInputError,
    LoginUnavailableError,
    TicketError,
    UnknownAppError,
)
from producers.permits import ledger
from producers.sandbox import Sandbox, SandboxConfig
from producers.settings import Settings
from producers.store import keys

SECRETS = {"wx0000000000000001": "shop-secret", "wx0000000000000002": "cafe-secret"}
SESSION_KEY = "tiihtNczf5v6AKRyjwEUhQ=="
CODE, ADDRESS = "the-code", "203.0.113.9"
WEEK_MS = 7 * 24 * 3600 * 1000

Maker = Callable[..., Settings]


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(SandboxConfig(apps=SECRETS)) as running:
        running.state.codes.give("code-anna", "oAnna", running.state.now())
        running.state.codes.give("code-bert", "oBert", running.state.now())
        yield running


@contextmanager
def connected(settings: Settings) -> Iterator[Any]:
    client = store.connect(settings)
    store.check_layout(client, settings)
    try:
        yield client
    finally:
        client.close()
        client.connection_pool.disconnect()


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Door]:
    with connected(settings) as client:
        door = Door(client, settings)
        await door.open()
        try:
            yield door
        finally:
            await door.close()


APPS = {
    "shop": {"appid": "wx0000000000000001", "secret": "shop-secret"},
    "cafe": {"appid": "wx0000000000000002", "secret": "cafe-secret"},
}


@pytest.fixture
def at(make_settings: Maker, lanes: int) -> Maker:
    """Give a maker of settings of two apps, whose WeChat is at a URL."""

    def make(url: str = "http://127.0.0.1:1", **changes: Any) -> Settings:
        return make_settings(wechat_url=url, lanes=lanes, **{"apps": APPS, **changes})

    return make


@pytest.fixture
def door(at: Maker) -> Iterator[Door]:
    """A door without WeChat, for what needs none."""
    settings = at()
    with connected(settings) as client:
        yield Door(client, settings)


def now_s(door: Door) -> int:
    return int(door._client.time()[0])


def ticket(door: Door, openid: str = "oAnna", app: str = "shop", life_s: int = 600) -> str:
    return door._tickets.sign(app, openid, now_s(door) + life_s)


def permits(door: Door, openid: str, app: str = "shop") -> dict[str, float]:
    lane = keys.place_of(openid, door._settings)[0]
    return dict(door._client.zrange(keys.permits(lane, app, openid), 0, -1, withscores=True))


def accepts(door: Door, openid: str, template: str) -> str | None:
    lane = keys.place_of(openid, door._settings)[0]
    return door._client.hget(keys.subscriptions(lane, "shop", openid), template)


# -- logging in -----------------------------------------------------------------------------


@pytest.mark.parametrize("lanes", [1, 4])
async def test_a_code_becomes_a_ticket_of_its_user(sandbox: Sandbox, at: Maker) -> None:
    async with opened(at(sandbox.url)) as door:
        got = await door.login("shop", "code-anna", "203.0.113.9")
        assert got.expires_in_s == 7200
        assert door.check("shop", got.token) == "oAnna"
        expires_s = door._tickets.read("shop", got.token).expires_s
        assert abs(expires_s - now_s(door) - 7200) < 60


async def test_a_code_works_once(sandbox: Sandbox, at: Maker) -> None:
    async with opened(at(sandbox.url)) as door:
        await door.login("shop", "code-anna")
        with pytest.raises(CodeRefusedError) as refused:
            await door.login("shop", "code-anna")
        assert refused.value.errcode == 40163


@pytest.mark.parametrize("errcode", [40029, 40226])
async def test_a_code_that_wechat_does_not_take_is_refused(
    errcode: int, sandbox: Sandbox, at: Maker
) -> None:
    fault = {"api": "/sns/jscode2session", "action": "errcode", "errcode": errcode}
    sandbox.orders.configure({"faults": [fault]})
    async with opened(at(sandbox.url)) as door:
        with pytest.raises(CodeRefusedError) as refused:
            await door.login("shop", "code-anna")
        assert refused.value.errcode == errcode


@pytest.mark.parametrize(
    ("fault", "wait_ms"),
    [
        ({"action": "errcode", "errcode": -1}, 5000),
        ({"action": "errcode", "errcode": 45011}, 60_000),
        ({"action": "errcode", "errcode": 40125}, 5000),
        ({"action": "errcode", "errcode": 777777}, 5000),
        ({"action": "status", "status": 502}, 5000),
        ({"action": "garbage"}, 5000),
        ({"action": "cut_after"}, 5000),
        ({"action": "cut_before"}, 5000),
    ],
)
async def test_without_a_verdict_the_phone_is_told_when_to_come_again(
    fault: dict[str, Any], wait_ms: int, sandbox: Sandbox, at: Maker
) -> None:
    sandbox.orders.configure({"faults": [{"api": "/sns/jscode2session", **fault}]})
    async with opened(at(sandbox.url, refused_codes_per_minute=1)) as door:
        for _ in range(3):  # and it is not counted against its address
            with pytest.raises(LoginUnavailableError) as failed:
                await door.login("shop", "code-anna", "203.0.113.9")
            assert failed.value.wait_ms == wait_ms


async def test_a_busy_wechat_is_asked_once_more(sandbox: Sandbox, at: Maker) -> None:
    busy = {"api": "/sns/jscode2session", "action": "errcode", "errcode": -1, "count": 1}
    sandbox.orders.configure({"faults": [busy]})
    async with opened(at(sandbox.url)) as door:
        got = await door.login("shop", "code-anna")
        assert door.check("shop", got.token) == "oAnna"


async def test_a_busy_wechat_is_asked_no_third_time(sandbox: Sandbox, at: Maker) -> None:
    busy = {"api": "/sns/jscode2session", "action": "errcode", "errcode": -1}
    sandbox.orders.configure({"faults": [busy]})
    async with opened(at(sandbox.url)) as door:
        with pytest.raises(LoginUnavailableError):
            await door.login("shop", "code-anna")
    assert sandbox.state.faults.describe()[0]["hits"] == 2


async def test_a_code_that_the_first_try_used_up_is_not_held_against_the_phone(
    sandbox: Sandbox, at: Maker
) -> None:
    busy = {"action": "errcode", "errcode": -1, "count": 1, "accept": True}
    sandbox.orders.configure({"faults": [{"api": "/sns/jscode2session", **busy}]})
    async with opened(at(sandbox.url, refused_codes_per_minute=1)) as door:
        with pytest.raises(LoginUnavailableError):
            await door.login("shop", "code-anna", "203.0.113.9")
        await door.login("shop", "code-bert", "203.0.113.9")


async def test_a_silent_wechat_costs_a_bounded_wait(
    sandbox: Sandbox, at: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producers.access.login_codes.TIMEOUT_S", 0.2)
    hang = {"api": "/sns/jscode2session", "action": "hang"}
    sandbox.orders.configure({"faults": [hang]})
    async with opened(at(sandbox.url)) as door:
        async with asyncio.timeout(20):
            with pytest.raises(LoginUnavailableError):
                await door.login("shop", "code-anna")


@pytest.mark.parametrize("code", ["", " ", "the code is a mock one", "a" * 129, "ä", "a\n"])
async def test_what_is_no_code_never_reaches_wechat(code: str, sandbox: Sandbox, at: Maker) -> None:
    sandbox.orders.configure({"faults": [{"api": "jscode2session", "action": "garbage"}]})
    async with opened(at(sandbox.url)) as door:
        with pytest.raises(CodeRefusedError):
            await door.login("shop", code)
    assert sandbox.state.faults.describe()[0]["seen"] == 0


async def test_an_unknown_app_has_no_door(sandbox: Sandbox, at: Maker) -> None:
    async with opened(at(sandbox.url)) as door:
        with pytest.raises(UnknownAppError):
            await door.login("elsewhere", "code-anna")
        with pytest.raises(UnknownAppError):
            door.check("elsewhere", "v1.elsewhere.oAnna.99999999999." + "A" * 43)


async def test_more_logins_than_a_process_can_carry_are_sent_away_at_once(
    sandbox: Sandbox, at: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door_module, "_LOGINS", 1)
    slow = {"api": "/sns/jscode2session", "action": "delay", "ms": 300, "count": 1}
    sandbox.orders.configure({"faults": [slow]})
    async with opened(at(sandbox.url)) as door:
        results = await asyncio.gather(
            door.login("shop", "code-anna"),
            door.login("shop", "code-bert"),
            return_exceptions=True,
        )
        names = [type(result).__name__ for result in results]
        assert sorted(names) == ["LoginUnavailableError", "Ticket"]
        again = "code-bert" if names[0] == "Ticket" else "code-anna"
        await door.login("shop", again)  # the place is free again


async def test_an_app_whose_wechat_is_slow_leaves_room_for_another(
    sandbox: Sandbox, at: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door_module, "_LOGINS", 4)
    slow = {"api": "/sns/jscode2session", "action": "delay", "ms": 600, "count": 2}
    sandbox.orders.configure({"codes": "any", "faults": [slow]})
    async with opened(at(sandbox.url)) as door:
        under_way = [asyncio.create_task(door.login("shop", f"slow-{n}")) for n in range(2)]
        while sandbox.state.faults.describe()[0]["hits"] < 2:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
        with pytest.raises(LoginUnavailableError):
            await door.login("shop", "one-more")
        await door.login("cafe", "another")
        assert [bool(ticket.token) for ticket in await asyncio.gather(*under_way)] == [True, True]


# -- what must not leak ---------------------------------------------------------------------


@pytest.fixture
async def talkative() -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """A WeChat whose every answer holds a session_key, whatever else it says."""
    answer: dict[str, Any] = {"status": 200, "body": "{}"}

    async def handle(_: web.Request) -> web.Response:
        return web.Response(status=answer["status"], text=answer["body"])

    app = web.Application()
    app.router.add_get("/sns/jscode2session", handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}", answer
    await runner.cleanup()


REPLIES: list[dict[str, Any]] = [
    {"openid": "oAnna", "session_key": SESSION_KEY},
    {"openid": "o Anna", "session_key": SESSION_KEY},
    {"openid": 7, "session_key": SESSION_KEY},
    {"session_key": SESSION_KEY},
    {"errcode": 40029, "errmsg": f"invalid code {SESSION_KEY}", "session_key": SESSION_KEY},
    {"errcode": 40125, "errmsg": f"invalid appsecret {SESSION_KEY}"},
    {"errcode": "x", "errmsg": SESSION_KEY},
]


@pytest.mark.parametrize(
    ("status", "body"),
    [*((200, json.dumps(reply)) for reply in REPLIES), (500, SESSION_KEY), (200, SESSION_KEY)],
)
async def test_no_session_key_no_secret_and_no_code_gets_out(
    status: int,
    body: str,
    talkative: tuple[str, dict[str, Any]],
    at: Maker,
    tmp_path: Path,
) -> None:
    url, answer = talkative
    answer.update(status=status, body=body)
    with recorded(tmp_path) as lines:
        async with opened(at(url)) as door:
            try:
                got = await door.login("shop", CODE, ADDRESS)
            except (CodeRefusedError, LoginUnavailableError) as error:
                shown = "".join(traceback.format_exception(error)) + repr(error)
                chain: BaseException | None = error
                while chain is not None:
                    shown += repr(vars(chain)) + str(chain)
                    chain = chain.__context__
            else:
                shown = repr(got)
                assert got.token not in shown
            shown += repr(vars(door))
            stored = [*door._client.scan_iter()]
            shown += str([door._client.dump(key) for key in stored]) + str(stored)
        shown += json.dumps(lines())
    for secret in (SESSION_KEY, "shop-secret", CODE, ADDRESS):
        assert secret not in shown


async def test_an_address_that_does_not_answer_shows_no_secret(at: Maker, tmp_path: Path) -> None:
    with recorded(tmp_path) as lines:
        async with opened(at("http://127.0.0.1:1")) as door:
            with pytest.raises(LoginUnavailableError) as failed:
                await door.login("shop", "the-code")
    assert failed.value.__context__ is None
    (line,) = [line for line in lines() if line["event"] == "login_failed"]
    assert (line["app"], line["errcode"]) == ("shop", 0)
    assert "shop-secret" not in json.dumps(line)


async def test_each_login_is_one_line(sandbox: Sandbox, at: Maker, tmp_path: Path) -> None:
    with recorded(tmp_path) as lines:
        async with opened(at(sandbox.url)) as door:
            await door.login("shop", "code-anna")
            with pytest.raises(CodeRefusedError):
                await door.login("shop", "nobody's-code")
    found = [line for line in lines() if line["event"] == "login_answered"]
    assert [(line["openid"], line["errcode"]) for line in found] == [("oAnna", 0), ("", 40029)]
    assert found[1]["rid"]


# -- tickets --------------------------------------------------------------------------------


def test_a_ticket_ends(door: Door) -> None:
    assert door.check("shop", ticket(door, life_s=60)) == "oAnna"
    with pytest.raises(ExpiredTicketError):
        door.check("shop", ticket(door, life_s=0))


def test_a_ticket_of_another_app_is_told_apart_by_type_only(door: Door) -> None:
    errors: list[TicketError] = []
    for token in (ticket(door, app="cafe"), ticket(door, life_s=-5), "v1.shop.oAnna.1.x"):
        with pytest.raises(TicketError) as raised:
            door.check("shop", token)
        errors.append(raised.value)
    assert [type(error) for error in errors] == [
        ForeignTicketError,
        ExpiredTicketError,
        ForgedTicketError,
    ]
    assert len({(str(error), error.args) for error in errors}) == 1


def test_an_app_of_the_same_secret_signs_other_tickets(at: Maker) -> None:
    twins = {
        "shop": {"appid": "wx1", "secret": "same"},
        "cafe": {"appid": "wx1", "secret": "same"},
    }
    settings = at(apps=twins)
    with connected(settings) as client:
        door = Door(client, settings)
        good = ticket(door)
        with pytest.raises(ForgedTicketError):
            door.check("cafe", good.replace("v1.shop.", "v1.cafe."))


def test_a_new_app_secret_ends_all_tickets(door: Door, at: Maker) -> None:
    old = ticket(door)
    changed = at(apps={"shop": {"appid": "wx0000000000000001", "secret": "new"}})
    with pytest.raises(ForgedTicketError):
        Door(door._client, changed).check("shop", old)


def test_a_ticket_does_not_depend_on_the_process_that_signed_it(door: Door, at: Maker) -> None:
    assert Door(door._client, at()).check("shop", ticket(door)) == "oAnna"


class TestForgery:
    @pytest.fixture
    def genuine(self, door: Door) -> str:
        return ticket(door)

    def test_no_changed_character_is_accepted(self, door: Door, genuine: str) -> None:
        for place, old in enumerate(genuine):
            for new in {"A", "B", "0", "1", "-", ".", "\n", "é", "\x00"} - {old}:
                forged = genuine[:place] + new + genuine[place + 1 :]
                with pytest.raises(TicketError):
                    door._tickets.read("shop", forged)

    def test_no_other_spelling_is_accepted(self, door: Door, genuine: str) -> None:
        last = genuine[-1]
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        others = [genuine[:-1] + other for other in alphabet if other != last]
        others += [f"{genuine}=", f" {genuine}", f"{genuine}\n", genuine[:-1], genuine.upper()]
        for other in others:
            with pytest.raises(ForgedTicketError):
                door._tickets.read("shop", other)

    def test_a_later_expiry_or_another_openid_is_not_accepted(
        self, door: Door, genuine: str
    ) -> None:
        version, app, openid, expires_s, mac = genuine.split(".")
        for forged in (
            [version, app, openid, str(int(expires_s) + 1), mac],
            [version, app, "oBert", expires_s, mac],
            [version, "cafe", openid, expires_s, mac],
            ["v2", app, openid, expires_s, mac],
            [version, app, openid, f"0{expires_s}", mac],
        ):
            with pytest.raises(ForgedTicketError):
                door._tickets.read("shop", ".".join(forged))


@given(st.text(max_size=200) | st.from_regex(r"v1\.shop\.oAnna\.[0-9]{1,13}\.[A-Za-z0-9_-]{43}"))
def test_no_text_is_a_ticket(token: str) -> None:
    tickets = door_module.Tickets(
        Settings(  # type: ignore[call-arg]
            _env_file=None, redis_url="redis://x", apps={"shop": {"appid": "wx1", "secret": "s"}}
        )
    )
    with pytest.raises(ForgedTicketError):
        tickets.read("shop", token)


# -- collecting -----------------------------------------------------------------------------


@pytest.mark.parametrize("lanes", [1, 4])
def test_what_a_ticket_brings_is_stored_for_its_user(door: Door) -> None:
    for openid in ("oAnna", "oBert", "oCarl", "oDora"):
        report = door.collect(
            "shop", ticket(door, openid), {"formIds": [f"f-{openid}"], "prepayId": f"p-{openid}"}
        )
        assert (report.new, report.refused) == (2, {})
        assert set(permits(door, openid)) == {
            f"f:f-{openid}",
            *(f"p:p-{openid}:{use}" for use in (1, 2, 3)),
        }


def test_a_list_of_uploads_is_one_call(door: Door) -> None:
    uploads = [
        {"formIds": [{"formId": "f1", "expire": now_s(door) + 3600}]},
        {"openid": "oAnna", "subscriptions": {"T1": "accept"}, "id": "i1"},
    ]
    assert door.collect("shop", ticket(door), uploads).new == 2
    assert accepts(door, "oAnna", "T1") == "1"


def test_another_users_openid_costs_the_whole_call(door: Door) -> None:
    uploads = [{"formIds": ["f1"]}, {"openid": "oBert", "formIds": ["f2"]}]
    with pytest.raises(ForeignOpenidError):
        door.collect("shop", ticket(door), uploads)
    assert permits(door, "oAnna") == permits(door, "oBert") == {}


@pytest.mark.parametrize(
    "upload",
    [
        '{"openid": "oBert", "formIds": ["f1"]}',
        [['{"openid": "oBert", "formId": "f1"}']],
        None,
        7,
        [{"formIds": ["f1"]}] * 21,
    ],
)
def test_what_could_hide_another_user_is_no_upload(door: Door, upload: object) -> None:
    with pytest.raises(InvalidInputError):
        door.collect("shop", ticket(door), upload)
    assert door._client.exists(*(f"wxb:{{0}}:permits:shop:{o}" for o in ("oAnna", "oBert"))) == 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just("oBert"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["openid", "formIds", "formId", "prepayId", "subscriptions", "id", "T1"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


def test_no_upload_stores_anything_for_another_user(door: Door) -> None:
    @given(JSON)
    def run(upload: object) -> None:
        door._client.delete(keys.upload_flood(0, "shop", "oAnna"))
        with suppress(ForeignOpenidError, InvalidInputError):
            door.collect("shop", ticket(door), upload)
        users = {
            key.rsplit(":", 1)[1]
            for kind in ("permits", "subs")
            for key in door._client.scan_iter(f"wxb:*:{kind}:*")
        }
        assert users <= {"oAnna"}

    run()


def test_a_replayed_upload_counts_once(door: Door) -> None:
    upload = {
        "formIds": ["f1"],
        "prepayId": "p1",
        "subscriptions": {"T1": "accept"},
        "id": "tap-1",
    }
    token = ticket(door)
    assert [door.collect("shop", token, upload).new for _ in range(3)] == [3, 0, 0]
    assert accepts(door, "oAnna", "T1") == "1"
    assert len(permits(door, "oAnna")) == 4


@pytest.mark.parametrize("source", [{}, {"id": None}, {"id": ""}, {"at": 1_700_000_000_000}])
def test_a_subscription_that_could_be_replayed_is_refused(
    door: Door, source: dict[str, object]
) -> None:
    upload = {"formIds": ["f1"], "subscriptions": {"T1": "accept"}, **source}
    report = door.collect("shop", ticket(door), upload)
    assert (report.new, report.refused) == (1, {"bad_source_id": 1})
    assert accepts(door, "oAnna", "T1") is None


@pytest.mark.parametrize("encode", [dict, json.dumps])
def test_a_template_that_reads_as_another_field_is_refused(
    door: Door, encode: Callable[[Any], object]
) -> None:
    choices = {"void:T1": "accept", "seen:T1:i2": "accept", "T1": "accept", "errMsg": "x:ok"}
    upload = {"subscriptions": encode(choices), "id": "i1"}
    report = door.collect("shop", ticket(door), upload)
    assert (report.new, report.refused) == (1, {"bad_template_id": 2})
    stock = {field for field in door._client.hkeys(keys.stock(0, "shop")) if field[:2] == "s:"}
    assert stock == {"s:T1"}


def test_templates_that_the_app_does_not_ask_for_leave_no_trace(at: Maker) -> None:
    shop = {**APPS["shop"], "subscribe_templates": ["T1"]}
    settings = at(apps={"shop": shop})
    with connected(settings) as client:
        door = Door(client, settings)
        choices = {"T1": "accept", "T2": "accept", "T3": "reject"}
        report = door.collect("shop", ticket(door), {"subscriptions": choices, "id": "i1"})
        assert (report.new, report.refused) == (1, {"bad_template_id": 2})
        fields = client.hkeys(keys.subscriptions(0, "shop", "oAnna"))
        assert {field for field in fields if "T2" in field or "T3" in field} == set()


def test_more_templates_than_a_phone_can_ask_for_are_refused(door: Door) -> None:
    upload = {"subscriptions": {f"T{n}": "accept" for n in range(9)}, "id": "i1"}
    report = door.collect("shop", ticket(door), upload)
    assert (report.new, report.refused) == (5, {"too_many_items": 4})


def test_a_ticket_that_is_no_good_stores_nothing(door: Door) -> None:
    for token in (ticket(door, life_s=0), ticket(door, app="cafe"), "", "Bearer x"):
        with pytest.raises(TicketError):
            door.collect("shop", token, {"formIds": ["f1"]})
    assert permits(door, "oAnna") == {}


# -- floods ---------------------------------------------------------------------------------


@pytest.mark.parametrize("lanes", [1, 4])
def test_a_user_who_floods_is_held_back_alone(at: Maker, lanes: int) -> None:
    settings = at(uploads_per_minute=3)
    with connected(settings) as client:
        door = Door(client, settings)
        for number in range(3):
            assert door.collect("shop", ticket(door), {"formId": f"f{number}"}).new == 1
        with pytest.raises(FloodError) as held:
            door.collect("shop", ticket(door), {"formId": "f9"})
        assert 0 < held.value.wait_ms <= 20_000
        assert door.collect("shop", ticket(door, "oBert"), {"formId": "f1"}).new == 1
        assert len(permits(door, "oAnna")) == 3
        limits = [key for key in client.scan_iter("wxb:*flood:upload:*") if ":reply:" not in key]
        assert len(limits) == 2
        for key in limits:
            assert 0 < client.pttl(key) <= 60_000


@pytest.mark.parametrize("lanes", [1, 4])
def test_a_user_files_a_days_permits_and_no_more(at: Maker, lanes: int) -> None:
    settings = at(permits_per_day=5)
    with connected(settings) as client:
        door = Door(client, settings)
        forms = {"formIds": ["f1", "f2"], "prepayId": "wx1"}
        assert door.collect("shop", ticket(door), forms).new == 3
        mixed = {"formIds": ["f3", "f4"], "subscriptions": {"T1": "accept", "T2": "reject"}}
        report = door.collect("shop", ticket(door), [{**mixed, "id": "i1"}, {"formId": "f5"}])
        # what is beyond a day's is refused, upload by upload; a rejection always counts
        assert (report.new, report.refused) == (1, {"too_many_today": 3, "user_reject": 1})
        assert accepts(door, "oAnna", "T1") is None
        assert door.collect("shop", ticket(door, "oBert"), {"formId": "f1"}).new == 1
        (key,) = client.scan_iter("wxb:*flood:permit:*oAnna")
        assert 0 < client.pttl(key) <= 86_400_000


def test_what_a_phone_sends_again_counts_once_in_its_day(at: Maker) -> None:
    settings = at(permits_per_day=10, uploads_per_minute=60_000)
    with connected(settings) as client:
        door = Door(client, settings)
        forms = {"formIds": [f"f{number}" for number in range(8)]}
        assert door.collect("shop", ticket(door), forms).new == 8
        for _ in range(20):  # the answers were lost
            again = door.collect("shop", ticket(door), {"formIds": ["f1", "f2"]})
            assert (again.new, again.known, again.refused) == (0, 2, {})
        assert door.collect("shop", ticket(door), {"formIds": ["f8", "f9"]}).new == 2
        assert door.collect("shop", ticket(door), {"formId": "f10"}).refused == {
            "too_many_today": 1
        }


def test_phones_make_few_fields_in_the_stock_of_an_app_that_names_no_templates(at: Maker) -> None:
    settings = at(uploads_per_minute=60_000)
    with connected(settings) as client:
        door = Door(client, settings)
        refused: Counter[str] = Counter()
        for phone in range(200):
            token = ticket(door, f"o{phone}")
            for turn in range(2):
                choices = {f"T{phone}-{turn}-{n}": "accept" for n in range(5)}
                report = door.collect("shop", token, {"subscriptions": choices, "id": "i"})
                refused += report.refused
        assert client.hlen(keys.stock(0, "shop")) <= 600
        assert refused["unknown_template"] == 1400
        # what a broadcast names is always taken
        broadcasts = Broadcasts(client, settings)
        broadcasts.create(
            Spec.checked(
                app="shop", channel="subscribe", template_id="NEW", audience="all",
                data={"thing1": "x"},
            )
        )  # fmt: skip
        other = Door(client, settings)
        report = other.collect(
            "shop", ticket(door), {"subscriptions": {"NEW": "accept"}, "id": "i"}
        )
        assert report.new == 1


async def test_an_address_that_floods_with_logins_is_held_back_alone(
    sandbox: Sandbox, at: Maker
) -> None:
    sandbox.orders.configure({"codes": "any"})
    async with opened(at(sandbox.url, logins_per_minute=2)) as door:
        await door.login("shop", "c1", "203.0.113.9")
        await door.login("shop", "c2", "203.0.113.9")
        with pytest.raises(FloodError):
            await door.login("shop", "c3", "203.0.113.9")
        await door.login("shop", "c4", "203.0.113.10")
        await door.login("shop", "c5")


async def test_guessed_codes_are_not_asked_about_without_end(sandbox: Sandbox, at: Maker) -> None:
    """Beyond the limit they wait, and a good one of the same address with them."""
    async with opened(at(sandbox.url, refused_codes_per_minute=2)) as door:
        for guess in ("g1", "g2"):
            with pytest.raises(CodeRefusedError):
                await door.login("shop", guess, "203.0.113.9")
        with pytest.raises(FloodError):
            await door.login("shop", "code-anna", "203.0.113.9")
        await door.login("shop", "code-anna", "203.0.113.10")  # the code was not used up
        await door.login("shop", "code-bert")


@pytest.mark.parametrize("life_s", [600, -600])
async def test_who_was_here_before_waits_behind_no_bad_codes(
    sandbox: Sandbox, at: Maker, life_s: int
) -> None:
    async with opened(at(sandbox.url, refused_codes_per_minute=1)) as door:
        with pytest.raises(CodeRefusedError):
            await door.login("shop", "g1", "203.0.113.9")
        for earlier in ("", "v1.shop.oAnna.1.x", ticket(door, app="cafe")):
            with pytest.raises(FloodError):
                await door.login("shop", "code-anna", "203.0.113.9", earlier)
        await door.login("shop", "code-anna", "203.0.113.9", ticket(door, life_s=life_s))
        for _ in range(11):  # and is no door for guesses
            with pytest.raises(CodeRefusedError):
                await door.login("shop", "g", "203.0.113.9", ticket(door))
        with pytest.raises((FloodError, CodeRefusedError)):
            await door.login("shop", "g", "203.0.113.9", ticket(door))
        limit = keys.login_flood("shop", "user:oAnna")
        assert 0 < door._client.pttl(limit) <= 60_000


async def test_an_apps_calls_to_wechat_are_bounded_whatever_the_addresses(
    sandbox: Sandbox, at: Maker
) -> None:
    """Half of them are kept for codes that are good."""
    sandbox.orders.configure({"codes": "any"})
    async with opened(at(sandbox.url, app_logins_per_minute=4)) as door:
        for number in range(4):
            await door.login("shop", f"c{number}", f"203.0.113.{number}")
        with pytest.raises(FloodError):
            await door.login("shop", "c9", "203.0.113.9")
        await door.login("cafe", "c9", "203.0.113.9")
    sandbox.orders.configure({"codes": "given"})
    async with opened(at(sandbox.url, app_logins_per_minute=4)) as door:
        door._client.flushall()
        for number in range(2):
            with pytest.raises(CodeRefusedError):
                await door.login("shop", f"g{number}", f"203.0.113.{number}")
        with pytest.raises(FloodError):
            await door.login("shop", "g5", "203.0.113.5")
        got = await door.login("shop", "code-anna", "203.0.113.9", ticket(door))
        assert door.check("shop", got.token) == "oAnna"


async def test_a_line_has_an_end(
    sandbox: Sandbox, at: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producers.access.knocks._LINE", 3)
    monkeypatch.setattr("producers.access.knocks._LINES", 5)
    async with opened(at(sandbox.url, refused_codes_per_minute=10)) as door:
        for number in range(20):
            place = f"203.0.113.{number % 2}"
            with pytest.raises(CodeRefusedError):
                await door.login("shop", f"g{number}", place)
        knocks = [
            asyncio.create_task(door.login("shop", f"h{n}", f"203.0.113.{n % 2}"))
            for n in range(10)
        ]
        at_once, _ = await asyncio.wait(knocks, timeout=3)
        assert len(at_once) >= 5
        assert all(isinstance(one.exception(), FloodError | CodeRefusedError) for one in at_once)
        await asyncio.gather(*knocks, return_exceptions=True)
        assert (door._knocks._waiting, door._knocks._lines) == (0, {})


async def test_good_codes_do_not_count_as_guesses(sandbox: Sandbox, at: Maker) -> None:
    sandbox.orders.configure({"codes": "any"})
    async with opened(at(sandbox.url, refused_codes_per_minute=1)) as door:
        for number in range(5):
            await door.login("shop", f"c{number}", "203.0.113.9")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:203.0.113.9", "203.0.113.9", True),
        ("203.0.113.9", "203.0.113.10", False),
        ("unix:", "unix:", True),
    ],
)
def test_an_address_is_what_a_client_cannot_change(one: str, other: str, same: bool) -> None:
    assert (caller_of(one) == caller_of(other)) is same


def test_the_sums_hold_after_a_flood(at: Maker) -> None:
    settings = at(uploads_per_minute=60_000, permits_per_day=100_000)
    with connected(settings) as client:
        door = Door(client, settings)
        for number in range(150):
            door.collect("shop", ticket(door), {"formIds": [f"f{number}", f"g{number}"]})
        uses = ledger.totals(client, settings, "shop").total
        assert (uses.collected, uses.available, uses.held) == (300, 100, 0)
        assert isinstance(client, redis.Redis)


def test_a_ticket_holds_until_the_apps_secret_changes_or_the_app_goes(
    make_settings: Maker,
) -> None:
    """Its settings change in a service that runs."""
    settings = make_settings()
    tickets = Tickets(settings)
    ticket = tickets.sign("shop", "oAnna", 2_000_000_000)
    shop = settings.app("shop")
    settings.apps.put({"shop": shop.model_copy(update={"rate_per_second": 1})})
    assert tickets.read("shop", ticket).openid == "oAnna"
    settings.apps.put({"shop": shop.model_copy(update={"secret": SecretStr("another")})})
    with pytest.raises(ForgedTicketError):
        tickets.read("shop", ticket)
    assert tickets.read("shop", tickets.sign("shop", "oAnna", 1)).openid == "oAnna"
    settings.apps.put({"cafe": shop})
    with pytest.raises(ForgedTicketError):
        tickets.read("shop", ticket)
    assert tickets.read("cafe", tickets.sign("cafe", "oBert", 1)).openid == "oBert"
