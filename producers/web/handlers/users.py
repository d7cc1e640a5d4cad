"""Users: shown, and forgotten."""

from typing import Final

from producers.access.api_keys import Scope
from producers.users import UserCard
from producers.users.forget import Forgotten
from producers.web.call import Call
from producers.web.http.answer import Answer
from producers.web.routing.route import Route, ok

CHAPTER: Final = "Users"


async def show_user(call: Call) -> Answer:
    """Show what a user gave, and what became of it."""
    return Answer(value=await call.run(call.services.users.show, call.app, call.path["openid"]))


async def forget_user(call: Call) -> Answer:
    """Forget a user everywhere."""
    return Answer(value=await call.run(call.services.users.forget, call.app, call.path["openid"]))


ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "GET",
        "/v1/apps/{app}/users/{openid}",
        show_user,
        Scope.READ,
        "Show a user",
        CHAPTER,
        ok("Permits by kind, template and expiry; recent sends and their outcomes", UserCard),
        text="What happened to this user. Of an unknown one, an empty card.",
    ),
    Route(
        "DELETE",
        "/v1/apps/{app}/users/{openid}",
        forget_user,
        Scope.ADMIN,
        "Forget a user everywhere",
        CHAPTER,
        ok("What was known", Forgotten),
    ),
)
