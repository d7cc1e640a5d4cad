"""The token keeper against the sandbox's token calls, an outside service, and a Redis key."""

import asyncio
import base64
import contextlib
import itertools
import socket
import time
import traceback
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from aiohttp import web
from pydantic import SecretStr
from send_path import connected_async, soon

from producers.sandbox import FaultAction, FaultRule, Sandbox, SandboxConfig
from producers.settings import Settings
from producers.store import keys
from workers.limits.breaker import Breaker
from workers.wechat.client import WeChat
from workers.wechat.reply import Fate
from workers.wechat.token_service import TokenError
from workers.wechat.tokens import FORCE_AFTER, RENEW_S, TokenKeeper
from workers.wechat.vault import Token

APPID = "wx0000000000000001"
SECRET = "shop-secret"
STABLE = "/cgi-bin/stable_token"
CLASSIC = "/cgi-bin/token"


class Clock:
    """Epoch seconds for the sandbox and the keepers alike, moved by hand."""

    def __init__(self) -> None:
        self.at_s = 1_700_000_000.0

    def __call__(self) -> float:
        return self.at_s


class Office:
    """A sandbox, and as many worker processes' keepers as a test wants."""

    def __init__(
        self,
        sandbox: Sandbox,
        clock: Clock,
        make_settings: Callable[..., Settings],
        stack: contextlib.AsyncExitStack,
    ) -> None:
        self.sandbox = sandbox
        self.clock = clock
        self._make_settings = make_settings
        self._stack = stack
        self._workers = itertools.count(1)
        self.heard: list[tuple[str, Fate]] = []

    async def keeper(self, base: dict[str, Any] | None = None, **app: Any) -> TokenKeeper:
        """Give the keeper of a new process."""
        settings = self._make_settings(
            **{"wechat_url": self.sandbox.url, "post_timeout": 2, "app": app, **(base or {})}
        )
        client = await self._stack.enter_async_context(connected_async(settings))
        wechat = WeChat(settings)
        self._stack.push_async_callback(wechat.close)
        worker = f"w{next(self._workers)}"
        breaker = Breaker()

        def heard(_: str, fate: Fate, __: str) -> None:
            self.heard.append((worker, fate))
            if fate is Fate.UNSENT:
                breaker.unsent(0.0)

        return TokenKeeper(
            client, wechat, "shop", settings, worker, self.clock, breaker.connects, heard
        )

    def fetches(self, path: str = STABLE) -> int:
        """Return how often a token call was made."""
        return int(self.sandbox.orders.stats()["apis"].get(path, {"requests": 0})["requests"])

    @property
    def forced(self) -> int:
        """Return how many new tokens were forced."""
        return int(self.sandbox.orders.stats()["tokens"]["forced"])

    def fail(self, action: FaultAction = FaultAction.STATUS, **more: Any) -> None:
        """Make every token call go wrong."""
        self.sandbox.orders.set_faults([FaultRule(action=action, api="token", **more)])

    def heal(self) -> None:
        self.sandbox.orders.set_faults([])

    def is_good(self, token: Token | None) -> bool:
        """Whether WeChat takes a token."""
        assert token
        return self.sandbox.state.tokens.authorise(token.value, self.clock()) == APPID


@pytest.fixture
async def office(make_settings: Callable[..., Settings]) -> AsyncIterator[Office]:
    clock = Clock()
    config = SandboxConfig(apps={APPID: SECRET})
    async with Sandbox(config, now=clock) as sandbox, contextlib.AsyncExitStack() as stack:
        yield Office(sandbox, clock, make_settings, stack)


async def ticked(*keepers: TokenKeeper) -> None:
    """Let the keepers tick at once, and once more, to read what one of them fetched."""
    for _ in range(2):
        await asyncio.gather(*(keeper.tick() for keeper in keepers))


def value_of(keeper: TokenKeeper) -> str:
    token = keeper.ready
    assert token, "no token is ready"
    return token.value


def events_of(lines: list[Any], name: str) -> list[Any]:
    return [line for line in lines if line["event"] == name]


# -- sources ------------------------------------------------------------------------------------


async def test_the_stable_token_is_the_default(office: Office, lines: list[Any]) -> None:
    keeper = await office.keeper()
    assert keeper.ready is None
    await keeper.tick()
    assert office.is_good(keeper.ready)
    assert (office.fetches(STABLE), office.fetches(CLASSIC)) == (1, 0)
    (line,) = events_of(lines, "token_refreshed")
    assert line == {
        "event": "token_refreshed",
        "log_level": "info",
        "app": "shop",
        "source": "stable",
        "forced": False,
        "expires_in_s": 7200,
    }


