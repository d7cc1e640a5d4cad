"""What the doctor checks of each app: its own settings, and what its WeChat says.

A token is asked for only where asking is harmless: ``stable_token`` in normal mode gives everybody
the same one; a classic token would replace the one in use, so it is not fetched.

Sources: WeChat docs, getStableAccessToken and openApi management (quota/get).
"""

import asyncio
from typing import Any, Final

import aiohttp
import orjson
from yarl import URL

from producers.care.check import Check, Health
from producers.logs.redaction import redacted
from producers.outward import Outward, named
from producers.settings import AppSettings, Settings
from producers.words import TokenSource

_TIMEOUT_S: Final = 5
_AT_ONCE: Final = 20
_IN_ALL_S: Final = 12
"""One call to WeChat; apps that are asked at once; and all calls, whatever the number of apps."""

_PATHS: Final = ("/cgi-bin/message/subscribe/send",)


def examine_apps(settings: Settings) -> list[Check]:
    """Check each app's settings, and ask its WeChat."""
    checks = [_templates(alias, app) for alias, app in settings.apps.items()]
    checks += [_pushes(alias, app) for alias, app in settings.apps.items() if app.callback_token]
    return checks + asyncio.run(_ask_all(settings))


def _templates(alias: str, app: AppSettings) -> Check:
    """A phone may report any template, and each that it makes up stays in the stock."""
    name, count = f"app {alias}: subscribe_templates", len(app.subscribe_templates)
    if count:
        return Check(name, Health.OK, f"{count} templates")
    return Check(name, Health.WARN, "any", "list the template ids that phones may report")


def _pushes(alias: str, app: AppSettings) -> Check:
    """Say what a push in clear cannot be protected against."""
    name = f"app {alias}: pushes"
    if app.callback_aes_key and not app.callback_plain:
        return Check(name, Health.OK, "encrypted ones only")
    return Check(
        name,
        Health.WARN,
        "taken in clear: their signature does not cover what they say",
        "whoever reads such a push on its way can put another in its place, of any user: choose "
        "secure mode in WeChat's console, set callback_aes_key, and unset callback_plain",
    )


async def _ask_all(settings: Settings) -> list[Check]:
    """Ask each app's WeChat, some at once; who has not answered in time for all is bad."""
    places, outward = asyncio.Semaphore(_AT_ONCE), Outward(settings)

    async def ask(session: aiohttp.ClientSession, alias: str) -> list[Check]:
        async with places:
            return await _ask_one(session, outward, settings, alias)

    async with aiohttp.ClientSession(
        connector=outward.connector(limit=0),
        timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S),
    ) as session:
        asked = {alias: asyncio.create_task(ask(session, alias)) for alias in settings.apps}
        if asked:
            _, late = await asyncio.wait(asked.values(), timeout=_IN_ALL_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
    return [
        check
        for alias, task in asked.items()
        for check in ([_late(settings, alias)] if task.cancelled() else task.result())
    ]


def _late(settings: Settings, alias: str) -> Check:
    base = settings.wechat_base(alias)
    return Check(
        f"app {alias}: token",
        Health.BAD,
        f"no answer in the {_IN_ALL_S} s for all apps",
        f"is {base} reachable from here?",
    )


async def _ask_one(
    session: aiohttp.ClientSession, outward: Outward, settings: Settings, alias: str
) -> list[Check]:
    app = settings.app(alias)
    name = f"app {alias}: token"
    if app.token_source is not TokenSource.STABLE:
        return [Check(name, Health.SKIPPED, f"token_source is {app.token_source}")]
    body = {
        "grant_type": "client_credential",
        "appid": app.appid,
        "secret": app.secret.get_secret_value(),
        "force_refresh": False,
    }
    base = settings.wechat_base(alias)
    answer = await _post(session, outward, f"{base}/cgi-bin/stable_token", body)
    if isinstance(answer, str):
        return [Check(name, Health.BAD, answer, f"is {base} reachable from here?")]
    if "access_token" not in answer:
        code, text = answer.get("errcode"), redacted(str(answer.get("errmsg", "")))[:120]
        return [Check(name, Health.BAD, f"{code} {text}", "check appid, secret and IP whitelist")]
    checks = [Check(name, Health.OK, f"{answer.get('expires_in')} s left")]
    for path in _PATHS:
        url = f"{base}/cgi-bin/openapi/quota/get?access_token={answer['access_token']}"
        quota = await _post(session, outward, url, {"cgi_path": path})
        checks.append(_quota(f"app {alias}: quota", quota, app.daily_limit))
    return checks


def _quota(name: str, answer: dict[str, Any] | str, daily_limit: int) -> Check:
    if isinstance(answer, str) or not isinstance(answer.get("quota"), dict):
        found = answer if isinstance(answer, str) else f"{answer.get('errcode')}"
        return Check(name, Health.WARN, f"quota/get: {found}")
    limit, remain = int(answer["quota"]["daily_limit"]), int(answer["quota"]["remain"])
    found = f"{remain:,} of {limit:,} left today"
    if daily_limit == 0 or daily_limit > limit > 0:
        return Check(name, Health.WARN, found, f"set daily_limit to {limit}: WeChat allows no more")
    return Check(name, Health.OK if remain else Health.WARN, found)


async def _post(
    session: aiohttp.ClientSession, outward: Outward, url: str, body: dict[str, Any]
) -> dict[str, Any] | str:
    """Return the JSON object of an answer, or what went wrong; never the URL: it holds a token."""
    try:
        way = outward.way(URL(url))
        async with session.post(
            url, data=orjson.dumps(body), allow_redirects=False, **way
        ) as response:
            answer = orjson.loads(await response.read())
    except (aiohttp.ClientError, TimeoutError, OSError, orjson.JSONDecodeError) as error:
        return named(error)
    return answer if isinstance(answer, dict) else "not a JSON object"
