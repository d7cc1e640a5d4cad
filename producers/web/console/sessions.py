"""Signing in: an API key opens a session, which the browser keeps in a cookie without scripts."""

from typing import Final

from pydantic import Field

from producers.access.api_keys import ApiKey
from producers.access.sessions import LIFE, csrf_of
from producers.web.call import COOKIE, Call
from producers.web.http.answer import Answer
from producers.web.models import Model
from producers.web.routing.route import SMALL, Body, Open, Reply, Route, json_body

CHAPTER: Final = "The console"


class SignIn(Model):
    """Who signs in."""

    key: str = Field(description="an API key, wxb_…", max_length=200)


class Session(Model):
    """Who is signed in."""

    csrf: str = Field(description="what X-CSRF-Token of every change must be")
    key: str = Field(description="id of the key")
    name: str = Field(description="what the key is called")
    apps: list[str] = Field(description="what it is for; all of the settings, if it is for any")
    scopes: list[str] = Field(description="what it may do")


def _session(call: Call, key: ApiKey, session: str) -> Session:
    return Session(
        csrf=csrf_of(session),
        key=key.id,
        name=key.name,
        apps=[app for app in call.services.settings.apps if key.is_for(app)],
        scopes=sorted(scope.value for scope in key.scopes),
    )


def _cookie(call: Call, value: str, seconds: int) -> str:
    """Return the cookie; it goes over TLS alone where a proxy before us ends that."""
    secure = "; Secure" if call.services.settings.web_proxies else ""
    return f"{COOKIE}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"


async def sign_in(call: Call) -> Answer:
    """Open a session."""
    body: SignIn = call.body
    services = call.services
    key = await services.guard.identify(body.key.strip())
    await services.guard.admit(key)
    call.actor = key.id
    session = await call.run(services.sessions.open, key.id)
    headers = {"Set-Cookie": _cookie(call, session, int(LIFE.total_seconds()))}
    return Answer(201, value=_session(call, key, session), headers=headers)


async def show_session(call: Call) -> Answer:
    """Say who is signed in."""
    session = call.session
    key = await call.services.guard.identify_session(session)
    call.actor = key.id
    return Answer(value=_session(call, key, session))


async def sign_out(call: Call) -> Answer:
    """End the session."""
    session = call.session
    call.actor = (await call.services.guard.identify_session(session)).id
    call.services.guard.forget(session)
    await call.run(call.services.sessions.end, session)
    return Answer(204, headers={"Set-Cookie": _cookie(call, "", 0)})


_PATH: Final = "/console/session"

ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "POST",
        _PATH,
        sign_in,
        Open.SESSION,
        "Sign in",
        CHAPTER,
        {201: Reply("A session, in a cookie", Session)},
        body=Body(json_body(SignIn).model, limit=SMALL),
        problems=(401, 403, 429),
    ),
    Route(
        "GET",
        _PATH,
        show_session,
        Open.SESSION,
        "Who is signed in?",
        CHAPTER,
        {200: Reply("Who", Session)},
        problems=(401,),
    ),
    Route(
        "DELETE",
        _PATH,
        sign_out,
        Open.SESSION,
        "Sign out",
        CHAPTER,
        {204: Reply("Nobody is signed in")},
        problems=(401, 403),
    ),
)
