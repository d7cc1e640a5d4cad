"""Access tokens."""

from itertools import pairwise
from typing import Any

from sandbox_client import APPID, Opener, WeChat

STABLE = {"grant_type": "client_credential", "appid": APPID, "secret": "s"}


async def stable(wechat: WeChat, **more: Any) -> dict[str, Any]:
    return await wechat.post("/cgi-bin/stable_token", {**STABLE, **more})


async def errcode_with(wechat: WeChat, token: str) -> int:
    wechat.token = token
    return (await wechat.send_template("o1", "none"))["errcode"]


async def test_a_classic_token_has_two_fields_and_7200_seconds(wechat: WeChat) -> None:
    query = {"grant_type": "client_credential", "appid": APPID, "secret": "s"}
    answer = await wechat.get("/cgi-bin/token", **query)
    assert set(answer) == {"access_token", "expires_in"}
    assert answer["expires_in"] == 7200
    assert len(answer["access_token"]) > 100


async def test_a_replaced_classic_token_works_for_five_more_minutes(wechat: WeChat) -> None:
    old = wechat.token
    new = await wechat.log_in()
    assert new != old
    wechat.clock.advance(299)
    assert await errcode_with(wechat, old) == 41028
    wechat.clock.advance(1)
    assert await errcode_with(wechat, old) == 40001
    assert await errcode_with(wechat, new) == 41028


async def test_a_token_is_missing_wrong_or_expired(wechat: WeChat) -> None:
    token = wechat.token
    assert await errcode_with(wechat, "") == 41001
    assert await errcode_with(wechat, "nobody's") == 40001
    wechat.clock.advance(7200)
    assert await errcode_with(wechat, token) == 42001


async def test_the_stable_token_stays_the_same_with_what_remains(wechat: WeChat) -> None:
    first = await stable(wechat)
    wechat.clock.advance(1000)
    second = await stable(wechat)
    assert second == {"access_token": first["access_token"], "expires_in": 6200}


async def test_the_stable_token_is_renewed_five_minutes_before_its_end(wechat: WeChat) -> None:
    first = await stable(wechat)
    wechat.clock.advance(6899)
    assert (await stable(wechat))["access_token"] == first["access_token"]
    wechat.clock.advance(1)
    second = await stable(wechat)
    assert second["access_token"] != first["access_token"]
    assert second["expires_in"] == 7200
    assert await errcode_with(wechat, first["access_token"]) == 41028


async def test_a_forced_refresh_stops_the_token_before_at_once(wechat: WeChat) -> None:
    first = (await stable(wechat))["access_token"]
    second = (await stable(wechat, force_refresh=True))["access_token"]
    assert second != first
    assert await errcode_with(wechat, first) == 40001
    assert await errcode_with(wechat, second) == 41028


async def test_a_forced_refresh_within_30_seconds_refreshes_nothing(wechat: WeChat) -> None:
    first = (await stable(wechat, force_refresh=True))["access_token"]
    wechat.clock.advance(29)
    assert (await stable(wechat, force_refresh=True))["access_token"] == first
    wechat.clock.advance(1)
    assert (await stable(wechat, force_refresh=True))["access_token"] != first


async def test_twenty_forced_refreshes_are_granted_a_day(wechat: WeChat) -> None:
    tokens = []
    for _ in range(20):
        tokens.append((await stable(wechat, force_refresh=True))["access_token"])
        wechat.clock.advance(30)
    assert all(one != other for one, other in pairwise(tokens))
    assert (await stable(wechat, force_refresh=True))["errcode"] == 45009
    wechat.clock.advance(86_400)
    assert "access_token" in await stable(wechat, force_refresh=True)


async def test_classic_and_stable_tokens_leave_each_other_alone(wechat: WeChat) -> None:
    classic = wechat.token
    await stable(wechat, force_refresh=True)
    wechat.clock.advance(30)
    await stable(wechat, force_refresh=True)
    assert await errcode_with(wechat, classic) == 41028


async def test_the_stable_token_is_asked_for_by_post_only(wechat: WeChat) -> None:
    assert (await wechat.get("/cgi-bin/stable_token", **STABLE))["errcode"] == 43002


async def test_wrong_credentials_have_their_errcodes(open_wechat: Opener) -> None:
    wechat = await open_wechat(apps={APPID: "s"})
    for change, errcode in (
        ({"grant_type": "other"}, 40002),
        ({"appid": ""}, 41002),
        ({"secret": ""}, 41004),
        ({"appid": "wxother"}, 40013),
        ({"secret": "wrong"}, 40125),
    ):
        assert (await stable(wechat, **change))["errcode"] == errcode
        answer = await wechat.get("/cgi-bin/token", **{**STABLE, **change})
        assert answer["errcode"] == errcode


async def test_token_calls_are_counted_per_path(wechat: WeChat) -> None:
    for _ in range(3):
        await stable(wechat)
    stats = await wechat.ask("stats")
    assert stats["apis"]["/cgi-bin/stable_token"]["requests"] == 3
    assert stats["apis"]["/cgi-bin/token"]["requests"] == 1
    assert stats["tokens"] == {"issued": {"classic": 1, "stable": 1}, "forced": 0, "good": 2}


async def test_a_short_lifetime_still_gives_the_same_stable_token_twice(
    open_wechat: Opener,
) -> None:
    wechat = await open_wechat(token_lifetime_s=10)
    first = await stable(wechat)
    wechat.clock.advance(4)
    assert (await stable(wechat))["access_token"] == first["access_token"]
    wechat.clock.advance(2)
    assert (await stable(wechat))["access_token"] != first["access_token"]


async def test_revoked_tokens_stop_at_once(wechat: WeChat) -> None:
    token = wechat.token
    assert await wechat.order("revoke", {}) == {"revoked": 1}
    assert await errcode_with(wechat, token) == 40001