async def test_a_token_that_is_good_is_not_fetched_again(office: Office) -> None:
    keeper = await office.keeper()
    for _ in range(5):
        await keeper.tick()
    assert office.fetches() == 1


async def test_the_classic_token(office: Office) -> None:
    keeper = await office.keeper(token_source="classic")
    await keeper.tick()
    assert office.is_good(keeper.ready)
    assert (office.fetches(STABLE), office.fetches(CLASSIC)) == (0, 1)


async def test_a_classic_token_that_was_refused_is_replaced(office: Office) -> None:
    keeper = await office.keeper(token_source="classic")
    await keeper.tick()
    old = value_of(keeper)
    keeper.refuse(old)
    assert keeper.ready is None
    await keeper.tick()
    assert value_of(keeper) != old
    assert office.fetches(CLASSIC) == 2


class Outside:
    """A token service of somebody else; answers what it is told."""

    def __init__(self) -> None:
        self.url = ""
        self.calls: list[str] = []
        self.answer: Any = {"access_token": "outside-1", "expires_in": 7200}

    async def handle(self, request: web.Request) -> web.Response:
        self.calls.append(request.path_qs)
        return web.json_response(self.answer)


@pytest.fixture
async def outside() -> AsyncIterator[Outside]:
    service = Outside()
    app = web.Application()
    app.router.add_get("/token", service.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    service.url = f"http://127.0.0.1:{runner.addresses[0][1]}/token?key=outside-key"
    yield service
    await runner.cleanup()


async def test_a_token_service_at_a_url(office: Office, outside: Outside) -> None:
    keeper = await office.keeper(token_source="url", token_url=outside.url)
    await ticked(keeper)
    assert value_of(keeper) == "outside-1"
    assert outside.calls == ["/token?key=outside-key"]
    assert (office.fetches(STABLE), office.fetches(CLASSIC)) == (0, 0)
    outside.answer = {"access_token": "outside-2", "expires_in": "7200"}
    keeper.refuse("outside-1")
    await keeper.tick()
    assert value_of(keeper) == "outside-2"


async def test_a_token_service_that_names_no_lifetime_is_asked_again_after_two_hours(
    office: Office, outside: Outside
) -> None:
    outside.answer = {"access_token": "outside-1"}
    keeper = await office.keeper(token_source="url", token_url=outside.url)
    await ticked(keeper)
    assert keeper.ready
    assert keeper.ready.expires_at - office.clock() == 7200


@pytest.mark.parametrize(
    "answer",
    [
        {"access_token": "outside-1", "expires_in": None},
        {"access_token": "outside-1", "expires_in": "two hours"},
        {"access_token": "outside-1", "expires_in": {}},
        {"access_token": None, "expires_in": 7200},
        {"access_token": "", "expires_in": 7200},
        {"errcode": "broken", "errmsg": "no token"},
        ["outside-1"],
    ],
)
async def test_a_token_service_that_answers_nonsense_gives_no_token_and_ends_nothing(
    office: Office, outside: Outside, lines: list[Any], answer: Any
) -> None:
    outside.answer = answer
    keeper = await office.keeper(token_source="url", token_url=outside.url)
    await keeper.tick()
    assert keeper.ready is None
    assert len(events_of(lines, "token_refresh_failed")) == 1


async def test_a_token_that_somebody_keeps_in_redis(
    office: Office, client: "redis.Redis", lines: list[Any]
) -> None:
    keeper = await office.keeper(token_source="redis", token_key="their:token")
    await ticked(keeper)
    assert keeper.ready is None
    client.set("their:token", "theirs-1", ex=600)
    await keeper.tick()
    assert value_of(keeper) == "theirs-1"
    keeper.refuse("theirs-1")
    await keeper.tick()
    assert keeper.ready is None
    client.set("their:token", "theirs-2", ex=600)
    await keeper.tick()
    assert value_of(keeper) == "theirs-2"
    assert (office.fetches(STABLE), office.fetches(CLASSIC)) == (0, 0)
    assert client.get(keys.token("shop")) is None
    assert not lines


async def test_a_token_of_somebody_else_that_ends_at_once_is_not_kept_for_hours(
    office: Office, client: "redis.Redis"
) -> None:
    keeper = await office.keeper(token_source="redis", token_key="other:token")
    client.set("other:token", "about-to-end", px=499)  # TTL says 0
    token = await keeper._vault.read()
    assert token is None or token.life_s == 0
    client.set("other:token", "endless")
    token = await keeper._vault.read()
    assert token
    assert token.life_s == 7200
    client.delete("other:token")


async def test_a_token_of_somebody_else_that_was_refused_once_is_tried_again(
    office: Office, client: "redis.Redis"
) -> None:
    """WeChat refuses good tokens now and then; theirs may not change for two hours."""
    keeper = await office.keeper(token_source="redis", token_key="their:token")
    client.set("their:token", "theirs-1", ex=7200)
    await keeper.tick()
    keeper.refuse("theirs-1")
    office.clock.at_s += 60
    await keeper.tick()
    assert value_of(keeper) == "theirs-1"


# -- one refresh for all ------------------------------------------------------------------------


async def test_ten_processes_fetch_one_token(office: Office) -> None:
    keepers = [await office.keeper() for _ in range(10)]
    office.fail(FaultAction.DELAY, ms=100)
    await ticked(*keepers)
    assert len({value_of(keeper) for keeper in keepers}) == 1
    assert office.fetches() == 1


async def test_who_gets_the_lock_looks_once_more(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process fetched the token between the first look and the lock."""
    slow, quick = await office.keeper(), await office.keeper()
    lock = slow._client.set

    async def set_after_the_other(*args: Any, **options: Any) -> Any:
        await quick.tick()
        return await lock(*args, **options)

    monkeypatch.setattr(slow._client, "set", set_after_the_other)
    await slow.tick()
    assert value_of(slow) == value_of(quick)
    assert office.fetches() == 1


async def test_a_new_process_uses_the_token_that_is_there(office: Office) -> None:
    first = await office.keeper()
    await first.tick()
    second = await office.keeper()
    await second.tick()
    assert value_of(second) == value_of(first)
    assert office.fetches() == 1


async def test_a_thousand_refusals_of_one_token_cause_one_fetch(office: Office) -> None:
    keepers = [await office.keeper() for _ in range(10)]
    await ticked(*keepers)
    old = value_of(keepers[0])
    assert office.sandbox.state.tokens.revoke(office.clock()) == 1

    async def sender(keeper: TokenKeeper) -> None:
        keeper.refuse(old)
        await keeper.tick()

    await asyncio.gather(*(sender(keeper) for _ in range(100) for keeper in keepers))
    await ticked(*keepers)
    new = {value_of(keeper) for keeper in keepers}
    assert len(new) == 1
    assert old not in new
    assert office.fetches() == 2
    assert office.forced == 0


async def test_a_refused_token_that_was_just_confirmed_is_not_asked_for_again(
    office: Office,
) -> None:
    """The answers to sends that had started before the confirmation come one by one."""
    keeper = await office.keeper()
    await keeper.tick()
    token = value_of(keeper)
    office.clock.at_s += 10
    for _ in range(FORCE_AFTER + 3):
        keeper.refuse(token)
        await keeper.tick()
    assert office.fetches() == 2
    assert office.forced == 0


async def test_refusing_an_old_token_changes_nothing(office: Office) -> None:
    keeper = await office.keeper()
    await keeper.tick()
    old = value_of(keeper)
    office.sandbox.state.tokens.revoke(office.clock())
    keeper.refuse(old)
    await keeper.tick()
    new = keeper.ready
    keeper.refuse(old)
    assert keeper.ready is new
    await keeper.tick()
    assert keeper.ready == new
    assert office.fetches() == 2


async def test_a_process_that_lags_takes_the_new_token_without_a_fetch(office: Office) -> None:
    quick, slow = await office.keeper(), await office.keeper()
    await ticked(quick, slow)
    old = value_of(slow)
    office.sandbox.state.tokens.revoke(office.clock())
    quick.refuse(old)
    await quick.tick()
    slow.refuse(old)
    await slow.tick()
    assert value_of(slow) == value_of(quick) != old
    assert office.fetches() == 2


async def test_a_confirmation_by_one_process_frees_the_others(office: Office) -> None:
    first, second = await office.keeper(), await office.keeper()
    await ticked(first, second)
    token = value_of(first)
    first.refuse(token)
    second.refuse(token)
    office.clock.at_s += 10
    await first.tick()
    await second.tick()
    assert value_of(first) == value_of(second) == token
    assert office.fetches() == 2


async def test_the_lock_of_a_process_that_died_ends(office: Office, client: "redis.Redis") -> None:
    keeper = await office.keeper()
    client.set(keys.token_lock("shop"), "dead", px=15_000)
    await keeper.tick()
    assert keeper.ready is None
    assert client.get(keys.token_lock("shop")) == "dead"
    client.delete(keys.token_lock("shop"))
    await keeper.tick()
    assert keeper.ready
    assert client.get(keys.token_lock("shop")) is None


async def test_a_lock_that_another_process_took_meanwhile_is_left_to_it(
    office: Office, client: "redis.Redis"
) -> None:
    """A fetch that outlived its lock must not let a third process in beside the second."""
    keeper = await office.keeper()
    office.fail(FaultAction.DELAY, ms=200)
    fetching = asyncio.create_task(keeper.tick())
    await soon(lambda: office.fetches() == 1, "the token is asked for")
    client.set(keys.token_lock("shop"), "another", px=15_000)
    await fetching
    assert keeper.ready
    assert client.get(keys.token_lock("shop")) == "another"


class Hole:
    """Takes connections and never answers, until it is filled: then it leads to WeChat."""

    def __init__(self) -> None:
        self.way: tuple[str, int] | None = None
        self.calls = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            self.calls += not head.startswith(b"HEAD")
            if self.way is None:
                await reader.read()
            else:
                back, there = await asyncio.open_connection(*self.way)
                with contextlib.closing(there):
                    there.write(head)
                    writer.write(await back.read(1000))


@pytest.fixture
async def hole() -> AsyncIterator[tuple[Hole, str]]:
    it = Hole()
    server = await asyncio.start_server(it.handle, "127.0.0.1", 0)
    async with server:
        yield it, "http://{}:{}".format(*server.sockets[0].getsockname())


async def keep(keeper: TokenKeeper) -> None:
    """Tick as a worker does that has no token."""
    while True:
        await keeper.tick()
        await asyncio.sleep(0.1)


async def test_who_gets_no_answer_leaves_the_lock_to_others(
    office: Office, hole: tuple[Hole, str]
) -> None:
    it, url = hole
    deaf = [await office.keeper({"wechat_url": url, "post_timeout": 8}) for _ in range(2)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(keep(keeper)) for keeper in deaf]
        await soon(lambda: it.calls == 1, "the first one asks")
        healthy = await office.keeper()
        tasks.append(group.create_task(keep(healthy)))
        await soon(lambda: healthy.ready is not None, "there is a token", within_s=16)
        for task in tasks:
            task.cancel()
    assert it.calls <= 2, "each has asked once"
    assert office.fetches() == 1


async def test_who_got_no_answer_asks_again_once_wechat_answers(
    office: Office, hole: tuple[Hole, str]
) -> None:
    it, url = hole
    keeper = await office.keeper({"wechat_url": url, "post_timeout": 8}, token_source="classic")
    await keeper.tick()
    assert it.calls == 1
    keeper._not_before = 0.0  # it waits two seconds after a failure
    await keeper.tick()
    assert it.calls == 1, "a HEAD is not answered either: the lock is left to others"
    address = urlsplit(office.sandbox.url)
    it.way = (address.hostname or "", address.port or 0)
    keeper._not_before = 0.0
    await keeper.tick()
    assert it.calls == 2
    assert office.is_good(keeper.ready)


async def test_who_gets_no_answer_stays_away_twice_as_long_each_time(office: Office) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = f"http://127.0.0.1:{listener.getsockname()[1]}"
    service = (await office.keeper({"wechat_url": nobody}))._service
    away: list[int] = []
    for _ in range(5):
        with pytest.raises(TokenError):
            await service.fetch(forced=False)
        away.append(round((service._away_until - time.monotonic()) / 10))
    assert away == [3, 6, 12, 24, 24]  # tens of seconds; the first is twice the lock's life


async def test_without_a_connection_the_gate_is_closed_and_nothing_is_asked(
    office: Office, client: "redis.Redis", lines: list[Any]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = f"http://127.0.0.1:{listener.getsockname()[1]}"
    keeper = await office.keeper({"wechat_url": nobody})
    await keeper.tick()
    assert office.heard == [("w1", Fate.UNSENT)]
    assert len(events_of(lines, "token_refresh_failed")) == 1
    keeper._not_before = keeper._service._away_until = 0.0
    await keeper.tick()
    assert len(events_of(lines, "token_refresh_failed")) == 1, "its connection is tried elsewhere"
    assert client.get(keys.token_lock("shop")) is None
    await ticked(await office.keeper(), keeper)
    assert keeper.ready, "another one's token is read all the same"


# -- renewing -----------------------------------------------------------------------------------


async def test_it_is_renewed_before_it_ends_while_the_old_one_is_used(office: Office) -> None:
    keeper = await office.keeper()
    await keeper.tick()
    old = value_of(keeper)
    office.clock.at_s += 7200 - RENEW_S - 1
    await keeper.tick()
    assert office.fetches() == 1
    office.clock.at_s += 2
    office.fail(FaultAction.DELAY, ms=300)
    renewing = asyncio.create_task(keeper.tick())
    await soon(lambda: office.fetches() == 2, "the renewal was asked for")
    assert not renewing.done()
    assert value_of(keeper) == old
    await renewing
    assert value_of(keeper) != old
    assert office.is_good(keeper.ready)


async def test_ten_processes_renew_once(office: Office) -> None:
    keepers = [await office.keeper() for _ in range(10)]
    await ticked(*keepers)
    office.clock.at_s += 7200 - RENEW_S + 1
    await ticked(*keepers)
    assert len({value_of(keeper) for keeper in keepers}) == 1
    assert office.fetches() == 2


async def test_no_look_is_needed_before_it_is_to_be_renewed(office: Office) -> None:
    keeper = await office.keeper()
    assert keeper.due_in_s == 0
    await keeper.tick()
    assert keeper.due_in_s == 7200 - RENEW_S
    office.clock.at_s += 7200 - RENEW_S - 1
    assert keeper.due_in_s == 1
    office.clock.at_s += 2
    assert keeper.due_in_s == 0
    await keeper.tick()
    assert keeper.due_in_s == 7200 - RENEW_S
    keeper.refuse(value_of(keeper))
    assert keeper.due_in_s == 0


async def test_a_token_that_did_not_change_is_decrypted_once(office: Office) -> None:
    first, second = await office.keeper(), await office.keeper()
    await ticked(first, second)
    seen = second.ready
    await ticked(second)
    assert seen is not None
    assert second.ready is seen
    office.clock.at_s += 7200 - RENEW_S + 1
    await ticked(first, second)
    assert second.ready == first.ready != seen


async def test_the_classic_token_is_renewed_before_it_ends(office: Office) -> None:
    keeper = await office.keeper(token_source="classic")
    await keeper.tick()
    old = value_of(keeper)
    office.clock.at_s += 7200 - RENEW_S + 1
    await keeper.tick()
    assert value_of(keeper) != old
    await keeper.tick()
    assert office.fetches(CLASSIC) == 2


@pytest.mark.parametrize(
    ("action", "more"),
    [
        (FaultAction.STATUS, {}),
        (FaultAction.GARBAGE, {}),
        (FaultAction.CUT_BEFORE, {}),
        (FaultAction.ERRCODE, {"errcode": -1}),
        (FaultAction.ERRCODE, {"errcode": 45009}),
    ],
)
async def test_while_the_token_call_fails_the_old_token_is_used_until_its_end(
    office: Office, lines: list[Any], action: FaultAction, more: dict[str, Any]
) -> None:
    keeper = await office.keeper()
    await keeper.tick()
    old = value_of(keeper)
    office.clock.at_s += 7200 - RENEW_S + 1
    office.fail(action, **more)
    await keeper.tick()
    assert value_of(keeper) == old
    (failure,) = events_of(lines, "token_refresh_failed")
    assert (failure["app"], failure["source"]) == ("shop", "stable")
    assert failure["errcode"] == more.get("errcode", 0)
    assert failure["error"]
    assert failure["log_level"] == "error"
    office.clock.at_s += RENEW_S - 2
    assert value_of(keeper) == old
    office.clock.at_s += 1
    assert keeper.ready is None
    office.heal()
    keeper._not_before = 0.0  # it waits two seconds after a failure
    await keeper.tick()
    assert value_of(keeper) != old
    assert office.is_good(keeper.ready)


async def test_it_recovers_by_itself_two_seconds_after_a_failure(office: Office) -> None:
    keeper = await office.keeper()
    office.fail()
    await ticked(keeper)
    assert office.fetches() == 1
    office.heal()

    async def ready() -> None:
        while keeper.ready is None:
            await keeper.tick()
            await asyncio.sleep(0.02)

    await asyncio.wait_for(ready(), 10)
    assert office.fetches() == 2


async def test_a_wrong_secret_is_said_and_gives_no_token(office: Office, lines: list[Any]) -> None:
    keeper = await office.keeper(secret="another-secret")
    await keeper.tick()
    assert keeper.ready is None
    (failure,) = events_of(lines, "token_refresh_failed")
    assert failure["errcode"] == 40125
    assert failure["error"].startswith("invalid appsecret")


async def test_a_changed_secret_makes_the_stored_token_unreadable_and_fetches_anew(
    office: Office,
) -> None:
    await ticked(await office.keeper())
    office.sandbox.orders.configure({"apps": {APPID: "new-secret"}})
    keeper = await office.keeper(secret="new-secret")
    await keeper.tick()
    assert office.is_good(keeper.ready)
    assert office.fetches() == 2


# -- forcing ------------------------------------------------------------------------------------


async def refused_again(office: Office, keeper: TokenKeeper) -> None:
    """WeChat refuses the token a while after its last confirmation."""
    office.clock.at_s += 10
    keeper.refuse(value_of(keeper))
    await keeper.tick()


async def test_a_new_token_is_forced_only_after_three_confirmations(
    office: Office, lines: list[Any]
) -> None:
    keeper = await office.keeper()
    await keeper.tick()
    token = value_of(keeper)
    for confirmations in range(1, FORCE_AFTER + 1):
        await refused_again(office, keeper)
        assert value_of(keeper) == token
        assert office.fetches() == 1 + confirmations
    assert office.forced == 0
    await refused_again(office, keeper)
    assert value_of(keeper) != token
    assert office.forced == 1
    assert [line["forced"] for line in events_of(lines, "token_refreshed")] == [False, True]


async def test_a_token_that_was_forced_is_not_forced_again_at_once(office: Office) -> None:
    keeper = await office.keeper()
    await keeper.tick()
    for _ in range(FORCE_AFTER + 1):
        await refused_again(office, keeper)
    forced = value_of(keeper)
    for _ in range(3 * FORCE_AFTER):  # half a minute has not passed
        await refused_again(office, keeper)
    assert value_of(keeper) == forced
    assert office.forced == 1


async def test_an_accepted_send_makes_earlier_refusals_passing_ones(office: Office) -> None:
    keeper = await office.keeper()
    await keeper.tick()
    token = value_of(keeper)
    for _ in range(3 * FORCE_AFTER):
        await refused_again(office, keeper)
        keeper.accept(token)
    assert value_of(keeper) == token
    assert office.forced == 0


async def test_classic_tokens_are_never_forced(office: Office) -> None:
    keeper = await office.keeper(token_source="classic")
    await keeper.tick()
    for _ in range(2 * FORCE_AFTER):
        await refused_again(office, keeper)
    assert office.forced == 0
    assert office.fetches(STABLE) == 0


# -- secrets ------------------------------------------------------------------------------------


def everything_in(client: "redis.Redis") -> str:
    """Return every key and value of the database."""
    read = {
        "string": client.get,
        "hash": client.hgetall,
        "list": lambda key: client.lrange(key, 0, -1),
        "set": client.smembers,
        "zset": lambda key: client.zrange(key, 0, -1, withscores=True),
    }
    return repr([(key, read[client.type(key)](key)) for key in client.scan_iter(count=1000)])


async def test_nothing_secret_lies_in_redis_in_clear(office: Office, client: "redis.Redis") -> None:
    keeper = await office.keeper()
    await keeper.tick()
    token = value_of(keeper)
    stored = everything_in(client)
    assert keys.token("shop") in stored
    for secret in (token, SECRET):
        for form in (secret, base64.urlsafe_b64encode(secret.encode()).decode().rstrip("=")):
            assert form not in stored
    ttl_ms = client.pttl(keys.token("shop"))
    assert 7_100_000 < ttl_ms <= 7_200_000


async def test_no_repr_shows_a_secret(office: Office) -> None:
    keeper = await office.keeper()
    await keeper.tick()
    token = value_of(keeper)
    parts = (keeper, keeper._service, keeper._vault)
    for thing in (keeper.ready, keeper._app, *parts, *map(vars, parts)):
        assert token not in repr(thing)
        assert SECRET not in repr(thing)


@pytest.mark.parametrize("source", ["stable", "classic", "url"])
async def test_no_line_and_no_error_shows_a_secret_when_the_call_fails(
    office: Office, lines: list[Any], caplog: pytest.LogCaptureFixture, source: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = f"http://127.0.0.1:{listener.getsockname()[1]}"
    caplog.set_level("DEBUG")
    keeper = await office.keeper(
        token_source=source, token_url=f"{nobody}/t?key=outside-key", wechat_url=nobody
    )
    with pytest.raises(TokenError) as caught:
        await keeper._service.fetch(forced=False)
    keeper._service._connects = lambda: True  # it would not ask: no connection came up
    keeper._service._away_until = 0.0
    await keeper.tick()
    assert len(events_of(lines, "token_refresh_failed")) == 1
    said = "".join(
        [repr(lines), caplog.text, repr(caught.value), *traceback.format_exception(caught.value)]
    )
    for secret in (SECRET, "outside-key", APPID):
        assert secret not in said


async def test_no_line_shows_a_secret_when_the_call_succeeds_or_is_refused(
    office: Office, lines: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    keeper = await office.keeper(token_source="classic")
    await keeper.tick()
    values = [value_of(keeper)]
    keeper.refuse(values[0])
    office.fail(FaultAction.ERRCODE, errcode=40164)
    await keeper.tick()
    office.heal()
    keeper._not_before = 0.0
    await keeper.tick()
    values.append(value_of(keeper))
    said = repr(lines) + caplog.text
    for secret in (SECRET, *values):
        assert secret not in said


def test_settings_hide_the_secret_and_the_url_of_the_token_service(
    make_settings: Callable[..., Settings],
) -> None:
    settings = make_settings(app={"token_source": "url", "token_url": "https://t/?key=outside-key"})
    assert isinstance(settings.apps["shop"].token_url, SecretStr)
    for secret in (SECRET, "outside-key"):
        assert secret not in repr(settings)
        assert secret not in settings.model_dump_json()


# -- other settings -----------------------------------------------------------------------------


def with_secret(keeper: TokenKeeper, secret: str) -> None:
    """Change the app's secret, as its file may."""
    settings = keeper._settings
    changed = settings.app("shop").model_copy(update={"secret": SecretStr(secret)})
    settings.apps.put({"shop": changed})
    keeper.follow()


async def test_another_secret_is_tried_at_once_and_the_token_in_hand_stays_good(
    office: Office, lines: list[Any]
) -> None:
    keeper, late = await office.keeper(), await office.keeper()
    await ticked(keeper, late)
    first = value_of(keeper)
    with_secret(keeper, "a typing error")
    await keeper.tick()
    [line] = events_of(lines, "token_refresh_failed")
    assert line["errcode"] == 40125
    assert value_of(keeper) == first
    office.sandbox.state.config.apps[APPID] = "another-secret"
    with_secret(keeper, "another-secret")
    before = office.fetches()
    await keeper.tick()
    assert value_of(keeper) == first  # stable_token gives the same, and so proves the secret
    await ticked(keeper, late)
    assert office.fetches() == before + 1
    assert value_of(late) == first  # who has not heard of it yet has what it had
    with_secret(late, "another-secret")
    await late.tick()
    assert (value_of(late), office.fetches()) == (first, before + 1)


async def test_refusals_from_before_a_change_force_nothing_after_it(office: Office) -> None:
    keeper = await office.keeper()
    await keeper.tick()
    for _ in range(FORCE_AFTER):
        await refused_again(office, keeper)
    office.sandbox.state.config.apps[APPID] = "another-secret"
    with_secret(keeper, "another-secret")
    await keeper.tick()
    for _ in range(FORCE_AFTER):
        await refused_again(office, keeper)
    assert office.forced == 0
    await refused_again(office, keeper)
    assert office.forced == 1


async def test_a_change_that_does_not_concern_it_asks_for_no_token(office: Office) -> None:
    keeper = await office.keeper()
    await keeper.tick()
    settings = keeper._settings
    changed = settings.app("shop").model_copy(update={"rate_per_second": 1})
    settings.apps.put({"shop": changed})
    keeper.follow()
    await keeper.tick()
    assert office.fetches() == 1
